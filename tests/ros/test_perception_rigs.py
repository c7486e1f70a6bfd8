"""Rigs unlike nuScenes': other numbers of cameras, mixed resolutions, lenses, and calibrations that change."""

import numpy as np
import pytest
import torch

from streampetr_core.checkpoint import untrained_checkpoint
from streampetr_core.distortion import Distortion
from streampetr_core.geometry import make_transform
from streampetr_core.runtime import TorchRuntime
from streampetr_ros.perception import CameraView, Perception, ResetPolicy, Snapshot
from tests.ros.rig import HEIGHT, TINY, WIDTH, K, picture

POLICY = ResetPolicy(max_gap=2.0, max_speed=80.0)
LOOKING_FORWARD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # ref: x right, y forward; cam: z forward, y down


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    checkpoint = untrained_checkpoint(TINY, seed=3)
    for name, value in checkpoint.state.items():  # let motion and memory matter, which they do not before training
        if name.endswith(("gamma.weight", "beta.weight")):
            value.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return TorchRuntime(checkpoint, "cpu")


def _view(seed: int, yaw: float = 0.0, size: int = 1, distortion: Distortion | None = None) -> CameraView:
    """Return what a camera sees that looks into a direction; its image has `size` times the usual resolution."""
    turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    image = np.repeat(np.repeat(picture(seed), size, axis=0), size, axis=1)
    return CameraView(
        image, np.diag([size, size, 1.0]) @ K, make_transform(LOOKING_FORWARD @ turn, [0, 0.3, 0.1]), distortion
    )


def _boxes(perception: Perception, views: list[CameraView | None], stamp: float = 100.0) -> np.ndarray:
    found = perception.process(Snapshot(stamp, views, make_transform(np.eye(3), [0.0, 0.0, 1.8])))
    return (found[0] if isinstance(found, tuple) else found.detections).boxes_D7.numpy()


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the median: boxes of nearly the same score may change places."""
    return float(np.median(np.abs(a - b)))


@pytest.mark.parametrize("count", [1, 3, 12])
def test_any_number_of_cameras(runtime: TorchRuntime, count: int):
    views = [_view(index, 2 * np.pi * index / count) for index in range(count)]
    perception = Perception(runtime, POLICY)
    first = _boxes(perception, views)
    assert len(first) and np.isfinite(first).all()
    assert np.isfinite(_boxes(perception, views, 100.5)).all()
    other = [*views[:-1], _view(99, 2 * np.pi * (count - 1) / count)]
    assert not np.array_equal(_boxes(Perception(runtime, POLICY), other), first)  # the last camera is looked at


def test_a_camera_of_another_resolution_sees_the_same(runtime: TorchRuntime):
    """An image of twice the resolution, with its own K, hardly changes what is found; with the wrong K it does."""
    same = _boxes(Perception(runtime, POLICY), [_view(0), _view(1, np.pi)])
    mixed = _boxes(Perception(runtime, POLICY), [_view(0), _view(1, np.pi, size=2)])
    large = _view(1, np.pi, size=2)
    wrong = _boxes(Perception(runtime, POLICY), [_view(0), CameraView(large.image, K, large.cam_T_ref)])
    assert _difference(mixed, same) < 0.2 * _difference(wrong, same)


def test_a_distorted_image_is_straightened_on_its_way_in(runtime: TorchRuntime):
    lens = Distortion(K, np.array([-0.4, 0.15, 0.0, 0.0]), (WIDTH, HEIGHT), fisheye=False)
    bent, straight = _view(0, distortion=lens), _view(0)
    twice = CameraView(lens.undistort(bent.image), K, bent.cam_T_ref)
    one, two, none = (_boxes(Perception(runtime, POLICY), [view, _view(1, np.pi)]) for view in (bent, twice, straight))
    assert _difference(one, two) < 0.2 * _difference(none, two)


def test_a_new_calibration_is_used_at_once_and_the_memory_stays(runtime: TorchRuntime):
    used, new = Perception(runtime, POLICY), Perception(runtime, POLICY)
    before = [_view(0), _view(1, np.pi)]
    after = [CameraView(before[0].image, 1.1 * K, before[0].cam_T_ref), before[1]]
    _boxes(used, before)
    same = Perception(runtime, POLICY)
    _boxes(same, before)
    changed = _boxes(used, after, 100.5)
    assert not np.array_equal(changed, _boxes(same, before, 100.5))
    assert not np.array_equal(changed, _boxes(new, after, 100.5))  # which has no memory
