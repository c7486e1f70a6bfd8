"""Official StreamPETR checkpoints (mmdetection3d layout) to native ones, every key accounted for."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streampetr_core.checkpoint import AUX_HEAD_PREFIX, Checkpoint, check_state, raise_if_any
from streampetr_core.config import ModelConfig, load_config, shipped_config_paths
from streampetr_core.errors import StreampetrError
from streampetr_core.position import depth_bins

NUSCENES_LICENCE = "weights trained on nuScenes: CC BY-NC-SA 4.0, non-commercial use"

_HEAD = r"^pts_bbox_head\."
_LAYER = _HEAD + r"transformer\.decoder\.layers\.(\d+)\."
# (official name, native name); every official key must match exactly one row, or one of the constants below.
_RENAMES = [
    (re.compile(official), native)
    for official, native in (
        (_HEAD + r"cls_branches\.\d+\.", "heads.classes."),
        (_HEAD + r"reg_branches\.\d+\.", "heads.boxes."),
        (_HEAD + r"position_encoder\.", "position.ray_encoder."),
        (_HEAD + r"memory_embed\.", "position.content."),
        (_HEAD + r"featurized_pe\.conv_reduce\.", "position.gate.0."),
        (_HEAD + r"featurized_pe\.conv_expand\.", "position.gate.2."),
        (_HEAD + r"spatial_alignment\.(?:reduce\.0|(gamma|beta))\.", "position.spatial_alignment.{}."),
        (_HEAD + r"ego_pose_pe\.(?:reduce\.0|(gamma|beta))\.", "queries.position_alignment.{}."),
        (_HEAD + r"ego_pose_memory\.(?:reduce\.0|(gamma|beta))\.", "queries.content_alignment.{}."),
        (_HEAD + r"reference_points\.weight$", "queries.reference_points"),
        (_HEAD + r"pseudo_reference_points\.weight$", "queries.start_points"),
        (_HEAD + r"query_embedding\.", "queries.embedding."),
        (_HEAD + r"time_embedding\.", "queries.time_embedding."),
        (_LAYER + r"attentions\.0\.attn\.", r"decoder.layers.{}.self_attention."),
        (_LAYER + r"attentions\.1\.attn\.", r"decoder.layers.{}.cross_attention."),
        (_LAYER + r"ffns\.0\.layers\.0\.0\.", r"decoder.layers.{}.ffn_in."),
        (_LAYER + r"ffns\.0\.layers\.1\.", r"decoder.layers.{}.ffn_out."),
        (_LAYER + r"norms\.0\.", r"decoder.layers.{}.norm_self."),
        (_LAYER + r"norms\.1\.", r"decoder.layers.{}.norm_cross."),
        (_LAYER + r"norms\.2\.", r"decoder.layers.{}.norm_ffn."),
        (_HEAD + r"transformer\.decoder\.post_norm\.", "decoder.post_norm."),
        (r"^img_neck\.lateral_convs\.0\.conv\.", "neck.lateral_stride16."),
        (r"^img_neck\.lateral_convs\.1\.conv\.", "neck.lateral_stride32."),
        (r"^img_neck\.fpn_convs\.0\.conv\.", "neck.output."),
        (r"^img_roi_head\.(?=(?:shared_(?:cls|reg)|cls|centerness|ltrb|center2d)\.)", AUX_HEAD_PREFIX),
    )
]
_BACKBONE_PREFIX = "img_backbone."
_TRAINING_CONSTANTS = ("code_weights", "match_costs")  # weights of the loss; the recipe states them
# What mmcv may have put into the meta data beside the weights: numbers and arrays of NumPy, harmless to unpickle. A
# file names the functions as the NumPy that wrote it did: numpy.core before version 2, numpy._core since.
_NUMPY_NUMBERS = {type(np.dtype(name)) for name in np.sctypeDict.values() if np.dtype(name).kind in "biuf"}
_NUMPY_FUNCTIONS = [
    (function, f"numpy.{core}.multiarray.{function.__name__}")
    for function in (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
    for core in ("core", "_core")
]
_HARMLESS = [np.dtype, np.ndarray, *_NUMPY_NUMBERS, *_NUMPY_FUNCTIONS]


def convert_official(
    path: str | Path, config: ModelConfig | None = None, licence: str = NUSCENES_LICENCE
) -> Checkpoint:
    """Convert an official .pth file; without `config` the shipped configuration that fits is taken.

    Takes mmcv's wrapping (`state_dict`, `module.` prefix, optimizer state) or bare weights, float32 or float16.
    Raises StreampetrError that lists unknown, missing, mis-shaped or contradictory keys.
    """
    official = read_state_dict(path)
    state = rename_official(official, str(path))
    config = config or _fitting_config(state, str(path))
    _check_constants(official, config, str(path))
    check_state(config, state, str(path))
    return Checkpoint(config, state, licence, f"converted from {Path(path).name}")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a PyTorch file without executing any code in it; floating point becomes float32."""
    path = Path(path)
    if not path.is_file():
        raise StreampetrError(f"{path}: no such file")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of another kind make the unpickler stumble in any way
        raise StreampetrError(f"{path}: not a PyTorch checkpoint that can be read safely: {_reason(error)}") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(_is_named_tensor(*item) for item in weights.items()):
        raise StreampetrError(f"{path}: a PyTorch file, but no checkpoint: it holds no table of named weights")
    return {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in weights.items()
    }


