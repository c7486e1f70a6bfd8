"""All losses together: batches without boxes, unknown velocities, missing cameras, counts of several processes."""

import dataclasses

import pytest
import torch

from streampetr_core.errors import StreampetrError
from tests.training import tiny
from training.losses.config import LossConfig
from training.losses.criterion import frame_losses, total_loss
from training.losses.denoising import make_denoising
from training.losses.forward import run_frame

_AUX_NAMES = {"enc_loss_cls", "enc_loss_bbox", "enc_loss_iou", "centers2d_losses", "centerness_losses"}


def _losses(truths, model=None, frame=None, **keywords):
    torch.manual_seed(7)
    model = model or tiny.model()
    frame = frame or tiny.frame(len(truths), len(truths[0].cameras))
    denoising = make_denoising(truths, tiny.CONFIG, model.config)
    memory = model.detector.fresh_memory(len(truths))
    outputs, _ = run_frame(model.detector, model.aux_head, frame, memory, denoising)
    return frame_losses(outputs, frame, truths, denoising, model.config, **keywords)


@pytest.mark.parametrize("num_objects", [(3, 2), (0, 2), (0, 0)])
@pytest.mark.parametrize("cameras", [1, 3])
def test_losses_are_finite_and_reach_every_weight_that_learns(num_objects, cameras):
    model = tiny.model()
    losses = _losses(tiny.truths(*num_objects, cameras=cameras), model)
    assert {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.dn_loss_bbox", *_AUX_NAMES} <= losses.keys()
    total_loss(losses).backward()
    without = [name for name, gradient in tiny.gradients(model).items() if gradient is None]
    assert not without
    assert all(gradient.isfinite().all() for gradient in tiny.gradients(model).values())


def test_the_total_is_the_sum_of_all():
    losses = _losses(tiny.truths(2, 1))
    assert total_loss(losses).item() == pytest.approx(sum(loss.item() for loss in losses.values()))


def test_a_batch_without_boxes_has_only_the_cost_of_false_alarms():
    losses = _losses(tiny.truths(0, 0))
    positive = {name for name, loss in losses.items() if loss > 0}
    assert positive == {
        *("loss_cls", "d0.loss_cls", "dn_loss_cls", "d0.dn_loss_cls"),
        *("enc_loss_cls", "centerness_losses"),
    }
    assert losses["dn_loss_cls"] == losses["loss_cls"]
    assert not losses["dn_loss_cls"].requires_grad


def test_without_denoising_and_auxiliary_head_their_losses_do_not_exist():
    model = tiny.model(LossConfig(denoising_groups=0))
    model.aux_head = None
    assert _losses(tiny.truths(2, 1), model).keys() == {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"}


def test_unknown_velocities_take_a_box_out_of_regression_only():
    model = tiny.model(LossConfig(denoising_groups=0))
    known, far = tiny.truth(2), tiny.truth(2)
    boxes = known.boxes_G9.clone()
    boxes[1, 7:] = torch.nan
    unknown = dataclasses.replace(known, boxes_G9=boxes)
    boxes = known.boxes_G9.clone()
    boxes[1, 7:] = 1e6
    far = dataclasses.replace(known, boxes_G9=boxes)
    a, b, c = (_losses([truth], model) for truth in (known, unknown, far))
    assert 0 < b["loss_bbox"] < a["loss_bbox"] < c["loss_bbox"]
    assert a["loss_cls"] == b["loss_cls"]
    total_loss(b).backward()
    assert all(gradient.isfinite().all() for gradient in tiny.gradients(model).values() if gradient is not None)


def test_images_of_absent_cameras_teach_nothing():
    truths = tiny.truths(2, 1)
    present = torch.tensor([[True, False, True], [True, True, True]])
    frame = tiny.frame(present_BN=present)
    images = frame.images_BN3HW.clone()
    images[0, 1] = 1e3
    without, garbage = (_losses(truths, frame=f) for f in (frame, dataclasses.replace(frame, images_BN3HW=images)))
    assert without == garbage
    assert without["centerness_losses"] != _losses(truths)["centerness_losses"]


def test_counts_are_averaged_over_processes_in_one_call():
    truths, calls = tiny.truths(3, 1), []

    def reduce_mean(counts):
        calls.append(counts.tolist())
        return counts * 2

    alone, shared = _losses(truths), _losses(truths, reduce_mean=reduce_mean)
    assert calls == [[4.0, 9.0, 40.0]]
    halved = {name for name in alone if shared[name].item() == pytest.approx(alone[name].item() / 2)}
    assert halved == {
        *("loss_bbox", "d0.loss_bbox", "dn_loss_bbox", "d0.dn_loss_bbox"),
        *("enc_loss_bbox", "centers2d_losses", "centerness_losses"),
    }
    assert all(shared[name] == alone[name] for name in alone.keys() - halved)


def test_a_loss_that_is_not_finite_is_an_error_that_names_it():
    losses = {"loss_cls": torch.tensor(1.0), "d0.loss_bbox": torch.tensor(torch.nan)}
    with pytest.raises(StreampetrError, match=r"d0\.loss_bbox is nan") as error:
        total_loss(losses)
    assert "loss_cls" not in str(error.value)


def test_a_model_that_diverged_is_found_through_matching():
    model = tiny.model()
    with torch.no_grad():
        model.detector.heads.boxes[-1].bias[8] = torch.nan
    with pytest.raises(StreampetrError, match="loss_bbox is nan"):
        total_loss(_losses(tiny.truths(2, 1), model))


def test_more_objects_than_queries_are_no_error():
    assert total_loss(_losses(tiny.truths(tiny.CONFIG.num_queries + 5, 1))).isfinite()
