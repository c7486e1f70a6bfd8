"""Guidance of the decoder: which tokens denoising queries are told to look at, and what it does to attention."""

import dataclasses

import pytest
import torch

from streampetr_core.frame import Frame
from streampetr_core.proposals import TokenHead
from tests.training import tiny
from training.losses.config import LossConfig
from training.losses.criterion import total_loss
from training.losses.denoising import make_denoising
from training.losses.guidance import guidance_losses, tokens_of_objects
from training.truth import Truth

CONFIG = LossConfig(denoising_groups=2, guidance_weight=1.0)
STRIDE, FOCAL = 16, 48.0
HEIGHT, WIDTH = tiny.CONFIG.input_height, tiny.CONFIG.input_width


def frame(**changes) -> Frame:
    """Return two cameras at the origin of ref: one looks along y, the other back."""
    ahead = torch.tensor(
        [[FOCAL, WIDTH / 2, 0, 0], [0, HEIGHT / 2, -FOCAL, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.float32
    )
    behind = ahead @ torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    intrinsics = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return dataclasses.replace(
        tiny.frame(1, 2),
        img_P_ref_BN44=torch.stack([ahead, behind])[None],
        intrinsics_BN33=intrinsics.expand(1, 2, 3, 3),
        **changes,
    )


def truth(*centres: tuple[float, float, float]) -> Truth:
    boxes = torch.tensor([[*centre, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0] for centre in centres])
    return Truth(boxes.reshape(-1, 9), torch.zeros(len(centres), dtype=torch.int64), ())


def losses_of(model, frame, truths):
    denoising = make_denoising(truths, tiny.CONFIG, CONFIG, torch.full((2 * len(truths[0].labels_G), 3), 0.5))
    features = model.detector.encode(frame.images_BN3HW)
    keys = sum(model.detector.position(features, model.detector.geometry(frame)))
    queries = model.detector.temporal(model.detector.fresh_memory(1), denoising.reference_BD3)
    return guidance_losses(model.detector, keys, queries, frame, denoising, CONFIG)


@pytest.mark.parametrize(
    ("centre", "camera", "row", "column"),
    [((0.4, 10.0, -0.4), 0, 2, 3), ((-8.0, 10.0, 3.0), 0, 1, 0), ((8.0, -10.0, 0.1), 1, 1, 0)],
)
def test_the_token_is_that_of_the_projected_centre(centre, camera, row, column):
    given = frame()
    denoising = make_denoising([truth(centre)], tiny.CONFIG, CONFIG)
    allowed = tokens_of_objects(given, denoising, denoising.reference_BD3.shape[1], STRIDE)
    tokens_of_camera = (HEIGHT // STRIDE) * (WIDTH // STRIDE)
    token = camera * tokens_of_camera + row * (WIDTH // STRIDE) + column
    assert allowed.nonzero()[:, 2].tolist() == [token, token]  # of both groups


def test_what_no_camera_shows_and_absent_cameras_have_no_token():
    hidden = make_denoising([truth((20.0, 1.0, 0.0))], tiny.CONFIG, CONFIG)
    assert not tokens_of_objects(frame(), hidden, 2, STRIDE).any()
    ahead = make_denoising([truth((0.0, 10.0, 0.0))], tiny.CONFIG, CONFIG)
    absent = frame(present_BN=torch.tensor([[False, True]]))
    assert tokens_of_objects(frame(), ahead, 2, STRIDE).any()
    assert not tokens_of_objects(absent, ahead, 2, STRIDE).any()


def test_the_loss_is_the_log_of_how_many_tokens_there_are_while_attention_is_even():
    model = tiny.model()
    for layer in model.detector.decoder.layers:
        torch.nn.init.zeros_(layer.cross_attention.in_proj_weight)
    losses = losses_of(model, frame(), [truth((0.0, 10.0, 0.0))])
    num_tokens = 2 * (HEIGHT // STRIDE) * (WIDTH // STRIDE)
    expected = torch.tensor(float(num_tokens)).log().item()
    assert {name: loss.item() for name, loss in losses.items()} == {
        "look_loss": pytest.approx(expected),
        "d0.look_loss": pytest.approx(expected),
    }


def test_absent_cameras_do_not_count_as_places_to_look():
    model = tiny.model()
    for layer in model.detector.decoder.layers:
        torch.nn.init.zeros_(layer.cross_attention.in_proj_weight)
    losses = losses_of(model, frame(present_BN=torch.tensor([[True, False]])), [truth((0.0, 10.0, 0.0))])
    num_tokens = (HEIGHT // STRIDE) * (WIDTH // STRIDE)
    assert losses["look_loss"].item() == pytest.approx(torch.tensor(float(num_tokens)).log().item())


def test_objects_that_nothing_shows_leave_loss_and_gradient_alone():
    model = tiny.model()
    seen = losses_of(model, frame(), [truth((0.0, 10.0, 0.0))])
    with_hidden = losses_of(model, frame(), [truth((0.0, 10.0, 0.0), (20.0, 1.0, 0.0))])
    torch.testing.assert_close(with_hidden, seen)
    sum(with_hidden.values()).backward()
    gradients = [gradient for gradient in tiny.gradients(model).values() if gradient is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def test_descending_the_loss_turns_attention_to_the_object():
    model = tiny.model()
    weights = [layer.cross_attention.in_proj_weight for layer in model.detector.decoder.layers]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    before = None
    for _ in range(20):
        losses = losses_of(model, frame(), [truth((0.0, 10.0, 0.0), (3.0, -9.0, 0.0))])
        before = before or total_loss(losses).item()
        optimizer.zero_grad()
        total_loss(losses).backward()
        optimizer.step()
    assert total_loss(losses).item() < before / 2


def test_training_has_the_loss_by_layer_also_where_there_is_no_box():
    model = tiny.model(CONFIG, dense_head=TokenHead(tiny.CONFIG))
    names = {"frame_0_look_loss", "frame_0_d0.look_loss"}
    losses, memory = model([tiny.frame()], model.detector.fresh_memory(2), [tiny.truths(3, 1)])
    assert names <= losses.keys() and all(losses[name] > 0 for name in names)
    losses, _ = model([tiny.frame()], memory, [tiny.truths(0, 0)])
    assert all(losses[name] == 0 for name in names)
