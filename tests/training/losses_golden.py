"""Training steps that the official code recorded, and the same steps of ours.

A golden file holds three steps of two samples each: the truth, what came out, losses and gradient norms. Images, camera
matrices and weights follow from rules. The memory is carried from step to step; no weight changes. `tests.core.golden`
explains the rest.
"""

import dataclasses
import functools
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from streampetr_core.convert import rename_official
from streampetr_core.detector import Detector
from streampetr_core.frame import Frame
from streampetr_core.geometry import transform_points
from streampetr_core.memory import Memory
from tests.core import golden
from tests.data.golden import inputs
from training.losses.aux_head import AuxHead, AuxPredictions
from training.losses.aux_losses import match_images
from training.losses.config import LossConfig
from training.losses.criterion import Outputs, frame_losses, shown_images, total_loss
from training.losses.denoising import Denoising, make_denoising
from training.losses.detection import match_detections
from training.losses.forward import TrainingModel, run_frame
from training.losses.matching import Matches
from training.truth import CameraTruth, Truth

HEIGHT, WIDTH, CAMERAS, SAMPLES = 128, 352, 6, 2
NUM_LEARNED, NUM_QUERIES, NUM_ADMITTED, NUM_TOKENS = 300, 428, 128, 8 * 22
MEMORY_ARRAYS = tuple(f"after_memory_{name}" for name in ("reference_point", "timestamp", "velo", "embedding"))
CASES = ("nodn", "dn", "nodn_nanvelo")


@dataclass(frozen=True)
class Step:
    """One golden step."""

    scenes: list[tuple[str, int]]  # scene and index of each sample's frame
    arrays: dict[str, NDArray]
    losses: dict[str, float]
    total: float
    gradient_norms: dict[str, float]  # by native name
    without_gradient: list[str]  # official names


@dataclass(frozen=True)
class Result:
    """What our code made of one step."""

    outputs: Outputs
    losses: dict[str, Tensor]
    total: Tensor
    gradient_norms: dict[str, float]
    denoising: Denoising | None
    matches: Matches
    aux_matches: Matches
    carried: Memory
    after: Memory


def folders() -> list[Path]:
    """Return where golden training steps are, as `tests.core.golden.folders` does."""
    return golden.folders()


@functools.cache
def steps(case: str, folder: Path) -> list[Step]:
    """Read a golden file."""
    with np.load(folder / f"train_428q_{case}.npz") as file:
        arrays = {key: file[key] for key in file}
    packed = folder / f"train_428q_{case}.json.gz"
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / packed.stem).read_bytes()
    return [
        Step(
            [(scene, index) for scene, index in record["frames"]],
            {key.removeprefix(f"s{j}_"): value for key, value in arrays.items() if key.startswith(f"s{j}_")},
            record["losses"],
            record["total_loss"],
            _native_norms(record["grad_norm_l2"]),
            [name for name, norm in record["grad_norm_l2"].items() if norm is None],
        )
        for j, record in enumerate(json.loads(text)["steps"])
    ]


def _native_norms(official: dict[str, float | None]) -> dict[str, float]:
    tensors = {name: torch.tensor(norm) for name, norm in official.items() if norm is not None}
    return {name: norm.item() for name, norm in rename_official(tensors, "golden gradient norms").items()}


@functools.cache
def training_model(denoising_groups: int) -> TrainingModel:
    """Return the model with the golden weights and without dropout."""
    checkpoint = golden.golden_checkpoint(golden.R50_428Q)
    config = dataclasses.replace(checkpoint.config, dropout=0.0)
    model = TrainingModel(Detector(config), AuxHead(config), LossConfig(denoising_groups=denoising_groups))
    model.load_native_state(checkpoint.state)
    return model


def truths(case: str, step: Step) -> list[Truth]:
    """Return the truth of a step's samples; the official arrays give z of the bottom face."""
    samples = []
    for b in range(SAMPLES):
        given = {
            key.removeprefix(f"b{b}_"): torch.from_numpy(value) for key, value in step.arrays.items() if value.ndim
        }
        boxes_G9 = given["gt_bboxes_3d"].clone()
        boxes_G9[:, 2] += boxes_G9[:, 5] / 2
        if case == "nodn_nanvelo":
            boxes_G9[1, 7:] = torch.nan
        names = ("gt_bboxes", "gt_labels", "centers2d", "depths")
        cameras = tuple(CameraTruth(*(given[f"cam{c}_{name}"] for name in names)) for c in range(CAMERAS))
        samples.append(Truth(boxes_G9, given["gt_labels_3d"], cameras))
    return samples


