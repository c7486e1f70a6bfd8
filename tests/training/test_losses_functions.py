"""The formulas: values that follow from their definition, and derivatives against finite differences."""

import pytest
import torch

from tests.training import tiny
from training.losses import functions
from training.losses.aux_losses import centre_heatmap
from training.truth import CameraTruth


def _random(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", [functions.focal_loss, functions.quality_focal_loss])
def test_derivatives_of_the_class_losses_are_right(loss):
    logits = (8.0 * _random(5, 4) - 4.0).requires_grad_()
    targets = (_random(5, 4, seed=1) > 0.7).double()
    if loss is functions.quality_focal_loss:
        targets = targets * _random(5, 4, seed=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits)


def test_derivatives_of_the_heatmap_loss_are_right():
    heatmap = _random(4, 6)
    heatmap[1, 2] = 1.0
    probabilities = (0.1 + 0.8 * _random(4, 6, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: functions.gaussian_focal_loss(x, heatmap), probabilities)


@pytest.mark.parametrize("which", [0, 1], ids=["iou", "generalised"])
def test_derivatives_of_the_overlaps_are_right(which):
    low, size = 10.0 * _random(30, 2), 1.0 + 6.0 * _random(30, 2, seed=1)
    boxes = torch.cat([low, low + size], dim=1).requires_grad_()
    others = boxes.detach().roll(1, dims=0) + 0.123
    assert torch.autograd.gradcheck(lambda x: functions.box_overlap(x, others)[which], boxes)


def test_the_focal_loss_is_its_definition_on_probabilities():
    logits, targets = 6.0 * _random(50) - 3.0, (_random(50, seed=1) > 0.5).double()
    p = torch.where(targets == 1.0, logits.sigmoid(), 1.0 - logits.sigmoid())
    alpha = torch.where(targets == 1.0, 0.25, 0.75)
    torch.testing.assert_close(functions.focal_loss(logits, targets), -alpha * (1 - p) ** 2 * p.log())


def test_the_quality_focal_loss_vanishes_where_the_score_is_the_quality():
    qualities = 0.05 + 0.9 * _random(20)
    loss = functions.quality_focal_loss(qualities.logit(), qualities)
    assert loss.abs().max() < 1e-20
    assert (functions.quality_focal_loss(qualities.logit() + 0.1, qualities) > 1e-5).all()


def test_the_heatmap_loss_spares_what_is_near_a_centre():
    probabilities, heatmap = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([1.0, 0.0, 0.5])
    half = 0.5**2 * torch.tensor(2.0).log().item()
    expected = [half, half, half * 0.5**4]
    assert functions.gaussian_focal_loss(probabilities, heatmap).tolist() == pytest.approx(expected)


def test_overlaps_of_known_boxes():
    box = torch.tensor([0.0, 0.0, 2.0, 2.0])
    others = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [3.0, 0.0, 5.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    iou, generalised = functions.box_overlap(box, others)
    assert iou.tolist() == pytest.approx([1.0, 1 / 3, 0.0, 0.0])
    assert generalised.tolist() == pytest.approx([1.0, 1 / 3, -0.2, 0.0])


def test_corner_and_centre_forms_of_boxes_are_inverse():
    boxes = torch.cat([_random(9, 2), _random(9, 2, seed=1) + 1.0], dim=1)
    torch.testing.assert_close(functions.centre_to_corners(functions.corners_to_centre(boxes)), boxes)


def test_the_heatmap_is_one_at_centres_and_ends_at_the_nearest_side():
    box, centre = torch.tensor([[0.0, 0.0, 160.0, 160.0]]), torch.tensor([[40.0, 72.0]])
    image = CameraTruth(box, torch.tensor([0]), centre, torch.tensor([9.0]))
    heatmap = centre_heatmap(image, (160, 160), 16)
    # 40 pixels to the left side are three cells, rounded up; the centre lies in column 2, row 4.
    assert heatmap[4, 2] == 1.0
    assert heatmap[4].gt(0).tolist() == [True] * 6 + [False] * 4
    assert heatmap[:, 2].gt(0).tolist() == [False] + [True] * 7 + [False] * 2
    assert heatmap[4, 3].item() == pytest.approx(torch.tensor(-1 / (2 * (7 / 6) ** 2)).exp().item())


def test_the_heatmap_of_several_objects_is_the_highest_of_theirs():
    image = tiny.camera_truth(2)
    alone = [
        centre_heatmap(CameraTruth(*(value[i : i + 1] for value in vars(image).values())), (64, 96), 16) for i in (0, 1)
    ]
    assert torch.equal(centre_heatmap(image, (64, 96), 16), torch.maximum(*alone))


def test_centres_outside_their_box_and_on_the_image_border_have_the_smallest_window():
    boxes, centres = torch.tensor([[0.0, 0.0, 40.0, 40.0]] * 2), torch.tensor([[95.0, 8.0], [96.0, 64.0]])
    image = CameraTruth(boxes, torch.tensor([0, 0]), centres, torch.ones(2))
    heatmap = centre_heatmap(image, (64, 96), 16)
    assert heatmap.gt(0).nonzero().tolist() == [[0, 4], [0, 5], [1, 4], [1, 5], [3, 5]]


def test_an_image_without_objects_has_an_empty_heatmap():
    assert torch.equal(centre_heatmap(tiny.camera_truth(0), (64, 96), 16), torch.zeros(4, 6))
