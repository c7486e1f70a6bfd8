"""Properties of one step of the detector that hold for any weights."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from streampetr_core.checkpoint import untrained_checkpoint
from streampetr_core.config import load_config
from streampetr_core.decode import decode_detections
from streampetr_core.frame import Frame
from streampetr_core.geometry import invert_transform, make_transform
from streampetr_core.memory import Memory
from tests.core.models import lively_detector, make_frame, tiny_config

CONFIG = tiny_config()
FAR = 1e6  # metres


@pytest.fixture(scope="module")
def detector():
    return lively_detector(CONFIG).requires_grad_(False)


@pytest.fixture(scope="module")
def small_shipped_detector():
    return lively_detector(load_config("small_352_256q")).requires_grad_(False)


def yawed(yaw: float, x: float, y: float, z: float) -> np.ndarray:
    rotation = [[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]]
    return make_transform(rotation, [x, y, z])


TRAJECTORY = [yawed(0.1 * k, 3.0 * k, 0.4 * k * k, 0.02 * k) for k in range(4)]  # world_T_ref


def motion(world_T_ref: list[np.ndarray], index: int) -> torch.Tensor:
    """Return ref_T_prev as a user computes it: in float64 from world poses, then float32."""
    if index == 0:
        return torch.eye(4)[None]
    return torch.from_numpy(invert_transform(world_T_ref[index]) @ world_T_ref[index - 1]).float()[None]


def test_placed_queries_begin_with_their_place_as_content():
    unplaced = lively_detector(CONFIG).requires_grad_(False)
    placed = lively_detector(dataclasses.replace(CONFIG, placed_queries=True)).requires_grad_(False)
    content, position, reference = unplaced.queries.learned()
    placed_content, *others = placed.queries.learned()
    torch.testing.assert_close(placed_content, content + position)
    torch.testing.assert_close(others, [position, reference])
    memory = unplaced.step(make_frame(CONFIG), unplaced.fresh_memory())[1]
    before, after = unplaced.temporal(memory), placed.temporal(memory)
    torch.testing.assert_close(after.content_BQC, before.content_BQC + before.position_BQC)
    torch.testing.assert_close(after.memory_BMC, before.memory_BMC)


def drive(detector, world_T_ref: list[np.ndarray], num_cameras: int = 3):
    """Return the predictions along a trajectory, one frame in half a second."""
    memory, all_predictions = detector.fresh_memory(), []
    for index in range(len(world_T_ref)):
        frame = make_frame(
            detector.config,
            num_cameras,
            seed=index,
            ref_T_prev_B44=motion(world_T_ref, index),
            dt_B=torch.tensor([0.5 if index else 0.0]),
            is_first_B=torch.tensor([index == 0]),
        )
        predictions, memory = detector.step(frame, memory)
        all_predictions.append(predictions)
    return all_predictions


def assert_same_memory(a: Memory, b: Memory, **tolerance):
    for name in vars(a):
        torch.testing.assert_close(
            getattr(a, name), getattr(b, name), **(tolerance or {"rtol": 0, "atol": 0}), msg=name
        )


# ------------------------------------------------------------------------------------------------------------- motion


@pytest.mark.parametrize(
    "new_T_old", [yawed(0.0, FAR, -FAR, 0.0), yawed(2.5, 0.0, 0.0, 0.0), yawed(-1.1, -FAR, 2 * FAR, 300.0)]
)
def test_the_choice_of_the_world_frame_changes_no_detection(detector, new_T_old):
    ours = drive(detector, TRAJECTORY)
    moved = drive(detector, [new_T_old @ pose for pose in TRAJECTORY])
    for a, b in zip(ours, moved, strict=True):
        one, other = decode_detections(a, CONFIG)[0], decode_detections(b, CONFIG)[0]
        torch.testing.assert_close(one.boxes_D7, other.boxes_D7, rtol=0, atol=1e-3)
        torch.testing.assert_close(one.scores_D, other.scores_D, rtol=0, atol=1e-3)
        assert torch.equal(one.labels_D, other.labels_D)


def test_the_world_frame_does_not_matter_for_the_small_shipped_model(small_shipped_detector):
    trajectory = TRAJECTORY[:2]
    shift = yawed(1.0, FAR, FAR, 0.0)
    for a, b in zip(
        drive(small_shipped_detector, trajectory, 6),
        drive(small_shipped_detector, [shift @ pose for pose in trajectory], 6),
        strict=True,
    ):
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(a.class_logits, b.class_logits, rtol=0, atol=1e-3)


def test_motion_and_time_matter(detector):
    """Without this, the tests of invariance would hold for a detector that ignores motion."""
    frame = make_frame(CONFIG, seed=1, is_first_B=torch.tensor([False]), dt_B=torch.tensor([0.5]))
    _, memory = detector.step(make_frame(CONFIG), detector.fresh_memory())
    still = detector.step(frame, memory)[0].boxes
    moved = dataclasses.replace(frame, ref_T_prev_B44=torch.from_numpy(yawed(0.2, 2.0, 0.0, 0.0)).float()[None])
    later = dataclasses.replace(frame, dt_B=torch.tensor([1.0]))
    for other in (moved, later):
        assert (detector.step(other, memory)[0].boxes - still).abs().max() > 0.1


# -------------------------------------------------------------------------------------------------------------- batch


def batched(frames: list[Frame]) -> Frame:
    names = [name for name, value in vars(frames[0]).items() if value is not None]
    return Frame(**{name: torch.cat([getattr(frame, name) for frame in frames]) for name in names})


def element(memory: Memory, index: int) -> Memory:
    return Memory(**{name: value[index : index + 1] for name, value in vars(memory).items()})


def check_batch_equals_single_runs(detector, num_cameras: int, first_frames: list[list[bool]], tolerance: float):
    batch = len(first_frames[0])
    together = detector.fresh_memory(batch)
    alone = [detector.fresh_memory() for _ in range(batch)]
    for index, firsts in enumerate(first_frames):
        frames = [
            make_frame(
                detector.config,
                num_cameras,
                seed=10 * index + b,
                ref_T_prev_B44=torch.from_numpy(yawed(0.1 * b, 1.0 + b, 0.5, 0.0)).float()[None],
                dt_B=torch.tensor([0.5 + 0.1 * b]),
                is_first_B=torch.tensor([first]),
            )
            for b, first in enumerate(firsts)
        ]
        predictions, together = detector.step(batched(frames), together)
        for b, frame in enumerate(frames):
            single, alone[b] = detector.step(frame, alone[b])
            torch.testing.assert_close(predictions.boxes[:, b], single.boxes[:, 0], rtol=0, atol=tolerance)
            torch.testing.assert_close(
                predictions.class_logits[:, b], single.class_logits[:, 0], rtol=0, atol=tolerance
            )
            assert_same_memory(element(together, b), alone[b], rtol=0, atol=tolerance)


def test_a_batch_equals_single_runs_also_where_one_element_starts_a_scene(detector):
    firsts = [[True, True, True], [False, False, False], [False, True, False], [False, False, False]]
    check_batch_equals_single_runs(detector, 3, firsts, 1e-3)


def test_a_batch_equals_single_runs_for_the_small_shipped_model(small_shipped_detector):
    check_batch_equals_single_runs(small_shipped_detector, 6, [[True, True], [False, True]], 1e-3)


# ------------------------------------------------------------------------------------------------------------ cameras


@pytest.mark.parametrize("present", [[True, False, True], [False, True, True], [False, False, True]])
def test_a_missing_camera_equals_its_tokens_left_out(detector, present):
    frame = make_frame(CONFIG)
    features, geometry = detector.encode(frame.images_BN3HW), detector.geometry(frame)
    queries = detector.temporal(detector.fresh_memory())
    masked = detector.decode(features, geometry, queries, torch.tensor([present]))

    tokens, token_position = detector.position(features, geometry)
    kept = torch.tensor(present).repeat_interleave(features.shape[-2] * features.shape[-1])
    removed = detector.decoder(
        queries.content_BQC,
        queries.position_BQC,
        queries.memory_BMC,
        queries.memory_position_BMC,
        tokens[:, kept],
        token_position[:, kept],
    )
    torch.testing.assert_close(masked, removed, rtol=0, atol=1e-5)
    everything = detector.decode(features, geometry, queries, None)
    assert (everything - removed).abs().max() > 1e-2


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_the_pixels_of_a_missing_camera_do_no_harm(detector, poison):
    frame = make_frame(CONFIG, present_BN=torch.tensor([[True, False, True]]))
    images = frame.images_BN3HW.clone()
    images[:, 1] = poison
    clean, clean_memory = detector.step(frame, detector.fresh_memory())
    poisoned, memory = detector.step(dataclasses.replace(frame, images_BN3HW=images), detector.fresh_memory())
    assert torch.equal(clean.boxes, poisoned.boxes)
    assert torch.equal(clean.class_logits, poisoned.class_logits)
    assert_same_memory(clean_memory, memory)


def test_all_cameras_present_equals_no_mask(detector):
    frame = make_frame(CONFIG)
    masked = dataclasses.replace(frame, present_BN=torch.ones(1, 3, dtype=torch.bool))
    ours, theirs = (detector.step(f, detector.fresh_memory())[0] for f in (frame, masked))
    torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_cameras", range(1, 9))
def test_any_number_of_cameras(detector, num_cameras):
    predictions, memory = detector.step(make_frame(CONFIG, num_cameras), detector.fresh_memory())
    assert predictions.boxes.shape == (CONFIG.num_layers, 1, CONFIG.num_queries, 10)
    assert predictions.class_logits.shape == (CONFIG.num_layers, 1, CONFIG.num_queries, 10)
    assert predictions.boxes.isfinite().all()
    assert memory.embedding_BMC.shape == (1, CONFIG.memory_length, CONFIG.channels)


def test_mirrored_images_may_have_a_negative_focal_length(detector):
    frame = make_frame(CONFIG)
    mirrored = frame.intrinsics_BN33.clone()
    mirrored[..., 0, 0] *= -1
    ours, theirs = (detector.geometry(f) for f in (frame, dataclasses.replace(frame, intrinsics_BN33=mirrored)))
    assert torch.equal(ours.gamma_BTC, theirs.gamma_BTC)


# ----------------------------------------------------------------------------------------------------- state and purity


def plain_attributes(module: torch.nn.Module) -> dict:
    """Return every attribute of every submodule that is not a tensor or a container of them, by name."""
    return {
        (name, key): repr(value)
        for name, child in module.named_modules()
        for key, value in vars(child).items()
        if not key.startswith("_")
    }


def test_a_step_is_pure(detector):
    _, memory = detector.step(make_frame(CONFIG), detector.fresh_memory())
    frame = make_frame(
        CONFIG,
        seed=1,
        ref_T_prev_B44=torch.from_numpy(yawed(0.1, 2.0, 0.3, 0.0)).float()[None],
        dt_B=torch.tensor([0.5]),
        is_first_B=torch.tensor([False]),
        present_BN=torch.tensor([[True, True, False]]),
    )
    before = {name: value.clone() for name, value in {**vars(frame), **vars(memory), **detector.state_dict()}.items()}
    attributes = plain_attributes(detector)
    buffers = {name: value.clone() for name, value in detector.named_buffers()}

    first, first_memory = detector.step(frame, memory)
    second, second_memory = detector.step(frame, memory)

    for name in vars(first):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert_same_memory(first_memory, second_memory)
    after = {**vars(frame), **vars(memory), **detector.state_dict()}
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [name for name, value in detector.named_buffers() if not torch.equal(buffers[name], value)] == []
    assert plain_attributes(detector) == attributes


@pytest.mark.parametrize("content", [7.0, math.nan])
def test_the_start_of_a_scene_forgets_everything(detector, content):
    frame = make_frame(CONFIG, ref_T_prev_B44=torch.full((1, 4, 4), content), dt_B=torch.tensor([content]))
    garbage = Memory(*(torch.full_like(value, content) for value in vars(detector.fresh_memory()).values()))
    clean, clean_memory = detector.step(make_frame(CONFIG), detector.fresh_memory())
    after, memory = detector.step(frame, garbage)
    assert torch.equal(clean.boxes, after.boxes)
    assert torch.equal(clean.class_logits, after.class_logits)
    assert_same_memory(clean_memory, memory)


def test_the_best_queries_enter_the_memory_in_order(detector):
    predictions, memory = detector.step(make_frame(CONFIG), detector.fresh_memory())
    scores = predictions.class_logits[-1, 0].sigmoid().amax(dim=-1)
    best = scores.argsort(descending=True)[: CONFIG.num_admitted]
    assert torch.equal(memory.embedding_BMC[0, : CONFIG.num_admitted], predictions.embedding_BQC[0, best])
    assert torch.equal(memory.centre_BM3[0, : CONFIG.num_admitted], predictions.boxes[-1, 0, best, :3])
    assert torch.equal(memory.velocity_BM2[0, : CONFIG.num_admitted], predictions.boxes[-1, 0, best, 8:])


def test_no_gradient_flows_through_the_memory():
    detector = lively_detector(CONFIG).train()
    first, memory = detector.step(make_frame(CONFIG), detector.fresh_memory())
    assert first.boxes.requires_grad
    assert not any(value.requires_grad for value in vars(memory).values())
    continued = make_frame(CONFIG, seed=1, is_first_B=torch.tensor([False]), dt_B=torch.tensor([0.5]))
    second, memory = detector.step(continued, memory)
    assert not any(value.requires_grad for value in vars(memory).values())
    into_past = torch.autograd.grad(second.boxes.sum(), first.embedding_BQC, allow_unused=True)
    assert into_past == (None,)


class FlatStep(torch.nn.Module):
    """The step with tensors only, as an exporter wants it."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, frame_values, memory_values):
        predictions, memory = self.detector.step(Frame(*frame_values), Memory(*memory_values))
        return (predictions.class_logits, predictions.boxes, *vars(memory).values())


