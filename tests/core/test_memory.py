"""The memory against the published bookkeeping, which keeps entries in the global frame and at absolute times."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streampetr_core.geometry import invert_transform, make_transform, transform_points
from streampetr_core.memory import Memory, is_due

LENGTH, ADMITTED, START, CHANNELS = 7, 3, 2, 4
START_CENTRES = torch.tensor([[10.0, -5.0, 0.5], [-30.0, 20.0, 1.0]])


@dataclass
class GlobalMemory:
    """The five official arrays of one batch element, float64; None before the first frame."""

    embedding: np.ndarray
    point: np.ndarray
    velocity: np.ndarray
    time: np.ndarray
    egopose: np.ndarray

    @staticmethod
    def empty() -> "GlobalMemory":
        shapes = ((CHANNELS,), (3,), (2,), (), (4, 4))
        return GlobalMemory(*(np.zeros((LENGTH, *shape)) for shape in shapes))

    def pre_update(self, ref_T_world: np.ndarray, time: float, prev_exists: bool) -> None:
        """Bring everything to the current frame, truncate, forget if the scene is new, put start points in front."""
        self.time = self.time + time
        self.egopose = ref_T_world @ self.egopose
        self.point = transform_points(ref_T_world, self.point)
        for name, value in vars(self).items():
            setattr(self, name, value[:LENGTH] * prev_exists)
        if not prev_exists:
            self.point[:START] += START_CENTRES.double().numpy()
            self.egopose[:START] += np.eye(4)

    def post_update(self, world_T_ref: np.ndarray, time: float, embedding, point, velocity) -> None:
        """Put fresh entries in front, then bring everything to the global frame."""
        num_fresh = len(point)
        self.embedding = np.concatenate([embedding, self.embedding])
        self.point = np.concatenate([point, self.point])
        self.velocity = np.concatenate([velocity, self.velocity])
        self.time = np.concatenate([np.zeros(num_fresh), self.time])
        self.egopose = np.concatenate([np.tile(np.eye(4), (num_fresh, 1, 1)), self.egopose])
        self.point = transform_points(world_T_ref, self.point)
        self.time = self.time - time
        self.egopose = world_T_ref @ self.egopose


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return about_z @ about_y @ about_x


angles = st.tuples(st.floats(-3.2, 3.2), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
steps = st.tuples(*[st.floats(-15.0, 15.0)] * 3)
frames = st.lists(st.tuples(angles, steps, st.floats(0.05, 3.0), st.booleans()), min_size=1, max_size=8)
origins = st.tuples(*[st.floats(-1e6, 1e6)] * 3)


@settings(max_examples=60, deadline=None)
@given(frames, origins, st.floats(0, 2e9))
def test_memory_equals_the_published_global_bookkeeping(frames, origin, start_time):
    random = np.random.default_rng(0)
    ours = Memory.fresh(START_CENTRES, 1, LENGTH, CHANNELS)
    theirs = GlobalMemory.empty()
    position, time, previous = np.array(origin), start_time, None
    for index, (angle, step, dt, starts_scene) in enumerate(frames):
        position, time = position + step, time + dt
        world_T_ref = make_transform(rotation(*angle), position)
        is_first = index == 0 or starts_scene
        ref_T_prev = np.eye(4) if previous is None else invert_transform(world_T_ref) @ previous
        fresh = Memory.fresh(START_CENTRES, 1, LENGTH, CHANNELS)
        carried = ours.advance(torch.from_numpy(ref_T_prev).float()[None], torch.tensor([dt]))
        ours = fresh.where(torch.tensor([is_first]), carried)
        theirs.pre_update(invert_transform(world_T_ref), time, not is_first)
        assert_same(ours, theirs)

        embedding, point, velocity, known = (random.normal(size=(ADMITTED, size)) for size in (CHANNELS, 3, 2, 0))
        point *= 30
        tensors = (torch.from_numpy(value).float()[None] for value in (embedding, point, velocity, known))
        ours = ours.admit(*tensors)
        theirs.post_update(world_T_ref, time, embedding, point, velocity)
        previous = world_T_ref


def assert_same(ours: Memory, theirs: GlobalMemory) -> None:
    pairs = {
        "embedding": (ours.embedding_BMC[0], theirs.embedding, 1e-6),
        "centre": (ours.centre_BM3[0], theirs.point, 1e-3),
        "velocity": (ours.velocity_BM2[0], theirs.velocity, 1e-6),
        "age": (ours.age_BM1[0, :, 0], theirs.time, 1e-5),
        "pose": (ours.ref_T_obs_BM44[0], theirs.egopose, 1e-3),
    }
    for name, (our, their, tolerance) in pairs.items():
        np.testing.assert_allclose(our.numpy(), their, rtol=1e-6, atol=tolerance, err_msg=name)


def test_the_oldest_entries_are_forgotten_first():
    memory = Memory.fresh(START_CENTRES, 1, LENGTH, CHANNELS, num_known=5)
    for number in range(1, 5):
        value = torch.full((1, ADMITTED, 1), float(number))
        memory = memory.admit(*(value.expand(-1, -1, size) for size in (CHANNELS, 3, 2, 5)))
    for field in (memory.embedding_BMC, memory.known_BMV):
        assert field[0, :, 0].tolist() == [4, 4, 4, 3, 3, 3, 2]


def test_each_batch_element_moves_on_its_own():
    memory = Memory.fresh(START_CENTRES, 2, LENGTH, CHANNELS)
    shift = torch.eye(4).repeat(2, 1, 1)
    shift[1, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    moved = memory.advance(shift, torch.tensor([0.5, 2.0]))
    assert torch.equal(moved.centre_BM3[0], memory.centre_BM3[0])
    assert torch.equal(moved.centre_BM3[1], memory.centre_BM3[1] + torch.tensor([1.0, 2.0, 3.0]))
    assert moved.age_BM1[:, 0, 0].tolist() == [0.5, 2.0]


@pytest.mark.parametrize("rate", [2, 3, 4, 6, 7, 10, 12, 15, 20, 30])
@pytest.mark.parametrize("jitter", [0.0, 0.01])
def test_entries_come_as_far_apart_as_trained_however_fast_frames_come(rate: float, jitter: float):
    times = np.arange(0, 30, 1 / rate)
    times += np.random.default_rng(rate).uniform(-jitter, jitter, len(times))
    entered = [times[0]]
    for before, now in zip(times, times[1:], strict=False):
        if is_due(now - entered[-1], now - before, 0.5):
            entered.append(now)
    gaps = np.diff(entered)
    late = 0.0 if 0.5 * rate % 1 == 0 and not jitter else 1 / rate  # where none comes in time, the next is taken
    assert gaps.min() >= 0.45 and gaps.max() <= 0.5 + late + 2 * jitter + 1e-9
