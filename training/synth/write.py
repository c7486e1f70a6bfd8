"""Writes a synthetic world as a nuScenes v1.0 root, scene by scene in several processes.

Everything grows in `<root>.partial`, which becomes `<root>` when it is complete. There, a scene counts as finished
when its folder of rows bears its final name; what an interrupted run left unfinished is written anew.
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from streampetr_core.errors import StreampetrError
from training.synth.jobs import run_jobs
from training.synth.observe import Sweep, observe
from training.synth.options import SYNTH, SceneSpec, WorldOptions
from training.synth.raster import Workspace
from training.synth.records import FIXED_TABLES, LIDAR, MAP_FILE, SCENE_TABLES, Rows, SceneRecords, Turn, fixed_rows
from training.synth.rig import CHANNELS
from training.synth.scene import FAMILIES, make_scene

MANIFEST = "synth.json"
_FORMAT = 2  # raise this when the same options give another world
_PARTS = "parts"
_JPEG_QUALITY = 90
_INTENSITY = 30.0
_MOST_BOOSTS = 4  # times that a split's scenes are made anew with more things of a missing class, at least
_MOST_EXTRA = 14  # things of one class added to one scene
Task = tuple[str, WorldOptions, SceneSpec, dict[str, int]]


def write_world(root: Path, options: WorldOptions, jobs: int = 1) -> bool:
    """Write a world to the folder `root` with `jobs` processes; return False when this very world is already there.

    Raises StreampetrError for impossible options, and when `root` holds anything else or cannot be written.
    """
    options.check()
    root = Path(root).absolute()  # so that it has a name even when given as '.'
    manifest = json.loads(json.dumps({"format": _FORMAT, **asdict(options)}))
    if _is_already_there(root, manifest):
        return False
    partial = root.with_name(root.name + ".partial")
    try:
        _open_partial(partial, manifest)
        with _locked(partial):
            _write_scenes(partial, options, jobs)
            _assemble(partial, options)
            if root.exists():
                root.rmdir()
            partial.rename(root)
    except OSError as error:
        where = error.filename or partial
        raise StreampetrError(
            f"cannot write {where}: {error.strerror}; make room or choose another folder, and give the same command "
            "again: finished scenes are kept"
        ) from None
    return True


def _is_already_there(root: Path, manifest: dict) -> bool:
    if not root.exists():
        return False
    if not root.is_dir():
        raise StreampetrError(f"{root} is a file; choose another folder")
    if not any(root.iterdir()):
        return False
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise StreampetrError(f"{root} is not empty and is no synthetic world; choose another folder") from None
    return _same(root, found, manifest)


def _same(folder: Path, found: dict, manifest: dict) -> bool:
    """Return True; raises StreampetrError that names the options in which two worlds differ."""
    other = [name for name in manifest if found.get(name) != manifest[name]]
    if other:
        what = ", ".join(f"{name} {found.get(name)} (wanted: {manifest[name]})" for name in other)
        raise StreampetrError(
            f"{folder} holds a synthetic world made with other options: {what}; remove it or choose another folder"
        )
    return True


def _open_partial(partial: Path, manifest: dict) -> None:
    """Make the folder of a new world, or see that the one there is this very world, unfinished."""
    if partial.exists():
        try:
            _same(partial, json.loads((partial / MANIFEST).read_text(encoding="utf-8")), manifest)
            return
        except (OSError, ValueError):
            if not partial.is_dir() or any(partial.iterdir()):
                raise StreampetrError(
                    f"{partial} is in the way and is no unfinished world; remove it or choose another folder"
                ) from None
    partial.mkdir(parents=True, exist_ok=True)
    _write_whole(partial / MANIFEST, json.dumps(manifest, indent=1))


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Keep a second run away from an unfinished world."""
    with (partial / MANIFEST).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StreampetrError(f"{partial} is being written by another run; wait for it, or stop it") from None
        yield


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is either there as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    _write(temporary, text.encode())
    temporary.rename(path)


def _write_scenes(partial: Path, options: WorldOptions, jobs: int) -> None:
    (partial / _PARTS).mkdir(exist_ok=True)
    specs = options.specs()
    for channel in (*CHANNELS, *([LIDAR] if options.lidar else [])):
        for folder in ("samples", *(["sweeps"] if options.sweeps else [])):
            (partial / folder / channel).mkdir(parents=True, exist_ok=True)
    pictures = len(options.turns) * len(CHANNELS)
    open_tasks = [(str(partial), options, spec, {}) for spec in specs if _done(partial, spec) is None]
    run_jobs(write_scene, open_tasks, jobs, pictures, "synthetic world", done=pictures * (len(specs) - len(open_tasks)))
    for family in FAMILIES:
        _meet_quota(partial, options, [spec for spec in specs if spec.family == family], pictures)


