"""Geometry that is kept: nothing is computed twice, nothing is further off than is promised."""

import torch

from streampetr_core.geometry import make_transform
from streampetr_core.runtime.geometry import STILL, KeptGeometry
from tests.core.models import lively_detector, make_frame, tiny_config

CONFIG = tiny_config()
DETECTOR = lively_detector(CONFIG).requires_grad_(False)
WHOLE = lively_detector(CONFIG).requires_grad_(False).position  # the same one, whose calls are not counted
NUM_CAMERAS, BATCH = 3, 2


def kept(arithmetic=torch.float32):
    return KeptGeometry(DETECTOR.position, CONFIG, torch.float32, arithmetic)


def frame(moves=None, **changes):
    """Return a frame whose cameras (scene, camera) look from elsewhere, by metres along ref's axes."""
    values = make_frame(CONFIG, NUM_CAMERAS, BATCH, **changes)
    matrices = values.img_P_ref_BN44.double().clone()
    for (scene, camera), metres in (moves or {}).items():
        shift = torch.from_numpy(make_transform([[1, 0, 0], [0, 1, 0], [0, 0, 1]], metres))
        matrices[scene, camera] = matrices[scene, camera] @ shift
    return make_frame(CONFIG, NUM_CAMERAS, BATCH, img_P_ref_BN44=matrices, **changes)


def exact(given):
    return WHOLE.geometry(given.img_P_ref_BN44, given.intrinsics_BN33, *CONFIG.feature_size)


def counted(monkeypatch):
    """Return a list to which the number of embedded cameras is added, call by call."""
    calls, original = [], DETECTOR.position.embed_rays

    def embed(matrices, intrinsics, height, width, cameras=None):
        calls.append(matrices.shape[0] * (matrices.shape[1] if cameras is None else len(cameras)))
        return original(matrices, intrinsics, height, width, cameras)

    monkeypatch.setattr(DETECTOR.position, "embed_rays", embed)
    return calls


def assert_same(ours, expected, tolerance=1e-5):
    for name, value in vars(ours).items():
        torch.testing.assert_close(value, getattr(expected, name), rtol=0, atol=tolerance)


def test_only_cameras_that_moved_are_embedded_anew(monkeypatch):
    embedded, geometry = counted(monkeypatch), kept()
    geometry(frame())
    geometry(frame())
    moved = frame({(0, 1): [0.01, 0, 0], (1, 0): [0, 0.02, 0], (1, 2): [0, 0, 0.01]})
    result = geometry(moved)
    assert embedded == [6, 1, 2]
    assert_same(result, exact(moved))
    geometry(moved)
    everywhere = frame({(scene, camera): [1.0, 0, 0] for scene in range(2) for camera in range(3)})
    assert_same(geometry(everywhere), exact(everywhere))
    assert embedded == [6, 1, 2, 6]


def test_what_was_returned_before_does_not_change():
    geometry = kept()
    first = geometry(frame())
    before = first.position_BTC.clone()
    geometry(frame({(0, 0): [0.5, 0, 0]}))
    assert torch.equal(first.position_BTC, before)


def test_a_slow_drift_is_followed(monkeypatch):
    """Each step is too small to count, but they are compared with where the camera was when it was embedded."""
    embedded, geometry = counted(monkeypatch), kept()
    for step in range(20):
        geometry(frame({(0, 0): [0.3 * STILL * step, 0, 0]}))
    assert embedded == [6, *[1] * 4]


def test_a_turn_counts_by_how_far_the_end_of_a_ray_moves(monkeypatch):
    embedded, geometry = counted(monkeypatch), kept()
    geometry(frame())
    turned = frame()
    angle = torch.tensor(10 * STILL / 61.2)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    geometry(make_frame(CONFIG, NUM_CAMERAS, BATCH, img_P_ref_BN44=turned.img_P_ref_BN44 @ turn))
    assert embedded == [6, 6]


def test_other_intrinsics_other_cameras_and_no_numbers_are_embedded_anew(monkeypatch):
    embedded, geometry = counted(monkeypatch), kept()
    geometry(frame())
    intrinsics = frame().intrinsics_BN33.clone()
    intrinsics[0, 0, 0, 0] += 1.0  # of one camera, with which tokens of all are paired
    assert_same(geometry(frame(intrinsics_BN33=intrinsics)), exact(frame(intrinsics_BN33=intrinsics)))
    geometry(make_frame(CONFIG, 2, BATCH))
    geometry(make_frame(CONFIG, 2, 1))
    broken = make_frame(CONFIG, 2, 1).img_P_ref_BN44.clone()
    broken[0, 0, 0, 3] = torch.nan
    geometry(make_frame(CONFIG, 2, 1, img_P_ref_BN44=broken))
    assert embedded == [6, 6, 4, 2, 1]


@torch.inference_mode()
def test_outputs_hardly_feel_what_is_kept():
    """Cameras that have all moved by just less than the limit: boxes and scores change by less than a thousandth."""
    start = frame()
    moves = {(scene, camera): [0.9 * STILL, 0, 0] for scene in range(BATCH) for camera in range(NUM_CAMERAS)}
    moved = frame(moves)
    geometry = kept()
    geometry(start)
    features = DETECTOR.encode(moved.images_BN3HW)
    queries = DETECTOR.temporal(DETECTOR.fresh_memory(BATCH))
    predictions = [
        DETECTOR.heads(DETECTOR.decode(features, g, queries), queries.reference_BQ3, queries.prior_BQO)
        for g in (geometry(moved), exact(moved))
    ]
    assert torch.equal(geometry(moved).position_BTC, geometry(start).position_BTC)
    ours, expected = predictions
    assert 0 < (ours.boxes[-1] - expected.boxes[-1]).abs().max() < 1e-3
    assert (ours.class_logits[-1].sigmoid() - expected.class_logits[-1].sigmoid()).abs().max() < 1e-3


@torch.inference_mode()
def test_coordinates_keep_their_digits_in_bfloat16():
    """A layer that takes 11 from coordinates of 11.513, which plain bfloat16 would round to 11.5."""
    encoder = lively_detector(CONFIG).requires_grad_(False).position
    first, _, last = encoder.ray_encoder
    for tensor in (first.weight, first.bias, last.weight, last.bias):
        tensor.zero_()
    for unit, coordinate in enumerate((-3, -2)):  # x and y of the last depth bin
        first.weight[unit, coordinate], last.weight[unit, unit] = 1.0, 1.0
    first.bias[:2] = -11.0
    given = frame()
    expected = encoder.geometry(given.img_P_ref_BN44, given.intrinsics_BN33, *CONFIG.feature_size)
    ours = KeptGeometry(encoder, CONFIG, torch.float32, torch.bfloat16)(given)
    assert expected.position_BTC.max() > 0.5
    torch.testing.assert_close(ours.position_BTC, expected.position_BTC, rtol=0.006, atol=1e-3)
    for name in ("gamma_BTC", "beta_BTC"):
        torch.testing.assert_close(getattr(ours, name), getattr(expected, name), rtol=0.02, atol=0.02)