def frame(step: Step, previous: Step | None) -> Frame:
    """Return our input of a step; its motion is computed in float64 from the recorded poses."""
    intrinsics, _, lidar2img = (
        torch.from_numpy(x).expand(SAMPLES, -1, -1, -1) for x in inputs.camera_matrices(HEIGHT, WIDTH)
    )
    ref_T_prev_B44, dt_B = np.tile(np.eye(4), (SAMPLES, 1, 1)), np.zeros(SAMPLES)
    is_first_B = step.arrays["prev_exists"] == 0
    for b in np.flatnonzero(~is_first_B):
        ref_T_world, world_T_prev = step.arrays[f"b{b}_ego_pose_inv"], previous.arrays[f"b{b}_ego_pose"]
        ref_T_prev_B44[b] = ref_T_world.astype(np.float64) @ world_T_prev.astype(np.float64)
        dt_B[b] = step.arrays[f"b{b}_timestamp"] - previous.arrays[f"b{b}_timestamp"]
    images = np.stack([inputs.image(scene, index, HEIGHT, WIDTH) for scene, index in step.scenes])
    return Frame(
        torch.from_numpy(images),
        intrinsics[..., :3, :3],
        lidar2img,
        torch.from_numpy(ref_T_prev_B44).float(),
        torch.from_numpy(dt_B).float(),
        torch.from_numpy(is_first_B),
    )


@functools.cache
def results(case: str) -> list[Result]:
    """Run our three steps of a golden file."""
    golden_steps = steps(case, folders()[-1])
    model = training_model(LossConfig().denoising_groups if case == "dn" else 0)
    memory, found = model.detector.fresh_memory(SAMPLES), []
    for j, step in enumerate(golden_steps):
        found.append(_run(model, case, step, frame(step, golden_steps[j - 1] if j else None), memory))
        memory = found[-1].after
    return found


def _run(model: TrainingModel, case: str, step: Step, ours: Frame, memory: Memory) -> Result:
    model.zero_grad()
    answers = truths(case, step)
    uniform = torch.from_numpy(step.arrays["dn_rand"]) if case == "dn" else None
    denoising = make_denoising(answers, model.detector.config, model.config, uniform)
    outputs, after = run_frame(model.detector, model.aux_head, ours, memory, denoising)
    losses = frame_losses(outputs, ours, answers, denoising, model.config)
    total = total_loss(losses)
    total.backward()
    parameters = {name.removeprefix("detector."): parameter for name, parameter in model.named_parameters()}
    return Result(
        outputs,
        losses,
        total,
        {name: p.grad.double().norm().item() for name, p in parameters.items() if p.grad is not None},
        denoising,
        match_detections(outputs.detections, answers, model.config),
        match_images(outputs.auxiliary, shown_images(ours, answers), (HEIGHT, WIDTH)),
        model.detector.carry(ours, memory),
        after,
    )


# ------------------------------------------------------------------------------------------ ours under official names


def observed(case: str, index: int) -> dict[str, NDArray]:
    """Return our arrays of a step under official names and in official layout, rows in the golden order."""
    step, result = steps(case, folders()[-1])[index], results(case)[index]
    tensors = {
        "all_cls_scores": result.outputs.detections.class_logits,
        "all_bbox_preds": result.outputs.detections.boxes,
        **_aux_arrays(result.outputs.auxiliary),
        **(_denoising_arrays(result) if case == "dn" else {}),
    }
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    arrays["assign3d"] = _assignment(result.matches, [len(t.labels_G) for t in truths(case, step)], NUM_QUERIES)
    counts_2d = [len(camera.labels_G) for truth in truths(case, step) for camera in truth.cameras]
    arrays["assign2d"] = _assignment(result.aux_matches, counts_2d, NUM_TOKENS)[0]
    order = _golden_order(step, arrays, index)
    for name in ("all_cls_scores", "all_bbox_preds", "assign3d"):
        by_row = order if name == "assign3d" else order[..., None]
        arrays[name] = np.take_along_axis(arrays[name], by_row[None], axis=2)
    return arrays | _memory_arrays(step, result)


