"""Samples, windows and batches of the synthetic world and of one real keyframe."""

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from streampetr_core.config import load_config
from streampetr_core.detector import Detector
from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import box_corners
from streampetr_core.preprocess import normalise, plan_resize, resize_crop_exact
from tests.training import golden
from tests.training.worlds import SPLIT, VERSION, write_small_world
from training.data.augment import AugmentationConfig, no_augmentation
from training.data.batch import collate
from training.data.dataset import DataConfig, EvaluationData, TrainingData, make_truth, window_indices
from training.data.gridmask import grid_mask_array
from training.data.images import read_image
from training.data.infos import Infos
from training.data.infos_file import load_infos
from training.data.prepare import prepare
from training.data.sampler import Request

MODEL = load_config("small_352_256q")


@dataclasses.dataclass(frozen=True)
class World:
    root: Path
    infos: Infos

    def training(self, **options):
        return TrainingData(self.infos, self.root, MODEL, DataConfig(**options))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset") / "world"
    write_small_world(root, samples=4, width=400, height=225)
    (path,) = prepare(root, VERSION, root / "infos")
    return World(root, load_infos(path))


def tensors_of(value):
    """All tensors in a sample, a batch or a truth, by name."""
    if isinstance(value, torch.Tensor):
        yield "", value
    elif dataclasses.is_dataclass(value):
        for name, item in vars(value).items():
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in tensors_of(item))
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from ((f"{number}.{inner}", tensor) for inner, tensor in tensors_of(item))


def assert_same(first, second, same=True):
    pairs = list(zip(tensors_of(first), tensors_of(second), strict=True))
    equal = all(torch.equal(a, b) for (_, a), (_, b) in pairs)
    assert equal == same
    assert len(pairs) > 5


def test_a_request_decides_everything(world):
    data = world.training()
    assert_same(data[Request(2, (0, 5, 1))], data[Request(2, (0, 5, 1))])
    assert_same(data[Request(2, (0, 5, 1))], data[Request(2, (0, 6, 1))], same=False)


def test_test_samples_are_those_of_the_published_pipeline(world):
    (sample,) = EvaluationData(world.infos, world.root, MODEL)[0]
    keyframe = world.infos[0]
    plan = plan_resize(400, 225, MODEL)
    for image, camera in zip(sample.images_NHW3, keyframe.cameras, strict=True):
        source = cv2.imread(str(world.root / camera.path))
        np.testing.assert_array_equal(image, resize_crop_exact(source, plan))
    assert (sample.truth, sample.grid_mask, sample.token) == (None, None, keyframe.token)
    assert sample.time == pytest.approx(keyframe.timestamp / 1e6)
    np.testing.assert_array_equal(sample.world_T_ref_44, keyframe.world_T_ref)


def test_scenes_and_their_pieces_start_anew(world):
    starts = {}
    for pieces in (1, 2):
        data = world.training(sequence_pieces=pieces)
        starts[pieces] = [data[Request(index, (0,))][0].is_first for index in range(len(data))]
    assert starts == {1: [True, False, False, False] * 2, 2: [True, False] * 4}
    evaluation = EvaluationData(world.infos, world.root, MODEL, "fast")
    assert [evaluation[index][0].is_first for index in range(8)] == starts[1]


def test_windows_hold_frames_in_order_and_begin_anew_at_scenes(world):
    data = world.training(window=3, grid_mask_frames=1, grid_mask_probability=1.0)
    window = data[Request(5, (0,))]
    assert [sample.token for sample in window] == list(world.infos.tokens[3:6])
    assert [sample.is_first for sample in window] == [True, True, False]
    assert [sample.grid_mask is not None for sample in window] == [False, False, True]
    batches = collate([window, data[Request(7, (1,))]])
    tokens = world.infos.tokens
    assert [batch.tokens for batch in batches] == list(zip(tokens[3:6], tokens[5:8], strict=True))
    assert batches[2].is_first_B.tolist() == [False, False]


def test_windows_leave_frames_out_at_random_and_repeat_the_first():
    rng = np.random.RandomState(0)
    windows = [window_indices(rng, 20, 4, 2) for _ in range(200)]
    assert all(window == sorted(set(window)) and window[-1] == 20 and len(window) == 4 for window in windows)
    assert {index for window in windows for index in window} == set(range(15, 21))
    assert window_indices(rng, 1, 4, 0) == [0, 0, 0, 1]
    assert window_indices(rng, 7, 1, 0) == [7]


def bounds_in_image(boxes_G9, img_P_ref):
    """Left, top, right, bottom of boxes in an image; NaN where one is not wholly in front of the camera."""
    corners = box_corners(boxes_G9[:, :7].numpy())
    pixels = np.concatenate([corners, np.ones_like(corners[..., :1])], axis=-1) @ img_P_ref.double().numpy().T
    pixels[(pixels[..., 2] < 0.5).any(axis=1)] = np.nan
    uv = pixels[..., :2] / pixels[..., 2:3]
    return np.hstack([uv.min(axis=1), uv.max(axis=1)])


