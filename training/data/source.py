"""Finding a split: that of a recipe, an info file, or a nuScenes-format root that is prepared on the fly."""

from pathlib import Path

from streampetr_core.errors import StreampetrError
from training.data.infos import Infos
from training.data.infos_file import load_infos
from training.data.prepare import read_split
from training.data.tables import open_tables, splits_of
from training.recipe import Recipe

_EVALUATED = ("val", "test")  # how the splits end that are meant where none is named


def open_validation_split(
    recipe: Recipe,
    dataroot: Path | None = None,
    infos: Path | None = None,
    version: str | None = None,
    split: str | None = None,
) -> tuple[Infos, Path]:
    """Return what a recipe validates on, or what is given in its place, as `open_split` does.

    Args:
        recipe: names the data root and the info file of its validation split.
        dataroot: another root.
        infos: another info file; its root is `dataroot` or its own folder or the one above, not the recipe's.
        version: read these tables of the root instead of an info file.
        split: of these tables.

    Raises:
        StreampetrError: as `open_split`; also a recipe of rendered scenes without a root, and a root that is not there.
    """
    if infos is not None:
        return open_split(infos, dataroot, version, split)
    is_rendered = recipe.data.synthetic is not None
    if is_rendered and dataroot is None:
        raise StreampetrError(
            f"recipe '{recipe.name}' validates on scenes that are rendered on the fly, but nuscenes-devkit needs "
            "tables; write a world with `streampetr synth`, and give its folder with --dataroot"
        )
    root = dataroot or Path(recipe.data.dataroot)
    if not root.is_dir():
        raise StreampetrError(f"{root}: no such folder; say where the data is with --dataroot FOLDER")
    if is_rendered or version is not None or split is not None:
        return open_split(root, None, version, split)
    return load_infos(root / recipe.data.val_infos), root


def open_split(
    path: Path, dataroot: Path | None = None, version: str | None = None, split: str | None = None
) -> tuple[Infos, Path]:
    """Return the keyframes of a split, and the folder that its images' paths start from.

    Args:
        path: an info file (the images are in `dataroot`, by default in its own folder, where official files are, or
            the one above, as `streampetr prepare` has it), or a nuScenes-format root.
        dataroot: of an info file.
        version: of the tables; a root may hold several.
        split: by default the one that is meant for evaluation, or the only one.

    Raises:
        StreampetrError: nothing there, several versions or splits to choose from, or not the ones that are asked for.
    """
    if path.is_dir():
        return _read_root(path, version, split), path
    infos = load_infos(path)
    for option, asked, given in (("version", version, infos.header.version), ("split", split, infos.header.split)):
        if asked not in (None, given):
            raise StreampetrError(f"{path}: its {option} is '{given}', not '{asked}'; give the info file of '{asked}'")
    own, above = path.absolute().parents[:2]
    return infos, dataroot or (own if (own / "samples").is_dir() else above)


def _read_root(root: Path, version: str | None, split: str | None) -> Infos:
    tables = open_tables(root, version)
    splits = splits_of(tables)
    present = {scene["name"] for scene in tables.scene}
    usable = [name for name, scenes in splits.items() if present & set(scenes)]
    preferred = [name for name in usable if name.endswith(_EVALUATED)] or usable
    if split is None and len(preferred) != 1:
        raise StreampetrError(f"{root}: choose one with --split: {', '.join(usable) or 'no split has a scene here'}")
    split = split or preferred[0]
    if split not in usable:
        raise StreampetrError(f"{root}: no scenes of split '{split}'; there are those of: {', '.join(usable)}")
    return read_split(tables, split, splits[split])
