import numpy as np
import pytest
import torch

from streampetr_core.checkpoint import untrained_checkpoint
from streampetr_core.decode import decode_detections
from streampetr_core.frame import Frame
from streampetr_core.geometry import make_transform
from streampetr_core.memory import Memory
from streampetr_core.preprocess import normalise, plan_resize, resize_crop_fast
from streampetr_core.runtime import TorchRuntime
from streampetr_ros.perception import CameraView, Perception, PreparedView, ResetPolicy, Snapshot
from tests.ros.rig import HEIGHT, TINY, WIDTH, K, picture

POLICY = ResetPolicy(max_gap=2.0, max_speed=80.0)
LOOKING_FORWARD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # ref: x right, y forward; cam: z forward, y down
CAM_T_REF = make_transform(LOOKING_FORWARD, [0.0, 0.3, 0.1])


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    checkpoint = untrained_checkpoint(TINY, seed=3)
    for name, value in checkpoint.state.items():  # let motion and memory matter, which they do not before training
        if name.endswith(("gamma.weight", "beta.weight")):
            value.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return TorchRuntime(checkpoint, "cpu")


def _snapshot(stamp: float, x: float = 0.0, views: int = 2) -> Snapshot:
    world_T_ref = make_transform(np.eye(3), [x, 0.0, 1.8])
    seeds = range(int(stamp * 10), int(stamp * 10) + views)
    return Snapshot(stamp, [CameraView(picture(seed), K, CAM_T_REF) for seed in seeds], world_T_ref)


def _boxes(perception: Perception, snapshot: Snapshot) -> np.ndarray:
    return perception.process(snapshot).detections.boxes_D7.numpy()


def _step(
    runtime: TorchRuntime, snapshot: Snapshot, dt: float, ref_T_prev: np.ndarray, memory: Memory, missing: int | None
):
    """Run one step with a frame that is written out here; a missing camera's image is black and masked."""
    plan = plan_resize(WIDTH, HEIGHT, TINY)
    images = torch.from_numpy(np.stack([resize_crop_fast(view.image, plan) for view in snapshot.views]))
    input_K = plan.input_T_source @ K
    img_P_ref = np.eye(4)
    img_P_ref[:3] = input_K @ CAM_T_REF[:3]
    frame = Frame(
        normalise(images, TINY)[None],
        torch.from_numpy(input_K).float().expand(1, 2, 3, 3),
        torch.from_numpy(img_P_ref).expand(1, 2, 4, 4),
        torch.from_numpy(ref_T_prev).float()[None],
        torch.tensor([dt]),
        torch.tensor([dt == 0]),
        None if missing is None else torch.tensor([[index != missing for index in range(2)]]),
    )
    predictions, memory = runtime.step(frame, memory)
    return decode_detections(predictions, TINY)[0], memory


@pytest.mark.parametrize("missing", [None, 0, 1])
def test_two_snapshots_equal_two_steps_written_out(runtime: TorchRuntime, missing: int | None):
    perception = Perception(runtime, POLICY)
    first, second = _snapshot(100.0), _snapshot(100.5, x=3.0)
    _, memory = _step(runtime, first, 0.0, np.eye(4), runtime.fresh_memory(), None)
    ref_T_prev = np.linalg.inv(second.world_T_ref) @ first.world_T_ref
    expected, _ = _step(runtime, second, 0.5, ref_T_prev, memory, missing)
    views = [None if index == missing else view for index, view in enumerate(second.views)]
    perception.process(first)
    perceived = perception.process(Snapshot(second.stamp, views, second.world_T_ref))
    detections = perceived.detections
    assert perceived.reset_reason is None
    torch.testing.assert_close(detections.boxes_D7, expected.boxes_D7, atol=1e-4, rtol=0)
    torch.testing.assert_close(detections.scores_D, expected.scores_D, atol=1e-6, rtol=0)


def test_the_memory_is_written_once_per_interval(runtime: TorchRuntime):
    slow, fast = Perception(runtime, POLICY), Perception(runtime, POLICY)
    for perception in (slow, fast):
        perception.process(_snapshot(100.0))
    for step in range(1, 5):  # detections between two memory entries leave no trace
        fast.process(_snapshot(100.0 + 0.1 * step, x=0.1 * step))
    assert np.array_equal(_boxes(slow, _snapshot(100.5, x=1.0)), _boxes(fast, _snapshot(100.5, x=1.0)))


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (_snapshot(99.0), "time went back by 1.000 s"),
        (_snapshot(103.0), "a gap of 3.0 s"),
        (_snapshot(100.5, x=500.0), "odometry jumped by 500.0 m"),
    ],
)
def test_a_useless_memory_is_dropped_and_the_reason_given(runtime: TorchRuntime, snapshot: Snapshot, reason: str):
    used, new = Perception(runtime, POLICY), Perception(runtime, POLICY)
    used.process(_snapshot(100.0))
    perceived = used.process(snapshot)
    assert perceived.reset_reason is not None and perceived.reset_reason.startswith(reason)
    assert np.array_equal(perceived.detections.boxes_D7.numpy(), _boxes(new, snapshot))


def test_without_a_reason_the_memory_matters(runtime: TorchRuntime):
    used, new = Perception(runtime, POLICY), Perception(runtime, POLICY)
    used.process(_snapshot(100.0))
    snapshot = _snapshot(100.5, x=1.0)
    assert np.abs(_boxes(used, snapshot)[:4] - _boxes(new, snapshot)[:4]).max() > 1e-3


def test_a_missing_camera_is_left_out(runtime: TorchRuntime):
    whole = _snapshot(100.0)
    partial = Snapshot(whole.stamp, [whole.views[0], None], whole.world_T_ref)
    blind = Snapshot(whole.stamp, [whole.views[0], whole.views[0]], whole.world_T_ref)
    boxes = _boxes(Perception(runtime, POLICY), partial)
    assert np.isfinite(boxes).all()
    assert not np.array_equal(boxes, _boxes(Perception(runtime, POLICY), whole))
    assert not np.array_equal(boxes, _boxes(Perception(runtime, POLICY), blind))


@pytest.mark.parametrize("missing", [None, 0])
def test_cameras_that_were_encoded_before_give_what_all_at_once_give(runtime: TorchRuntime, missing: int | None):
    at_once, singly = Perception(runtime, POLICY), Perception(runtime, POLICY, one_by_one=True)
    for stamp in (100.0, 100.5):
        snapshot = _snapshot(stamp, x=stamp - 100.0, views=3)
        views = [None if index == missing and stamp > 100 else view for index, view in enumerate(snapshot.views)]
        plan = plan_resize(WIDTH, HEIGHT, TINY)
        prepared: list[CameraView | PreparedView | None] = list(views)
        for index in (2, 0):  # in another order than the rig's; the one between is encoded with its set
            if views[index] is not None:
                pixels = singly.path.shrink(views[index].image, plan)
                prepared[index] = PreparedView(views[index].lens, CAM_T_REF, None, singly.encode([pixels]))
        expected = at_once.process(Snapshot(stamp, views, snapshot.world_T_ref)).detections
        found = singly.process(Snapshot(stamp, prepared, snapshot.world_T_ref)).detections
        torch.testing.assert_close(found.boxes_D7, expected.boxes_D7, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.scores_D, expected.scores_D, atol=1e-6, rtol=0)
