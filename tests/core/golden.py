"""Golden arrays of the official code, and the one way in which ours are compared with them.

The tests and the parity table (`python -m tests.core.parity_table`) both run what stands here. A golden file holds one
sequence of frames as the official code saw it, array by array under its official names; weights and images follow from
rules (`tests/data/golden/weights.py` and `inputs.py`). Two modes: "free" runs frame by frame on our own memory;
"forced" starts each frame from the official memory of the frame before, so that errors can neither add up nor hide.
"""

import functools
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from streampetr_core.checkpoint import Checkpoint
from streampetr_core.convert import convert_official
from streampetr_core.decode import Detections, decode_detections
from streampetr_core.detector import Detector
from streampetr_core.frame import Frame
from streampetr_core.geometry import invert_transform, transform_points
from streampetr_core.heads import Predictions
from streampetr_core.memory import Memory
from streampetr_core.queries import Queries
from tests.data.golden import inputs, weights

COMMITTED = Path(__file__).resolve().parents[1] / "data" / "golden"
# The whole set, where it lies beside the repository.
WHOLE = Path(__file__).resolve().parents[3] / "shared" / "golden"

R50_428Q = "stream_petr_r50_flash_704_bs2_seq_428q_nui_60e"
R50_900Q = "stream_petr_r50_flash_704_bs2_seq_24e"
V2_99_900Q = "stream_petr_vov_flash_800_bs2_seq_24e"
LAYOUTS = (R50_428Q, R50_900Q, V2_99_900Q)
FOREIGN_LAYOUTS = ("petrv1_r50_flash_704_24e", "focal_petrv1_r50_flash_704_24e", "repdetr3d_vov_800_bs2_seq_24e")


@dataclass(frozen=True)
class Sequence:
    """One golden file: the official configuration behind it and the size of the images that were fed."""

    file: str
    layout: str
    height: int = 128
    width: int = 352


SEQUENCES = {
    "428q_small_seq": Sequence("infer_428q_small_seq.npz", R50_428Q),
    "428q_small_drop": Sequence("infer_428q_small_drop.npz", R50_428Q),
    "428q_full": Sequence("infer_428q_full.npz", R50_428Q, 256, 704),
    "24e_small_seq": Sequence("infer_24e_small_seq.npz", R50_900Q),
    "vov_small_seq": Sequence("infer_vov_small_seq.npz", V2_99_900Q),
}

# What was fed to the official code, and how well its top-k is separated: not results.
GIVEN = {
    *("scene", "index", "salt", "timestamp", "ego_pose", "ego_pose_inv"),
    *("lidar2img", "intrinsics", "extrinsics", "topk_min_gap"),
}


DETECTION_ARRAYS = ("boxes_3d", "scores_3d", "labels_3d")

# Largest absolute differences. The official code itself, under two PyTorch versions and thread counts, differs by up to
# 8e-5 (class logits), 6e-4 m (boxes), 1.3e-5 (neck), 3.4e-4 m (remembered points), 3.4e-5 (remembered embeddings).
TOLERANCES = {
    # Image features: five to eight times the official code's own spread; stats are sums over 1e5 values.
    **dict.fromkeys(("backbone0_slice", "backbone1_slice", "neck0", "neck0_slice", "neck1_slice"), 1e-4),
    **dict.fromkeys(("backbone0_stats", "backbone1_stats", "neck0_stats"), 1e-2),
    # Rays: the official code inverts projections in float32, ours in float64. A ray point at the edge of the position
    # range goes through a logit whose slope is up to 1e5 there, hence the wider bound of its embedding.
    "cone": 1e-5,
    "memory_aligned": 5e-5,
    **dict.fromkeys(("pos_embed", "pos_embed_final"), 2e-3),
    # Memory: the official poses are float32 in the global frame, so 1e-4 m of noise at 1200 m, in every frame anew.
    **dict.fromkeys(("before_memory_reference_point", "after_memory_reference_point"), 3e-3),
    **dict.fromkeys(("before_memory_egopose", "after_memory_egopose"), 5e-4),
    **dict.fromkeys(("before_memory_velo", "after_memory_velo"), 1e-4),
    **dict.fromkeys(("before_memory_timestamp", "after_memory_timestamp"), 1e-6),
    "after_memory_embedding": 3e-4,
    # Queries: 3e-3 m of 102 m; poses enter through sin(32 x), which turns 5e-6 m into 2e-4.
    "reference_points": 3e-5,
    **dict.fromkeys(("tgt", "query_pos", "temp_memory", "temp_pos"), 2e-4),
    # Results.
    "outs_dec_last": 3e-4,
    "all_cls_scores": 5e-4,
    "all_bbox_preds": 3e-3,
    "topk_indexes": 0.0,
    "boxes_3d": 3e-3,
    "scores_3d": 1e-4,
    "labels_3d": 0.0,
}