def _aux_arrays(auxiliary: AuxPredictions) -> dict[str, Tensor]:
    scores_IT = auxiliary.class_logits_ITS.amax(dim=-1).sigmoid() * auxiliary.centreness_Ihw.flatten(1).sigmoid()
    return {
        "focal_enc_cls_scores": auxiliary.class_logits_ITS,
        "focal_enc_bbox_preds": auxiliary.boxes_IT4,
        "focal_pred_centers2d": auxiliary.centres_IT2,
        "focal_centerness": auxiliary.centreness_Ihw.flatten(1)[..., None],
        "focal_scores": scores_IT.view(SAMPLES, -1),
    }


def _denoising_arrays(result: Result) -> dict[str, Tensor]:
    denoising = result.denoising
    num_boxes = len(denoising.sample_n) // LossConfig().denoising_groups
    return {
        "dn_padded_reference_points": denoising.reference_BD3,
        "dn_known_labels": denoising.labels_n,
        "dn_known_bboxs": denoising.boxes_n9,
        "dn_map_known_indice": denoising.query_n,
        "dn_batch_idx": denoising.sample_n[:num_boxes],
        "dn_known_indice": torch.arange(len(denoising.labels_n)) % num_boxes,
        "dn_pad_size": torch.tensor(denoising.reference_BD3.shape[1]),
        "dn_attn_mask_shape": torch.tensor(denoising.allowed.shape),
        "dn_attn_mask_packed": torch.from_numpy(np.packbits(~denoising.allowed.numpy(), axis=1)),
        "dn_cls_scores_last": result.outputs.denoised.class_logits[-1],
        "dn_bbox_preds_last": result.outputs.denoised.boxes[-1],
    }


def _assignment(matches: Matches, counts: list[int], num_predictions: int) -> NDArray:
    """Return (L, B, Q): 0 for background, i + 1 for the sample's object i."""
    num_before = np.concatenate([[0], np.cumsum(counts)])
    assigned = np.zeros((len(matches.prediction_LK), len(counts), num_predictions), dtype=np.int64)
    layer_L1, sample_K, prediction_LK = (index.numpy() for index in matches.index)
    assigned[layer_L1, sample_K, prediction_LK] = matches.object_LK.numpy() - num_before[sample_K] + 1
    return assigned


def _golden_order(step: Step, ours: dict[str, NDArray], index: int) -> NDArray:
    """Return (B, Q): which of our queries stands where in the golden arrays. Only propagated ones may change places.

    They follow the order of the scores in the step before, where near-ties fall by chance.
    """
    order = np.tile(np.arange(NUM_QUERIES), (SAMPLES, 1))
    if index:
        theirs, mine = (
            np.concatenate(
                [arrays[name][-1, :, NUM_LEARNED:] for name in ("all_cls_scores", "all_bbox_preds")], axis=-1
            )
            for arrays in (step.arrays, ours)
        )
        for b in range(SAMPLES):
            order[b, NUM_LEARNED:] = NUM_LEARNED + _nearest(theirs[b], mine[b])
    return order


def _memory_arrays(step: Step, result: Result) -> dict[str, NDArray]:
    """Return the memory as the official code keeps it after a step: admitted and all carried entries, in world."""
    arrays: dict[str, list[NDArray]] = {name: [] for name in MEMORY_ARRAYS}
    thinned = result.after.embedding_BMC.shape[-1] // step.arrays["after_memory_embedding"].shape[-1]
    for b in range(SAMPLES):
        rows = {
            name: torch.cat([getattr(result.after, name)[b, :NUM_ADMITTED], getattr(result.carried, name)[b]])
            .double()
            .numpy()
            for name in vars(result.after)
        }
        ours = (
            transform_points(step.arrays[f"b{b}_ego_pose"], rows["centre_BM3"]),
            rows["age_BM1"] - step.arrays[f"b{b}_timestamp"],
            rows["velocity_BM2"],
            rows["embedding_BMC"][:, ::thinned],
        )
        theirs = np.concatenate([step.arrays[name][b] for name in MEMORY_ARRAYS], axis=-1)
        order = _nearest(theirs, np.concatenate(ours, axis=-1))
        for name, array in zip(MEMORY_ARRAYS, ours, strict=True):
            arrays[name].append(array[order])
    return {name: np.stack(samples) for name, samples in arrays.items()}


def _nearest(theirs: NDArray, ours: NDArray) -> NDArray:
    """Return, for each row of theirs, the row of ours that it is."""
    return linear_sum_assignment(cdist(theirs, ours))[1]
