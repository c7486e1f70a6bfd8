"""The dense image head: which token is told what, and what learns by it."""

import dataclasses
import math

import pytest
import torch

from streampetr_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from streampetr_core.frame import Frame
from streampetr_core.position import invert_projections
from streampetr_core.proposals import TokenHead, claimed_boxes
from tests.training import tiny
from training.losses.criterion import total_loss
from training.losses.dense_head import TokenOutputs, dense_losses, dense_truth
from training.losses.forward import choose_images
from training.truth import Truth

STRIDE, FOCAL = 16, 48.0
HEIGHT, WIDTH = 64, 96  # 4 x 6 tokens
MIDDLE = (48.0, 32.0)
NUM_CLASSES = 3
# A camera at the origin of ref that looks along y: x right, z up.
PROJECTION = torch.tensor([[FOCAL, MIDDLE[0], 0, 0], [0, MIDDLE[1], -FOCAL, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])


def frame(mirrored: bool = False, **changes) -> Frame:
    projection, intrinsics = PROJECTION.clone(), torch.tensor([[FOCAL, 0, MIDDLE[0]], [0, FOCAL, MIDDLE[1]], [0, 0, 1]])
    if mirrored:
        projection[0] = WIDTH * projection[2] - projection[0]
        intrinsics[0, 0] = -FOCAL
    return Frame(
        images_BN3HW=torch.zeros(1, 1, 3, HEIGHT, WIDTH),
        intrinsics_BN33=intrinsics[None, None],
        img_P_ref_BN44=projection[None, None],
        ref_T_prev_B44=torch.eye(4)[None],
        dt_B=torch.zeros(1),
        is_first_B=torch.ones(1, dtype=torch.bool),
        **changes,
    )


def box(x: float, y: float, z: float, size=(2.0, 2.0, 2.0), yaw: float = 0.0) -> list[float]:
    return [x, y, z, *size, yaw, 0.0, 0.0]


def truth_of(boxes: list[list[float]], labels: list[int], mirrored: bool = False):
    truth = Truth(torch.tensor(boxes).reshape(-1, 9), torch.tensor(labels, dtype=torch.int64), ())
    return dense_truth(frame(mirrored), [truth], no_predictions())


def no_predictions() -> TokenOutputs:
    return TokenOutputs(torch.zeros(1, 24, NUM_CLASSES), torch.zeros(1, 24, 8), STRIDE)


def grid(labels_IT: torch.Tensor) -> list[list[int]]:
    return labels_IT.reshape(HEIGHT // STRIDE, WIDTH // STRIDE).tolist()


def test_tokens_that_an_object_covers_name_its_class():
    # 12 m wide and high, 9 m away at its front: pixels 16 to 80 and 0 to 64.
    truth = truth_of([box(0, 10, 0, (12, 2, 12))], [1])
    assert grid(truth.labels_IT) == [[3, 1, 1, 1, 1, 3]] * 4


def test_every_token_points_to_the_projected_centre_and_knows_depth_and_size():
    truth = truth_of([box(1, 12, -0.5, (12, 2, 8))], [1])
    sees = truth.labels_IT[0] == 1
    assert sees.sum() > 4
    column, row = torch.arange(24) % 6, torch.arange(24) // 6
    cells = (torch.stack([column, row], dim=-1) + 0.5) * STRIDE
    centre = torch.tensor([MIDDLE[0] + FOCAL / 12, MIDDLE[1] + 0.5 * FOCAL / 12])
    values = truth.values_IT8[0][sees]
    torch.testing.assert_close(cells[sees] + values[:, 1:3] * STRIDE, centre.expand(len(values), 2))
    assert values[:, 0].exp().tolist() == pytest.approx([12.0] * len(values))
    torch.testing.assert_close(values[:, 3:6].exp(), torch.tensor([12.0, 2.0, 8.0]).expand(len(values), 3))


def test_a_nearer_object_hides_a_farther_one_but_not_beside_it():
    truth = truth_of([box(0, 30, 0, (48, 2, 16)), box(0, 10, 0, (4, 2, 4))], [0, 2])
    assert grid(truth.labels_IT)[1] == [3, 0, 2, 2, 0, 3]


def test_an_object_smaller_than_a_token_is_seen_by_the_token_of_its_centre():
    truth = truth_of([box(5.2, 50, 0.5, (0.3, 0.3, 0.3))], [2])
    assert (truth.labels_IT == 2).nonzero().tolist() == [[0, 1 * 6 + 3]]


def test_nothing_is_seen_of_what_is_behind_the_camera():
    assert (truth_of([box(0, -10, 0)], [0]).labels_IT == NUM_CLASSES).all()
    assert (truth_of([], []).labels_IT == NUM_CLASSES).all()


@pytest.mark.parametrize(
    ("yaw", "mirrored", "expected"),
    [
        (torch.pi / 2, False, (0.0, 1.0)),  # drives away
        (-torch.pi / 2, False, (0.0, -1.0)),  # comes
        (0.0, False, (1.0, 0.0)),  # crosses to the right
        (0.0, True, (-1.0, 0.0)),  # to the left of a mirrored image
    ],
)
def test_the_heading_is_the_one_that_the_image_shows(yaw, mirrored, expected):
    truth = truth_of([box(0, 10, 0, (4, 2, 2), yaw)], [0], mirrored)
    seen = truth.values_IT8[truth.labels_IT == 0][:, 6:]
    # The tokens beside the middle look half a cell, 9.5 degrees, to either side of y.
    assert len(seen) == 4
    torch.testing.assert_close(seen.mean(dim=0), torch.tensor(expected) * math.cos(math.atan2(8, FOCAL)))


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_tokens_are_told_is_the_box_that_proposals_make_of_it(mirrored):
    boxes = [box(1, 12, -0.5, (5, 2, 1.5), 0.4), box(-3, 9, 0.5, (1, 0.8, 2), -2.8), box(5, 20, 0, (4, 2, 2), 3.0)]
    truth = truth_of(boxes, [0, 1, 2], mirrored)
    ref_P_img = invert_projections(frame(mirrored).img_P_ref_BN44)
    claimed = claimed_boxes(truth.values_IT8, ref_P_img, STRIDE, HEIGHT // STRIDE, WIDTH // STRIDE)
    for label, (*centre_and_size, yaw, _, _) in enumerate(boxes):
        own = claimed[truth.labels_IT == label]
        assert len(own)
        expected = torch.tensor(
            [*centre_and_size[:3], *map(math.log, centre_and_size[3:]), math.sin(yaw), math.cos(yaw)]
        )
        torch.testing.assert_close(own, expected.expand_as(own), atol=1e-4, rtol=0)


def test_a_large_object_weighs_as_the_root_of_its_tokens():
    truth = truth_of([box(0, 10, 0, (12, 2, 12))], [1])
    torch.testing.assert_close(truth.weights_IT[truth.labels_IT == 1], torch.full((16,), 0.25))
    assert (truth.weights_IT[truth.labels_IT == NUM_CLASSES] == 1).all()


def test_the_loss_is_nothing_for_the_truth_and_grows_with_each_mistake():
    truth = truth_of([box(0, 10, 0, (12, 2, 12))], [1])
    is_class = torch.nn.functional.one_hot(truth.labels_IT, NUM_CLASSES + 1)[..., :NUM_CLASSES] > 0
    logits = torch.where(is_class, 20.0, -20.0)
    right = dense_losses(TokenOutputs(logits, truth.values_IT8, STRIDE), truth)
    assert all(loss.item() == pytest.approx(0, abs=1e-6) for loss in right.values())
    values = truth.values_IT8.clone()
    values[..., 0] += 0.5
    wrong = dense_losses(TokenOutputs(-logits, values, STRIDE), truth)
    assert wrong["dense_loss_depth"].item() == pytest.approx(5.0 * 0.5)  # its weight is 5
    assert wrong["dense_loss_cls"] > 1
    assert wrong["dense_loss_size"].item() == pytest.approx(0, abs=1e-6)


def test_images_of_absent_cameras_are_left_out():
    truth = Truth(torch.tensor([box(0, 10, 0)]), torch.tensor([0]), ())
    twice = frame()
    twice = dataclasses.replace(
        twice,
        images_BN3HW=twice.images_BN3HW.repeat(1, 2, 1, 1, 1),
        intrinsics_BN33=twice.intrinsics_BN33.repeat(1, 2, 1, 1),
        img_P_ref_BN44=twice.img_P_ref_BN44.repeat(1, 2, 1, 1),
        present_BN=torch.tensor([[False, True]]),
    )
    seen = dense_truth(twice, [truth], no_predictions())
    assert seen.labels_IT.shape == (1, 24)
    torch.testing.assert_close(seen.values_IT8, dense_truth(frame(), [truth], no_predictions()).values_IT8)


def test_learning_from_images_alone_reaches_the_features_and_nothing_else():
    model = tiny.model(dense_head=TokenHead(tiny.CONFIG), learns="images")
    memory = model.detector.fresh_memory(2)
    losses, after = model([tiny.frame()], memory, [tiny.truths(2, 1)])
    assert after is memory
    assert {name.split("_")[2] for name in losses} == {"enc", "centers2d", "centerness", "dense"}
    total_loss(losses).backward()
    reached = {name.split(".")[0:2][1 if name.startswith("detector.") else 0] for name in tiny.gradients(model)}
    assert reached == {"backbone", "neck", "aux_head", "dense_head"}
    assert all(gradient is not None for gradient in tiny.gradients(model).values())


def test_images_that_show_much_are_chosen_first_and_absent_ones_never():
    empty, full = tiny.camera_truth(0), tiny.camera_truth(50)
    truths = [Truth(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64), (empty, full, empty, full))] * 40
    chosen = choose_images(tiny.frame(40, cameras=4), truths, 2).present_BN
    assert (chosen.sum(dim=1) == 2).all()
    assert chosen[:, [1, 3]].float().mean() > 0.9
    present = torch.tensor([[True, True, False, False]]).repeat(40, 1)
    chosen = choose_images(tiny.frame(40, cameras=4, present_BN=present), truths, 2).present_BN
    assert torch.equal(chosen, present)


def test_only_the_chosen_images_are_encoded_and_learned_from():
    model = tiny.model(dense_head=TokenHead(tiny.CONFIG), learns="images", images_per_sample=1)
    encoded = []
    model.detector.backbone.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    frame, truths = tiny.frame(), [tiny.truth(4, seed=seed) for seed in range(2)]
    losses, _ = model([frame], model.detector.fresh_memory(2), [truths])
    assert encoded == [2]  # one of three images of each of two samples
    total_loss(losses).backward()


def test_a_decoder_that_learns_alone_leaves_the_features_as_they_are():
    model = tiny.model(learns="decoder", learns_batch_norm=True)
    before = {name: value.clone() for name, value in model.detector.backbone.state_dict().items()}
    losses, _ = model([tiny.frame()], model.detector.fresh_memory(2), [tiny.truths(2, 1)])
    total_loss(losses).backward()
    reached = {name.split(".")[1] for name in tiny.gradients(model) if name.startswith("detector.")}
    assert reached == {"position", "queries", "decoder", "heads"}
    assert all(torch.equal(value, before[name]) for name, value in model.detector.backbone.state_dict().items())


def test_weights_of_the_dense_head_travel_in_checkpoints_and_detectors_do_without(tmp_path):
    model = tiny.model(dense_head=TokenHead(tiny.CONFIG))
    state = {key: value for key, value in model.native_state().items() if not key.endswith("num_batches_tracked")}
    save_checkpoint(Checkpoint(tiny.CONFIG, state, "Apache-2.0", "a test"), tmp_path / "model.safetensors")
    read = load_checkpoint(tmp_path / "model.safetensors")
    assert "dense_head.classes.weight" in read.state
    other = tiny.model(seed=1, dense_head=TokenHead(tiny.CONFIG))
    other.load_native_state(read.state)
    torch.testing.assert_close(other.dense_head.classes.weight, model.dense_head.classes.weight)
    read.detector().step(tiny.frame(), model.detector.fresh_memory(2))