@functools.cache
def layouts() -> dict[str, dict]:
    """Return, by official configuration, the `shapes` of all keys, built-in `constants` and `checksums` of the rule."""
    return json.loads(gzip.decompress((COMMITTED / "layouts.json.gz").read_bytes()))


def official_state(layout: str) -> dict[str, Tensor]:
    """Return the state dict of an official configuration, filled by the weight rule."""
    entry = layouts()[layout]
    filled = weights.fill(entry["shapes"])
    return {
        key: torch.from_numpy(filled[key]) if key in filled else torch.tensor(entry["constants"].get(key, 0))
        for key in entry["shapes"]
    }


def golden_checkpoint(layout: str) -> Checkpoint:
    """Return the weights of the golden files, taken through a file and the converter as a user's would be."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "golden.pth"
        torch.save({"meta": {"iter": 0}, "state_dict": official_state(layout)}, path)
        return convert_official(path)


@functools.cache
def golden_detector(layout: str) -> Detector:
    """Return the detector of an official configuration with the golden weights."""
    return golden_checkpoint(layout).detector().requires_grad_(False)


@functools.cache
def official_frames(file: str, folder: Path) -> list[dict[str, NDArray]]:
    """Return the arrays of each frame of a golden file under their official names."""
    with np.load(folder / file) as arrays:
        num_frames = sum(key.endswith("_scene") for key in arrays)
        frames: list[dict[str, NDArray]] = [{} for _ in range(num_frames)]
        for key in arrays:
            index, name = key.split("_", 1)
            frames[int(index[1:])][name] = arrays[key]
    return frames


def folders() -> list[Path]:
    """Return where golden files are: always the committed subset, and the whole set where it is at hand."""
    return [COMMITTED, *([WHOLE] if (WHOLE / "infer_428q_small_seq.npz").is_file() else [])]


# ------------------------------------------------------------------------------------------------ running our detector


@functools.cache
def observations(sequence_name: str, mode: str) -> dict[int, dict[str, NDArray]]:
    """Run our detector over a golden sequence; return, by frame, every array that a golden file may hold.

    In mode "forced" only the frames are run whose official memory is recorded in full.
    """
    sequence = SEQUENCES[sequence_name]
    frames = official_frames(sequence.file, folders()[-1])
    detector = golden_detector(sequence.layout)
    memory, results = detector.fresh_memory(), {}
    for index, golden in enumerate(frames):
        previous = frames[index - 1] if index else None
        if mode == "forced":
            if previous is None or not holds_whole_memory(previous, detector):
                continue
            memory = memory_from_official(previous, detector.config.memory_length)
        frame = frame_from_official(golden, previous, sequence)
        memory, results[index] = _observe(detector, frame, memory, golden)
    return results


def frame_from_official(golden: dict[str, NDArray], previous: dict[str, NDArray] | None, sequence: Sequence) -> Frame:
    """Return our input for one official frame; its motion is computed in float64 from the recorded poses."""
    is_first = previous is None or str(previous["scene"]) != str(golden["scene"])
    image = inputs.image(
        str(golden["scene"]), int(golden["index"]), sequence.height, sequence.width, int(golden["salt"])
    )
    ref_T_prev, dt = np.eye(4), 0.0
    if not is_first:
        ref_T_prev = golden["ego_pose_inv"].astype(np.float64) @ previous["ego_pose"].astype(np.float64)
        dt = float(golden["timestamp"] - previous["timestamp"])
    return Frame(
        torch.from_numpy(image)[None],
        torch.from_numpy(golden["intrinsics"][None, :, :3, :3]),
        torch.from_numpy(golden["lidar2img"][None]),
        torch.from_numpy(ref_T_prev).float()[None],
        torch.tensor([dt]),
        torch.tensor([is_first]),
    )


def memory_from_official(golden: dict[str, NDArray], length: int) -> Memory:
    """Return our memory for the official one after a frame, which lies in the global frame and at absolute time."""
    ref_T_world = invert_transform(golden["ego_pose"])
    after = {
        key.removeprefix("after_memory_"): value[0, :length].astype(np.float64)
        for key, value in golden.items()
        if key.startswith("after_memory_")
    }
    arrays = (
        after["embedding"],
        transform_points(ref_T_world, after["reference_point"]),
        after["velo"],
        after["timestamp"] + float(golden["timestamp"]),
        ref_T_world @ after["egopose"],
        np.empty((length, 0)),  # the published code follows no objects
    )
    return Memory(*(torch.from_numpy(array).float()[None] for array in arrays))


def holds_whole_memory(golden: dict[str, NDArray], detector: Detector) -> bool:
    """Say whether the official memory after a frame is recorded in full."""
    return golden.get("after_memory_embedding", np.empty(0)).shape[-1] == detector.config.channels


@contextmanager
def _recorded(detector: Detector) -> Iterator[dict[str, object]]:
    """Record what passes between the modules of `detector` during a step: the very values that were computed."""
    seen: dict[str, object] = {}

    def output_of(name: str, module: nn.Module):
        return module.register_forward_hook(lambda _, args, out: seen.__setitem__(name, out))

    def input_of(name: str, module: nn.Module):
        return module.register_forward_hook(lambda _, args, out: seen.__setitem__(name, args[0]))

    handles = [
        output_of("backbone", detector.backbone),
        output_of("neck0", detector.neck),
        output_of("neck1", detector.neck.lateral_stride32),
        input_of("cone", detector.position.spatial_alignment.reduce),
        output_of("pos_embed", detector.position.ray_encoder),
        output_of("tokens", detector.position),
        input_of("memory", detector.queries),
        output_of("queries", detector.queries),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def _observe(
    detector: Detector, frame: Frame, memory: Memory, golden: dict[str, NDArray]
) -> tuple[Memory, dict[str, NDArray]]:
    with _recorded(detector) as seen:
        predictions, after = detector.step(frame, memory)
    tensors = {
        **_encoder_arrays(seen),
        **_query_arrays(seen["queries"], seen["memory"]),
        "all_cls_scores": predictions.class_logits,
        "all_bbox_preds": predictions.boxes,
        "outs_dec_last": predictions.embedding_BQC,
        "topk_indexes": _admitted_queries(predictions, after, detector.config.num_admitted),
    }
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    num_admitted = detector.config.num_admitted
    arrays |= _global_memory(seen["memory"], after, num_admitted, golden["ego_pose"], float(golden["timestamp"]))
    arrays |= _official_detections(decode_detections(predictions, detector.config)[0])
    return after, arrays


def _encoder_arrays(seen: dict) -> dict[str, Tensor]:
    tokens, token_position = seen["tokens"]
    maps = {"backbone0": seen["backbone"][0], "backbone1": seen["backbone"][1], "neck0": seen["neck0"]}
    stats = {f"{name}_stats": _stats(value) for name, value in maps.items()}
    slices = {f"{name}_slice": value for name, value in [*maps.items(), ("neck1", seen["neck1"])]}
    return {
        **stats,
        **slices,
        "neck0": seen["neck0"],
        "cone": seen["cone"],
        "pos_embed": seen["pos_embed"],
        "pos_embed_final": token_position,
        "memory_aligned": tokens,
    }


def _query_arrays(queries: Queries, memory: Memory) -> dict[str, Tensor]:
    return {
        "tgt": queries.content_BQC,
        "query_pos": queries.position_BQC,
        "reference_points": queries.reference_BQ3,
        "temp_memory": queries.memory_BMC,
        "temp_pos": queries.memory_position_BMC,
        "before_memory_reference_point": memory.centre_BM3,
        "before_memory_timestamp": memory.age_BM1,
        "before_memory_egopose": memory.ref_T_obs_BM44,
        "before_memory_velo": memory.velocity_BM2,
    }


def _stats(features: Tensor) -> Tensor:
    """Return mean, standard deviation, largest absolute value and L2 norm."""
    values = features.double()
    return torch.stack([values.mean(), values.std(correction=0), values.abs().max(), values.norm()])


def _admitted_queries(predictions: Predictions, after: Memory, num_admitted: int) -> Tensor:
    """Return which queries stand in front of the memory, found by their embeddings."""
    query_of = {row.numpy().tobytes(): index for index, row in enumerate(predictions.embedding_BQC[0])}
    return torch.tensor([query_of[row.numpy().tobytes()] for row in after.embedding_BMC[0, :num_admitted]])


def _global_memory(
    carried: Memory, after: Memory, num_admitted: int, world_T_ref: NDArray, time: float
) -> dict[str, NDArray]:
    """Return the memory as the official code keeps it after a frame: admitted and all carried entries, in world."""
    rows = {
        name: torch.cat([getattr(after, name)[:, :num_admitted], getattr(carried, name)], dim=1).double().numpy()
        for name in vars(after)
    }
    world_T_ref = world_T_ref.astype(np.float64)
    return {
        "after_memory_embedding": rows["embedding_BMC"],
        "after_memory_reference_point": transform_points(world_T_ref, rows["centre_BM3"]),
        "after_memory_velo": rows["velocity_BM2"],
        "after_memory_timestamp": rows["age_BM1"] - time,
        "after_memory_egopose": world_T_ref @ rows["ref_T_obs_BM44"],
    }


def _official_detections(detections: Detections) -> dict[str, NDArray]:
    """Return the boxes as the official code lists them: z of the bottom face, velocity appended."""
    boxes_D9 = torch.cat([detections.boxes_D7, detections.velocities_D2], dim=1)
    boxes_D9[:, 2] -= boxes_D9[:, 5] / 2
    named = {"boxes_3d": boxes_D9, "scores_3d": detections.scores_D, "labels_3d": detections.labels_D}
    return {name: value.numpy() for name, value in named.items()}


# ------------------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Comparison:
    """How far one of our arrays is from the golden one."""

    sequence: str
    mode: str
    frame: int
    array: str
    shape: tuple[int, ...]
    error: float  # largest absolute difference
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def thinned(ours: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Return the elements of our whole array that a golden array of `shape` holds: every s-th along each axis.

    Of the first axis of predictions, the layers, the golden files hold all or the last.
    """
    if ours.ndim == 4 and shape[0] == 1 and ours.shape[0] > 1:
        ours = ours[-1:]
    steps = [-(-size // kept) for size, kept in zip(ours.shape, shape, strict=True)]
    return ours[tuple(slice(None, None, step) for step in steps)]


def matched_detections(golden: dict[str, NDArray], ours: dict[str, NDArray]) -> tuple[dict, dict]:
    """Return the golden detections and, row by row, our counterparts: the nearest of the same class.

    The order of near-ties is chance. So is which of them enters the list as the last: golden detections whose score is
    that of the last, to within the tolerance, are left out.
    """
    certain = golden["scores_3d"] > golden["scores_3d"].min() + TOLERANCES["scores_3d"]
    golden = {name: golden[name][certain] for name in DETECTION_ARRAYS}
    distance = np.abs(golden["boxes_3d"][:, None] - ours["boxes_3d"][None]).max(axis=-1)
    distance += np.abs(golden["scores_3d"][:, None] - ours["scores_3d"][None])
    distance += 1e6 * (golden["labels_3d"][:, None] != ours["labels_3d"][None])
    _, columns = linear_sum_assignment(distance)
    return golden, {name: ours[name][columns] for name in DETECTION_ARRAYS}


def compare(sequence_name: str, mode: str, folder: Path) -> list[Comparison]:
    """Compare every array of a golden file with ours, frame by frame; raises KeyError for an array that we lack."""
    frames = official_frames(SEQUENCES[sequence_name].file, folder)
    rows = []
    for index, ours in observations(sequence_name, mode).items():
        golden = {name: value for name, value in frames[index].items() if name not in GIVEN}
        matched_golden, matched_ours = matched_detections(golden, ours)
        for name, array in (golden | matched_golden).items():
            mine = matched_ours[name] if name in matched_ours else thinned(ours[name], array.shape)
            if mine.shape != array.shape:
                raise ValueError(f"{sequence_name} frame {index}: {name} is {mine.shape}, golden is {array.shape}")
            error = float(np.abs(mine.astype(np.float64) - array).max())
            rows.append(Comparison(sequence_name, mode, index, name, golden[name].shape, error, TOLERANCES[name]))
    return rows


def runs() -> list[tuple[str, str]]:
    """Return the pairs of sequence and mode that the golden files allow; forcing needs the whole official memory."""
    return [(name, "free") for name in SEQUENCES] + [("428q_small_seq", "forced")]