def test_a_step_is_one_graph_without_branches_on_data(detector):
    frame = make_frame(CONFIG, present_BN=torch.ones(1, 3, dtype=torch.bool))
    fresh = detector.fresh_memory()
    step = FlatStep(detector)
    exported = torch.export.export(step, (tuple(vars(frame).values()), tuple(vars(fresh).values())), strict=False)
    # Other data than those that were traced: another branch would have to be taken if there were one.
    _, memory = detector.step(frame, fresh)
    other = make_frame(
        CONFIG,
        seed=5,
        ref_T_prev_B44=torch.from_numpy(yawed(0.1, 2.0, 0.3, 0.0)).float()[None],
        dt_B=torch.tensor([0.5]),
        is_first_B=torch.tensor([False]),
        present_BN=torch.tensor([[True, False, True]]),
    )
    args = (tuple(vars(other).values()), tuple(vars(memory).values()))
    for ours, theirs in zip(step(*args), exported.module()(*args), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_untrained_weights_follow_from_the_seed():
    one, same, other = (untrained_checkpoint(CONFIG, seed) for seed in (3, 3, 4))
    assert all(torch.equal(one.state[name], same.state[name]) for name in one.state)
    assert not torch.equal(one.state["queries.reference_points"], other.state["queries.reference_points"])
    before = torch.random.get_rng_state()
    untrained_checkpoint(CONFIG, 5)
    assert torch.equal(before, torch.random.get_rng_state())
