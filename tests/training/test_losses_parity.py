"""Parity of training steps with the official code: losses, gradients, assignments and every recorded array."""

import numpy as np
import pytest
import torch

from tests.core import golden
from tests.training import losses_golden
from training.losses.config import LossConfig
from training.losses.denoising import make_denoising

_FOLDERS = pytest.mark.parametrize(
    "folder", losses_golden.folders(), ids=["committed", "whole"][: len(losses_golden.folders())]
)
_CASES = pytest.mark.parametrize("case", losses_golden.CASES)

# Largest absolute differences; what is not here must be equal. Those of predictions and memory stand in tests.core.
_TOLERANCES = {
    name: golden.TOLERANCES[name] for name in ("all_cls_scores", "all_bbox_preds", *losses_golden.MEMORY_ARRAYS)
} | {
    "dn_cls_scores_last": golden.TOLERANCES["all_cls_scores"],
    "dn_bbox_preds_last": golden.TOLERANCES["all_bbox_preds"],
    "dn_padded_reference_points": 1e-6,  # of the detection range
    "focal_enc_cls_scores": 1e-4,
    "focal_centerness": 1e-4,
    "focal_enc_bbox_preds": 1e-5,  # of the image
    "focal_pred_centers2d": 1e-5,
}
_GIVEN = ("b0_", "b1_", "prev_exists", "dn_rand")


@_FOLDERS
@_CASES
def test_losses_are_those_of_the_official_code(case, folder):
    for step, result in zip(losses_golden.steps(case, folder), losses_golden.results(case), strict=False):
        ours = {f"frame_0_{name}": loss.item() for name, loss in result.losses.items()}
        assert ours == pytest.approx(step.losses, rel=1e-4)
        assert result.total.item() == pytest.approx(step.total, rel=1e-4)


@_FOLDERS
@_CASES
def test_the_gradient_of_every_parameter_has_the_official_norm(case, folder):
    for step, result in zip(losses_golden.steps(case, folder), losses_golden.results(case), strict=False):
        # A bias that every image feature shares cancels in some norms: there the official value is rounding noise.
        assert result.gradient_norms == pytest.approx(step.gradient_norms, rel=1e-3, abs=1e-4)


@_FOLDERS
@_CASES
def test_every_array_is_that_of_the_official_code(case, folder):
    for index, step in enumerate(losses_golden.steps(case, folder)):
        ours = losses_golden.observed(case, index)
        results = {name: array for name, array in step.arrays.items() if not name.startswith(_GIVEN)}
        scores = ours.pop("focal_scores")
        if "focal_topk_indexes" in results:
            sorted_scores = np.take_along_axis(scores, results.pop("focal_topk_indexes").astype(np.int64), axis=1)
            assert (np.diff(sorted_scores, axis=1) < 1e-6).all()
        assert {"assign3d", "assign2d", "all_cls_scores", "after_memory_embedding"} <= results.keys()
        for name, array in results.items():
            mine = golden.thinned(ours[name], array.shape)
            np.testing.assert_allclose(
                mine, array, rtol=0, atol=_TOLERANCES.get(name, 0), err_msg=f"step {index}: {name}"
            )


def test_what_is_frozen_there_is_frozen_here():
    frozen = set(losses_golden.steps("dn", golden.COMMITTED)[0].without_gradient)
    constants = {name for name in frozen if name.startswith("pts_bbox_head.")}
    assert "pts_bbox_head.pseudo_reference_points.weight" in constants
    model = losses_golden.training_model(0)
    ours = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert ours == {name.replace("img_backbone.", "detector.backbone.") for name in frozen - constants}


@_FOLDERS
def test_a_seed_gives_the_official_noise(folder):
    model = losses_golden.training_model(0).detector.config
    for index, step in enumerate(losses_golden.steps("dn", folder)):
        torch.manual_seed(100 + index)
        denoising = make_denoising(losses_golden.truths("dn", step), model, LossConfig())
        np.testing.assert_allclose(
            denoising.reference_BD3.numpy(), step.arrays["dn_padded_reference_points"], atol=1e-6
        )


@pytest.mark.skipif(len(losses_golden.folders()) == 1, reason="the whole golden set is not beside the repository")
@_CASES
def test_the_committed_subset_holds_values_of_the_whole_set(case):
    committed, whole = (losses_golden.steps(case, folder) for folder in losses_golden.folders())
    for thin, full in zip(committed, whole, strict=False):
        assert thin.arrays.keys() == full.arrays.keys()
        assert (thin.losses, thin.gradient_norms) == (full.losses, full.gradient_norms)
        for name, array in thin.arrays.items():
            whole_array = full.arrays[name]
            if whole_array.size:
                whole_array = golden.thinned(whole_array, array.shape)
            np.testing.assert_array_equal(array, whole_array, err_msg=name)
