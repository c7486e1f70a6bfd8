"""nuScenes' tables through nuscenes-devkit: roots, rows and splits, with errors that name table and row."""

import json
from pathlib import Path
from typing import Any

from nuscenes.nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes

from streampetr_core.errors import StreampetrError

Row = dict[str, Any]

# Which column of which table names a row of which other table.
_LINKS = {
    "calibrated_sensor": {"sensor_token": "sensor"},
    "instance": {"category_token": "category"},
    "sample": {"scene_token": "scene"},
    "sample_annotation": {"sample_token": "sample", "instance_token": "instance"},
    "sample_data": {
        "sample_token": "sample",
        "ego_pose_token": "ego_pose",
        "calibrated_sensor_token": "calibrated_sensor",
    },
    "scene": {"log_token": "log"},
}
_OFFICIAL_SPLITS = {"trainval": ("train", "val"), "test": ("test",), "mini": ("mini_train", "mini_val")}


def open_tables(root: Path, version: str | None = None) -> NuScenes:
    """Load the tables of `version`, or of the only one there is, in a nuScenes-format root.

    Raises:
        StreampetrError: no such root or version, a table that is missing or broken, or a row that points nowhere.
    """
    version = choose_version(root, version)
    try:
        return NuScenes(version, str(root), verbose=False)
    except Exception as error:  # the devkit checks by assertions, look-ups and bare exceptions
        cause = _dangling_link(root / version) or f"{type(error).__name__}: {error}"
        raise StreampetrError(
            f"{root / version}: nuscenes-devkit cannot load these tables: {cause}; unpack them again"
        ) from error


def choose_version(root: Path, version: str | None = None) -> str:
    """Return `version`, or the only one whose tables a root holds; opens none of them.

    Raises:
        StreampetrError: no tables of that version, or of several where none is named.
    """
    versions = sorted(path.parent.name for path in root.glob("*/scene.json"))
    if version is None and len(versions) == 1:
        return versions[0]
    if version not in versions:
        found = f"there are: {', '.join(versions)}" if versions else "there is no <version>/scene.json below it"
        asked = "which --version?" if version is None else f"no nuScenes tables of version '{version}' here;"
        raise StreampetrError(f"{root}: {asked} {found}")
    return version


def get_row(tables: NuScenes, table: str, token: str, origin: str) -> Row:
    """Return a row; raise StreampetrError that tells where the token came from if it points nowhere."""
    try:
        return tables.get(table, token)
    except KeyError as error:
        raise StreampetrError(
            f"{tables.table_root}: {origin} points to {table} '{token}', which does not exist; "
            "unpack the tables of this version again"
        ) from error


def splits_of(tables: NuScenes) -> dict[str, list[str]]:
    """Return split -> names of its scenes: nuScenes' own splits of the version, and those of splits.json beside it.

    Raises:
        StreampetrError: an unreadable splits.json, or none where the version is none of nuScenes' own.
    """
    path = Path(tables.table_root) / "splits.json"
    official = [names for suffix, names in _OFFICIAL_SPLITS.items() if tables.version.endswith(suffix)]
    if not official and not path.is_file():
        raise StreampetrError(
            f"{path}: no such file. Version '{tables.version}' is none of nuScenes' own (...trainval, ...test, "
            '...mini), so this file must name its splits: {"my_train": ["scene name", ...], "my_val": [...]}'
        )
    scenes = create_splits_scenes()
    splits = {name: scenes[name] for names in official for name in names}
    return splits | (_custom_splits(path, {scene["name"] for scene in tables.scene}) if path.is_file() else {})


def _custom_splits(path: Path, known: set[str]) -> dict[str, list[str]]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StreampetrError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(splits, dict) or not all(isinstance(names, list) for names in splits.values()):
        raise StreampetrError(f"{path}: must map each split's name to a list of scene names")
    for split, names in splits.items():
        unknown = [str(name) for name in names if name not in known]
        if unknown:
            raise StreampetrError(f"{path}: split '{split}' names scenes without a row: {', '.join(unknown[:5])}")
    return splits


def _dangling_link(folder: Path) -> str | None:
    """Return what is wrong with the tables' files or links, for a person to read; None if nothing is."""
    rows: dict[str, list[Row]] = {}
    for table in {*_LINKS, *(target for links in _LINKS.values() for target in links.values())}:
        try:
            rows[table] = json.loads((folder / f"{table}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return f"{table}.json is missing"
        except (OSError, ValueError) as error:
            return f"{table}.json is not readable as JSON: {error}"
    tokens = {table: {row["token"] for row in entries} for table, entries in rows.items()}
    for table, links in _LINKS.items():
        for row in rows[table]:
            for column, target in links.items():
                if row[column] not in tokens[target]:
                    return (
                        f"{table} '{row['token']}': {column} points to {target} '{row[column]}', which does not exist"
                    )
    return None
