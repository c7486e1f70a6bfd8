"""The native weights file: safetensors that carry their own model configuration, so that one file is enough.

Metadata: `format`, `config` (JSON of `ModelConfig`: class names and reference frame among it), `licence`, `source`, and
`training` (JSON of what is known of how the weights were learned).
Tensors under `aux_head.` belong to the auxiliary 2D head: training uses them, the detector does not.
"""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streampetr_core.config import ModelConfig, config_from_dict
from streampetr_core.detector import Detector
from streampetr_core.errors import StreampetrError

FORMAT = "streampetr-1"
AUX_HEAD_PREFIX = "aux_head."
TRAINING_PREFIXES = (AUX_HEAD_PREFIX, "dense_head.")  # of weights that training alone uses
_COUNTER_SUFFIX = "num_batches_tracked"  # a statistic of batch norm that nothing uses
_MOST_LISTED = 12


@dataclass(frozen=True)
class Checkpoint:
    """Weights with everything needed to use them."""

    config: ModelConfig
    state: dict[str, Tensor]
    licence: str  # under which the weights may be used
    source: str  # where they come from, in words
    training: dict[str, Any] = field(default_factory=dict)  # plain values: recipe, step, hardware, ...; {}: not known

    def detector(self) -> Detector:
        """Return a detector in evaluation mode with these weights."""
        detector = Detector(self.config)
        detector.load_state_dict(
            {k: v for k, v in self.state.items() if not k.startswith(TRAINING_PREFIXES)}, strict=False
        )
        return detector.eval()


def untrained_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """Return freshly initialised weights: the right shapes, no knowledge."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = _without_counters(Detector(config).state_dict())
    return Checkpoint(config, state, "Apache-2.0", f"untrained, seed {seed}")


def check_state(config: ModelConfig, state: dict[str, Tensor], source: str) -> None:
    """Raise StreampetrError listing what is missing, unknown or mis-shaped in `state` for a model of `config`."""
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in _without_counters(Detector(config).state_dict()).items()}
    given = {k: tuple(v.shape) for k, v in state.items() if not k.startswith(TRAINING_PREFIXES)}
    shared = sorted(expected.keys() & given.keys())
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "unknown": sorted(given.keys() - expected.keys()),
        "of another shape": [f"{k} {given[k]} instead of {expected[k]}" for k in shared if given[k] != expected[k]],
    }
    raise_if_any(problems, f"{source} does not hold the weights of model '{config.name}'")


def raise_if_any(problems: dict[str, list[str]], headline: str) -> None:
    """Raise StreampetrError that lists the non-empty entries of `problems` behind `headline`, if there are any."""
    lists = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names]
    if lists:
        raise StreampetrError(f"{headline}; {'; '.join(lists)}")


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a native weights file; a file of that name is replaced only by a complete one."""
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.config.to_dict()),
        "licence": checkpoint.licence,
        "source": checkpoint.source,
        "training": json.dumps(checkpoint.training),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in checkpoint.state.items()}, partial, metadata)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StreampetrError(f"{path}: cannot be written: {error}") from error


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a native weights file; half-precision tensors become float32. Raises StreampetrError with the remedy."""
    path = Path(path)
    if not path.is_file():
        raise StreampetrError(f"{path}: no such model file; make one with `streampetr convert` or `streampetr init`")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            state = {key: _as_float32(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StreampetrError(
            f"{path}: not a safetensors file ({error}); convert a .pth with `streampetr convert`"
        ) from error
    if metadata.get("format") != FORMAT:
        raise StreampetrError(f"{path}: a safetensors file, but not one that `streampetr convert` or `init` wrote")
    config = config_from_dict(json.loads(metadata["config"]), str(path))
    check_state(config, state, str(path))
    training = json.loads(metadata.get("training", "{}"))
    return Checkpoint(config, state, metadata["licence"], metadata["source"], training)


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.endswith(_COUNTER_SUFFIX)}


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