def test_truth_of_a_mirrored_and_turned_frame_lies_on_its_2d_boxes(world):
    """2D boxes go another way than 3D boxes and the sample's matrices; both end at the same pixels."""
    data = world.training(augmentation=AugmentationConfig(scale_limits=(0.19, 0.275)))
    found = []
    for seed in range(6):
        (sample,) = data[Request(0, (seed,))]
        truth = sample.truth
        for camera, img_P_ref in zip(truth.cameras, sample.img_P_ref_N44, strict=True):
            bounds = bounds_in_image(truth.boxes_G9, img_P_ref)
            inside = ((bounds > 1) & (bounds < [351, 127, 351, 127])).all(axis=1)
            inside &= (bounds[:, 2:] - bounds[:, :2] > 4).all(axis=1)
            for box in bounds[inside]:
                found.append(np.abs(camera.boxes_G4.numpy() - box).max(axis=1, initial=0).min(initial=99) < 1.0)
    assert len(found) > 50
    assert np.mean(found) > 0.6  # the others are hidden, and have no 2D box


def test_only_boxes_that_can_be_learnt_are_kept(world):
    keyframe = world.infos[1]
    objects = dataclasses.replace(
        keyframe.objects,
        velocities_G2=np.full((len(keyframe.objects), 2), np.nan),
        valid_G=np.arange(len(keyframe.objects)) % 2 == 0,
    )
    augmentation = no_augmentation(400, 225, MODEL)
    truth = make_truth(dataclasses.replace(keyframe, objects=objects), augmentation, MODEL)
    centres = keyframe.objects.boxes_G7[::2, :2]
    assert len(truth.labels_G) == (np.abs(centres) < 51.2).all(axis=1).sum() > 0
    assert (truth.boxes_G9[:, 7:] == 0).all()
    only_cars = dataclasses.replace(MODEL, class_names=("car",))
    truth = make_truth(keyframe, augmentation, only_cars)
    assert set(truth.labels_G.tolist()) == {0}


def test_batches_become_frames(world):
    data = world.training(grid_mask_probability=1.0)
    (batch,) = collate([data[Request(index, (0, slot))] for slot, index in enumerate((1, 4))])
    frame = batch.frame(MODEL, None)
    assert frame.images_BN3HW.shape == (2, 6, 3, 128, 352)
    assert frame.is_first_B.tolist() == [True, True]
    for image, plain, mask in zip(frame.images_BN3HW, batch.images_BNHW3, batch.grid_masks, strict=True):
        kept = torch.from_numpy(grid_mask_array(mask, 128, 352))
        assert torch.equal(image, normalise(plain, MODEL) * kept)
    assert batch.grid_masks[0] != batch.grid_masks[1]
    predictions, _ = Detector(MODEL).eval().step(frame, Detector(MODEL).fresh_memory(2))
    assert torch.isfinite(predictions.boxes).all()


def test_motion_between_frames_is_that_of_the_changed_reference_frames(world):
    """A point that stands still is where the motion says, though both frames were turned, scaled and shifted."""
    config = AugmentationConfig(translation_std=(1.0, 1.0, 1.0))
    data = world.training(augmentation=config)
    before, now = (collate([data[Request(index, (0, index))], data[Request(4, (0, 9))]])[0] for index in (0, 1))
    frame = now.frame(MODEL, before.moment)
    assert frame.is_first_B.tolist() == [False, True]
    assert frame.dt_B.tolist() == pytest.approx([0.5, 0.0], abs=0.01)
    assert torch.equal(frame.ref_T_prev_B44[1], torch.eye(4))
    in_world = torch.tensor([3.0, 4.0, 1.0, 1.0], dtype=torch.float64)
    in_world[:3] += world.infos[0].world_T_base.matrix[:3, 3]
    then, there = (torch.linalg.inv(batch.world_T_ref_B44[0]) @ in_world for batch in (before, now))
    torch.testing.assert_close(frame.ref_T_prev_B44[0].double() @ then, there, atol=1e-4, rtol=1e-5)


def test_kilometres_and_unix_times_cost_no_precision(world):
    (batch,) = collate([EvaluationData(world.infos, world.root, MODEL)[1]])
    far = torch.eye(4, dtype=torch.float64)
    far[:3, 3] = torch.tensor([4e5, 5e6, 0.0])
    moved = far @ batch.world_T_ref_B44
    before = dataclasses.replace(batch, world_T_ref_B44=moved, time_B=batch.time_B - 0.5)
    moved_on = moved.clone()
    moved_on[:, :3, 3] += 0.001
    now = dataclasses.replace(batch, world_T_ref_B44=moved_on)
    frame = now.frame(MODEL, before.moment)
    assert frame.ref_T_prev_B44[0, :3, 3].norm() == pytest.approx(0.001 * 3**0.5, rel=1e-4)
    assert frame.dt_B.item() == pytest.approx(0.5, abs=1e-6)