def rename_official(official: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the same weights under native names, shared branches once; raises StreampetrError for unknown keys."""
    state: dict[str, Tensor] = {}
    unknown, contradictory = [], []
    for key, value in official.items():
        if _is_constant(key):
            continue
        name = _native_name(key)
        if name is None:
            unknown.append(key)
        elif name in state and not torch.equal(state[name], value):
            contradictory.append(key)
        else:
            state[name] = value
    problems = {"unknown": unknown, "unlike the layer that shares them": contradictory}
    raise_if_any(problems, f"{source}: not a StreamPETR checkpoint in the official layout")
    return state


def _reason(error: Exception) -> str:
    """Say in a few words why a file was not read; PyTorch's own words advise to execute it."""
    foreign_object = re.search(r"GLOBAL (\S+)", str(error))
    if foreign_object:
        return f"it holds an object of {foreign_object[1]}, which is code; nothing of it was executed"
    if isinstance(error, OSError):
        return str(error)
    return "it is damaged, incomplete or of another kind"


def _is_named_tensor(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _is_constant(key: str) -> bool:
    leaf = key.rsplit(".", 1)[-1]
    constants = ("num_batches_tracked", "pc_range", "position_range", "coords_d", *_TRAINING_CONSTANTS)
    return leaf in constants and key.startswith(("pts_bbox_head.", _BACKBONE_PREFIX))


def _native_name(key: str) -> str | None:
    if key.startswith(_BACKBONE_PREFIX):
        return "backbone." + native_backbone_name(key.removeprefix(_BACKBONE_PREFIX))
    for pattern, native in _RENAMES:
        match = pattern.match(key)
        if match:
            group = match.group(1) if pattern.groups else None
            return native.format(group or "reduce") + key[match.end() :]
    return None


def native_backbone_name(key: str) -> str:
    """ResNet names are torchvision's and stay; V2-99's lose their repeated block names and count from zero."""
    key = re.sub(r"stem\.stem_(\d)/", lambda match: f"stem.{int(match[1]) - 1}.", key)
    key = re.sub(r"OSA\d_(\d+)\.", lambda match: f"{int(match[1]) - 1}.", key)
    return re.sub(r"\.OSA[^/]*/", ".", key)


def _fitting_config(state: dict[str, Tensor], source: str) -> ModelConfig:
    """Return the shipped configuration with the backbone and the numbers of queries of `state`.

    Without such numbers any configuration with the backbone does: checking the state against it lists what is missing.
    """
    backbone = "vovnet99" if "backbone.stem.0.conv.weight" in state else "resnet50"
    candidates = [config for config in map(load_config, shipped_config_paths()) if config.backbone == backbone]
    points = [state.get(f"queries.{name}") for name in ("reference_points", "start_points")]
    counts = [len(value) for value in points if value is not None and value.dim() == 2]
    for config in candidates:
        if len(counts) < 2 or counts == [config.num_learned, config.num_propagated]:
            return config
    queries = " and ".join(f"{count} {kind}" for count, kind in zip(counts, ("learned", "propagated"), strict=False))
    raise StreampetrError(
        f"{source}: no shipped configuration fits {backbone} with {queries} queries; name one with --config"
    )


def _check_constants(official: dict[str, Tensor], config: ModelConfig, source: str) -> None:
    expected = {
        "pts_bbox_head.pc_range": torch.tensor(config.detection_range),
        "pts_bbox_head.position_range": torch.tensor(config.position_range),
        "pts_bbox_head.coords_d": depth_bins(config),
    }
    wrong = [key for key, value in expected.items() if key in official and not _equal(official[key], value)]
    raise_if_any({"of other value": wrong}, f"{source}: its built-in constants are not those of model '{config.name}'")


def _equal(a: Tensor, b: Tensor) -> bool:
    """Equal to within the rounding of bfloat16, the coarsest kind of number that checkpoints are stored in."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=torch.finfo(torch.bfloat16).eps)
