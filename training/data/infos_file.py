"""Info files: all keyframes of one split in one compressed NumPy archive, without pickled objects."""

import json
import os
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from streampetr_core.errors import StreampetrError
from training.data.infos import CLASSES_2D, COLUMNS, Infos, InfosHeader
from training.data.official_pickle import read_official_infos

_FORMAT = "streampetr infos 1"  # another number, another layout


def save_infos(infos: Infos, path: Path) -> None:
    """Write an info file; it appears under its name only when it is complete."""
    header = json.dumps({"format": _FORMAT, **asdict(infos.header)})
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez_compressed(file, header=np.array(header), **infos.columns)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StreampetrError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def load_infos(path: str | Path) -> Infos:
    """Read an info file of `streampetr prepare`, or an official `nuscenes2d_temporal_infos_*.pkl`.

    Raises:
        StreampetrError: no such file, no info file, one of another version or of another class order.
    """
    path = Path(path)
    if not path.is_file():
        raise StreampetrError(f"{path}: no such info file; make it with `streampetr prepare`")
    if path.suffix == ".pkl":
        return read_official_infos(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        header = json.loads(str(columns.pop("header")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StreampetrError(
            f"{path}: not a readable info file ({error}); make it with `streampetr prepare`"
        ) from error
    if header.pop("format", None) != _FORMAT:
        raise StreampetrError(f"{path}: an info file of another version of streampetr; run `streampetr prepare` again")
    header = InfosHeader(**{name: tuple(value) if isinstance(value, list) else value for name, value in header.items()})
    if header.classes_2d != CLASSES_2D:
        raise StreampetrError(
            f"{path}: its 2D classes are in the order {', '.join(header.classes_2d)}, not {', '.join(CLASSES_2D)}; "
            "run `streampetr prepare` again"
        )
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise StreampetrError(f"{path}: lacks {', '.join(missing)}; run `streampetr prepare` again")
    return Infos(header, columns)