def _done(partial: Path, spec: SceneSpec) -> dict | None:
    """Return what is noted of a finished scene; None for any other."""
    path = partial / _PARTS / spec.name / "done.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _meet_quota(partial: Path, options: WorldOptions, specs: list[SceneSpec], pictures: int) -> None:
    """Make the last scene of a split anew, with more of each class that is still missing, until none is."""
    for _ in range(max(_MOST_BOOSTS, len(specs))):
        missing = _missing(partial, options, specs)
        if not missing:
            return
        # From the last scene backwards, each is made anew once before any is a second time.
        notes = [_done(partial, spec) for spec in specs]
        boosts = [sum(note["extra"].values()) for note in notes]
        number = min(range(len(specs)), key=lambda index: (boosts[index], -index))
        extra = dict(notes[number]["extra"])
        for kind in missing:
            extra[kind] = min(2 * extra.get(kind, 0) + 2, _MOST_EXTRA)
        shutil.rmtree(partial / _PARTS / specs[number].name)
        task = (str(partial), options, specs[number], dict(sorted(extra.items())))
        run_jobs(write_scene, [task], 1, pictures, f"{specs[number].name} again, for its quota")
    kind, lack = next(iter(_missing(partial, options, specs).items()), (None, 0))
    if kind:
        raise StreampetrError(
            f"--quota {kind}={options.quotas()[kind]}: {lack} too few in the {specs[0].family} scenes; ask for more "
            "scenes, more samples or a smaller quota"
        )


def _missing(partial: Path, options: WorldOptions, specs: list[SceneSpec]) -> dict[str, int]:
    counted: Counter = Counter()
    for spec in specs:
        counted.update(_done(partial, spec)["counted"])
    quotas = options.quotas() if specs else {}
    return {kind: count - counted[kind] for kind, count in quotas.items() if counted[kind] < count}


def write_scene(task: Task, advance: callable) -> None:
    """Write the pictures and rows of one scene; calls `advance(n)` for every n pictures written."""
    folder, options, spec, extra = Path(task[0]), *task[1:]
    scene = make_scene(
        options.seed, spec.family, spec.index, options.duration, (options.width, options.height), spec.name, extra=extra
    )
    records, workspace = SceneRecords(options, spec, scene), Workspace()
    for index in options.turns:
        turn = Turn(index)
        sweep = observe(scene, turn.time, with_lidar=turn.is_key_frame or options.lidar, workspace=workspace)
        _write_files(folder, records, turn, sweep, options.lidar)
        records.add_turn(turn, sweep)
        advance(len(sweep.pictures))
    rows, counted = records.finish()
    part = folder / _PARTS / spec.name
    temporary = part.with_name(part.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    _write_rows(temporary, rows)
    note = {"counted": dict(sorted(counted.items())), "extra": extra}
    _write(temporary / "done.json", json.dumps(note).encode())
    temporary.rename(part)


def _write_files(folder: Path, records: SceneRecords, turn: Turn, sweep: Sweep, lidar: bool) -> None:
    for channel, picture in sweep.pictures.items():
        image = cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR)
        # Encoded in memory: OpenCV's own writer does not say why a file could not be written.
        _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        _write(folder / records.filename(turn, channel), content.tobytes())
    if lidar:
        others = np.tile(np.array([_INTENSITY, 0.0], np.float32), (len(sweep.points), 1))
        content = np.concatenate([sweep.points, others], axis=1)
        _write(folder / records.filename(turn, LIDAR), content.tobytes())


def _write(path: Path, content: bytes) -> None:
    with _naming(path):
        path.write_bytes(content)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file where an error does not: that of a full disk, for one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write_rows(folder: Path, rows: Mapping[str, Iterable[dict]]) -> None:
    """Write rows without the brackets around them, so that the tables of all scenes can be strung together."""
    for name, table in rows.items():
        _write(folder / f"{name}.rows", ",\n".join(json.dumps(row) for row in table).encode())


def _assemble(partial: Path, options: WorldOptions) -> None:
    """Put the tables together; the rows of single scenes are not needed any more."""
    specs, tables = options.specs(), partial / options.version
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir()
    fixed: Rows = fixed_rows(options.seed)
    for name in FIXED_TABLES:
        _write(tables / f"{name}.json", json.dumps(fixed[name], indent=0).encode())
    for name in SCENE_TABLES:
        path = tables / f"{name}.json"
        with _naming(path), path.open("w", encoding="utf-8") as table:
            for number, spec in enumerate(specs):
                table.write(",\n" if number else "[\n")
                table.write((partial / _PARTS / spec.name / f"{name}.rows").read_text(encoding="utf-8"))
            table.write("\n]\n")
    if options.version == SYNTH:
        splits = {f"synth_{family}": [spec.name for spec in specs if spec.family == family] for family in FAMILIES}
        splits = {name: scenes for name, scenes in splits.items() if scenes}
        _write(tables / "splits.json", json.dumps(splits).encode())
    # What the quotas added belongs to the recipe of a scene, as its seed does.
    manifest = json.loads((partial / MANIFEST).read_text(encoding="utf-8"))
    extra = {spec.name: _done(partial, spec)["extra"] for spec in specs}
    extra = {name: more for name, more in extra.items() if more}
    _write_whole(partial / MANIFEST, json.dumps({**manifest, "extra": extra}, indent=1))
    picture = partial / MAP_FILE
    picture.parent.mkdir(exist_ok=True)
    _write(picture, cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes())
    shutil.rmtree(partial / _PARTS)
    os.sync()
