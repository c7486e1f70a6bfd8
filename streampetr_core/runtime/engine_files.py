"""Folders of compiled or exported stages: which checkpoint they belong to, and where they are kept.

A folder holds the stages in the files named here and `manifest.json`, which names the configuration and the digest of
the weights. `streampetr export` writes such folders; back-ends that must convert keep theirs in the user's cache, under
a digest of everything that shapes the result, so that nothing stale is ever found there.
"""

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streampetr_core import (
    attention,
    decoder,
    detector,
    following,
    heads,
    memory,
    modulation,
    neck,
    position,
    proposals,
    queries,
    recognition,
)
from streampetr_core.backbones import resnet, vovnet
from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime import stages, temporal

FORMAT = "streampetr-engines-1"
MANIFEST = "manifest.json"
ENCODER, DECODER, ENCODER_INT8 = "encoder", "decoder", "encoder_int8"
_SOURCES = (
    *(attention, decoder, detector, following, heads, memory, modulation, neck, position, proposals, queries),
    *(recognition, resnet, vovnet, stages, temporal),
)


def weights_digest(checkpoint: Checkpoint) -> str:
    """Return a digest of the configuration and of every tensor."""
    total = hashlib.sha256(json.dumps(checkpoint.config.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().data)
    return total.hexdigest()


def write_manifest(folder: Path, checkpoint: Checkpoint, **entries: Any) -> None:
    """Write the manifest of a folder; `entries` say what else is worth knowing about it."""
    values = {
        "format": FORMAT,
        "model": checkpoint.config.name,
        "weights": weights_digest(checkpoint),
        "config": checkpoint.config.to_dict(),
        "licence": checkpoint.licence,
        **entries,
    }
    (folder / MANIFEST).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def check_engines(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the manifest of a folder; raises StreampetrError unless the folder was made from this checkpoint."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StreampetrError(
            f"{folder}: no engines here ({path.name} is missing); `streampetr export` makes them"
        ) from (error)
    except ValueError as error:
        raise StreampetrError(f"{path}: damaged ({error}); export the engines again") from error
    if manifest.get("format") != FORMAT:
        raise StreampetrError(f"{path}: not of format {FORMAT}; export the engines again")
    if manifest.get("weights") != weights_digest(checkpoint):
        raise StreampetrError(
            f"{folder}: made from other weights or another configuration (model {manifest.get('model')}, this is "
            f"{checkpoint.config.name}); export the engines again"
        )
    if manifest.get("precision") != "fp32":
        raise StreampetrError(
            f"{folder}: exported in {manifest.get('precision')}, for deployment elsewhere; the runtimes take fp32 "
            "engines and choose the precision themselves"
        )
    return manifest


def given_engines(folder: Path | None, checkpoint: Checkpoint, precision: str) -> Path | None:
    """Return the folder that a user gave, checked; None where the back-end may convert the stages itself.

    Raises:
        StreampetrError: a folder of other weights, or none for int8, which needs calibration.
    """
    if folder is not None:
        check_engines(folder, checkpoint)
    elif precision == "int8":
        raise StreampetrError(
            "precision 'int8' needs calibrated engines: `streampetr export WEIGHTS --out DIR --int8 ...`, "
            "then engines DIR"
        )
    return folder


def engine_file(folder: Path, name: str) -> Path:
    """Return a file of a folder; raises StreampetrError with the remedy where it is not there."""
    path = folder / name
    if not path.is_file():
        option = " with --int8" if name.startswith(ENCODER_INT8) else ""
        raise StreampetrError(f"{path}: not among these engines; run `streampetr export`{option} again")
    return path


def cached_engines(checkpoint: Checkpoint, tool: str, build: Callable[[Path], None]) -> Path:
    """Return the cached folder of what `tool` (name and version) makes of a checkpoint; `build` fills a new one."""
    total = hashlib.sha256(weights_digest(checkpoint).encode() + tool.encode())
    for module in _SOURCES:
        total.update(inspect.getsource(module).encode())
    folder = _cache_root() / f"{checkpoint.config.name}-{tool}-{total.hexdigest()[:16]}"
    if (folder / MANIFEST).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise StreampetrError(f"{folder.parent}: the cache of engines cannot be written ({error.strerror})") from error
    try:
        build(partial)
        write_manifest(partial, checkpoint, precision="fp32", tool=tool)
        if not folder.exists():  # else another process was faster, with the same result
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _cache_root() -> Path:
    """Where converted stages are kept: $STREAMPETR_CACHE, else the user's cache; it may be deleted at any time."""
    own = os.environ.get("STREAMPETR_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streampetr"