def test_a_batch_moves_as_a_whole(world):
    (batch,) = collate([world.training()[Request(0, (0,))]])
    moved = batch.to("meta")
    assert {tensor.device.type for _, tensor in tensors_of(moved)} == {"meta"}
    assert len(list(tensors_of(moved))) == len(list(tensors_of(batch))) > 20


def test_data_loaders_and_worker_processes_give_the_same(world):
    data = world.training()
    requests = [[Request(index, (0, index, slot)) for slot in range(2)] for index in range(3)]
    loader = torch.utils.data.DataLoader(data, batch_sampler=requests, collate_fn=collate, num_workers=1)
    for (loaded,), batch in zip(loader, requests, strict=True):
        (own,) = collate([data[request] for request in batch])
        assert loaded.tokens == own.tokens
        assert_same(loaded, own)


def test_unchanged_frames_show_what_the_test_pipeline_shows(world):
    fixed = AugmentationConfig(scale_limits=(0.22, 0.22), flip=False)
    (ours,) = world.training(augmentation=fixed, pixels="exact")[Request(0, (0,))]
    (test,) = EvaluationData(world.infos, world.root, MODEL)[0]
    assert torch.equal(ours.images_NHW3, test.images_NHW3)
    assert torch.equal(ours.intrinsics_N33, test.intrinsics_N33)


@pytest.mark.skipif(not golden.KEYFRAME.is_dir(), reason="the real keyframe is not on this machine")
def test_the_real_keyframe_goes_through(tmp_path):
    (path,) = prepare(golden.KEYFRAME, "v1.0-mini", tmp_path)
    model = load_config("r50_704_428q")
    data = TrainingData(load_infos(path), golden.KEYFRAME, model, DataConfig())
    (sample,) = data[Request(0, (0,))]
    assert sample.images_NHW3.shape == (6, 256, 704, 3)
    assert sample.images_NHW3.float().std() > 30
    assert 40 <= len(sample.truth.labels_G) <= 68
    assert (sample.truth.boxes_G9[:, 7:] == 0).all()
    assert sum(len(camera.labels_G) for camera in sample.truth.cameras) > 30


@pytest.fixture
def copy(world, tmp_path):
    root = Path(shutil.copytree(world.root, tmp_path / "copy"))
    return World(root, world.infos)


def test_missing_images_are_named_before_training_starts(copy):
    paths = copy.infos.image_paths()
    for path in (paths[7], paths[9]):
        (copy.root / path).unlink()
    for start in (copy.training, lambda: EvaluationData(copy.infos, copy.root, MODEL)):
        with pytest.raises(
            StreampetrError, match=rf"{paths[7]}: no such image, and 1 more are missing; check dataroot"
        ):
            start()
    shutil.rmtree(copy.root / "samples")
    with pytest.raises(StreampetrError, match="and 47 more are missing"):
        copy.training()


@pytest.mark.parametrize("damage", ["cut off", "empty", "no image"])
def test_damaged_images_are_named(copy, damage):
    path = copy.root / copy.infos.image_paths()[0]
    content = path.read_bytes()
    path.write_bytes({"cut off": content[: len(content) // 2], "empty": b"", "no image": b"text" * 99}[damage])
    with pytest.raises(StreampetrError, match=rf"{path.name}: a damaged image \(\d+ bytes\); unpack or download"):
        copy.training()[Request(0, (0,))]


def test_padding_behind_a_jpeg_is_no_damage(copy):
    path = copy.root / copy.infos.image_paths()[0]
    before = read_image(path)
    path.write_bytes(path.read_bytes() + bytes(16))
    np.testing.assert_array_equal(read_image(path), before)


def test_images_of_another_size_are_named(copy):
    path = copy.root / copy.infos.image_paths()[2]
    cv2.imwrite(str(path), np.zeros((100, 200, 3), np.uint8))
    with pytest.raises(StreampetrError, match=rf"{path.name}: 200x100 pixels.*400x225"):
        copy.training()[Request(0, (0,))]


def test_data_that_cannot_be_trained_on_is_refused(world):
    unlabelled = Infos(dataclasses.replace(world.infos.header, annotated=False), world.infos.columns)
    with pytest.raises(StreampetrError, match=f"split '{SPLIT}' has no annotations"):
        TrainingData(unlabelled, world.root, MODEL, DataConfig())
    other = dataclasses.replace(MODEL, class_names=("car", "tram"))
    with pytest.raises(StreampetrError, match=r"classes tram are none of the info file's.*correct class_names"):
        TrainingData(world.infos, world.root, other, DataConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": "quick"}, "pixels must be exact or fast, not 'quick'"),
        ({"sequence_pieces": 0}, "sequence_pieces must be 'all' or at least 1"),
        ({"window": 0}, "window must be at least 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(StreampetrError, match=message):
        DataConfig(**options)
