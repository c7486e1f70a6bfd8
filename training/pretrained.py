"""Pretrained backbones from local files, every key accounted for.

Four layouts are known by their names: torchvision's ResNet (`conv1.weight`, with a classifier `fc.`), a detector of
mmdetection (`backbone.` beside neck and heads: nuImages), one of mmdetection3d (`img_backbone.`: FCOS3D as made for
PETR), and a bare V2-99 (`stem.stem_1/conv.weight`).
"""

from pathlib import Path

from torch import Tensor, nn

from streampetr_core.checkpoint import raise_if_any
from streampetr_core.convert import native_backbone_name, read_state_dict
from streampetr_core.errors import StreampetrError

_PREFIXES = ("img_backbone.", "backbone.")
_CLASSIFIER = "fc."  # of torchvision's ImageNet models: the one part beside the backbone that a bare file may have
_COUNTER = "num_batches_tracked"


def load_backbone(backbone: nn.Module, path: str | Path) -> str:
    """Fill a backbone with the weights of a file; return in words what was used and what was left out.

    Raises:
        StreampetrError: no such file, no weights, or keys that are missing, unknown or of another shape.
    """
    official = read_state_dict(path)
    prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in official)), "")
    own = {key.removeprefix(prefix): value for key, value in official.items() if key.startswith(prefix)}
    others = [key for key in official if not key.startswith(prefix)]
    if not prefix:
        others = [key for key in own if key.startswith(_CLASSIFIER)]
        own = {key: value for key, value in own.items() if not key.startswith(_CLASSIFIER)}
    state = {native_backbone_name(key): value for key, value in own.items() if not key.endswith(_COUNTER)}
    _check(backbone, state, path)
    backbone.load_state_dict(state, strict=False)
    parts = sorted({key.split(".")[0] for key in others})
    left_out = f"{len(others)} tensors left out ({', '.join(parts)})" if others else "none left out"
    return f"{Path(path).name}: {len(state)} tensors of the backbone, {left_out}"


def _check(backbone: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    expected = {key: value for key, value in backbone.state_dict().items() if not key.endswith(_COUNTER)}
    if not expected.keys() & state.keys():
        raise StreampetrError(
            f"{path}: none of its weights are those of a {type(backbone).__name__}; give a torchvision ResNet file, or "
            "one with backbone. or img_backbone. in front of the names"
        )
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    raise_if_any(problems, f"{path}: not the weights of this {type(backbone).__name__}")
