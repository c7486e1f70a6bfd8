"""What the live node publishes of a played scene is what `streampetr test` finds in its files."""

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from streampetr_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from streampetr_core.geometry import invert_transform
from streampetr_core.runtime import REFERENCE, RuntimeOptions, TorchRuntime
from streampetr_ros.bag.from_nuscenes import BAG_VERSION, write_bag
from streampetr_ros.bag.nuscenes_scene import open_root, read_scene
from streampetr_ros.bag.published import read_published
from streampetr_ros.bag.to_results import Results, to_results
from streampetr_ros.bag.types import type_store
from streampetr_ros.perception import CameraView, Perception, ResetPolicy, Snapshot
from tests.core.models import lively_detector, tiny_config
from tests.ros.replay import through_the_node
from training.data.images import read_image
from training.data.infos import CAMERAS, Keyframe
from training.data.source import open_split
from training.evaluation.inference import InferenceConfig, infer
from training.evaluation.results import frame_results
from training.synth import WorldOptions, write_world

SAMPLES = 8  # of six images, sets are made without a camera that never sent one
ON_CPU = RuntimeOptions(REFERENCE, device="cpu")
WORLD = WorldOptions(scenes=1, val_scenes=1, samples=SAMPLES, seed=3, width=160, height=90)
MODEL = tiny_config(
    num_learned=40,
    num_propagated=16,
    num_admitted=16,
    memory_length=48,
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("replay") / "world"
    write_world(root, WORLD)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lively.safetensors"
    state = {k: v for k, v in lively_detector(MODEL).state_dict().items() if not k.endswith("num_batches_tracked")}
    save_checkpoint(Checkpoint(MODEL, state, "none", "made for a test"), path)
    return path


@pytest.fixture(scope="module")
def bag(root: Path, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "scene"
    write_bag(read_scene(open_root(root), "scene-0001", sweeps=False), path)
    return path


def offline(root: Path, checkpoint: Path, **options) -> dict:
    infos, _ = open_split(root)
    output = infer(infos, root, InferenceConfig(checkpoint, runtime=ON_CPU, **options))
    pairs = zip(infos, output.frames, strict=True)
    return {key.token: frame_results(frame.detections, key, MODEL.class_names) for key, frame in pairs}


def live(root: Path, checkpoint: Path, bag: Path, out: Path, **parameters) -> Results:
    recorded = through_the_node(bag, out, SAMPLES, model=str(checkpoint), **parameters)
    return to_results([read_published(recorded)], open_root(root), tolerance_ns=0)


def headings(entries: list[dict]) -> np.ndarray:
    quaternions = np.array([entry["rotation"] for entry in entries]).reshape(-1, 4)[:, [1, 2, 3, 0]]
    return Rotation.from_quat(quaternions).apply([1.0, 0.0, 0.0])[:, :2]


def assert_same(ours: dict, expected: dict) -> None:
    assert ours.keys() == expected.keys() and len(ours) == SAMPLES
    for token, entries in expected.items():
        assert len(entries) > 50
        assert [entry["detection_name"] for entry in ours[token]] == [entry["detection_name"] for entry in entries]
        for key, tolerance in (("translation", 1e-3), ("size", 1e-3), ("velocity", 1e-3), ("detection_score", 1e-4)):
            a, b = (np.array([entry[key] for entry in each]) for each in (ours[token], entries))
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=f"{token} {key}")
        np.testing.assert_allclose(headings(ours[token]), headings(entries), atol=1e-3)


def test_the_node_publishes_what_the_evaluation_finds(root: Path, checkpoint: Path, bag: Path, tmp_path: Path):
    expected = offline(root, checkpoint)
    scores = np.array([entry["detection_score"] for entries in expected.values() for entry in entries])
    assert scores.std() > 0.01
    ours = live(root, checkpoint, bag, tmp_path / "exact", resize="exact")
    assert ours.silent == 0
    assert_same(ours.detections, expected)


def test_with_a_dead_camera_the_node_goes_on_and_finds_what_the_evaluation_finds(
    root: Path, checkpoint: Path, bag: Path, tmp_path: Path
):
    silent = without(bag, "/cam_back/image_raw/compressed", tmp_path / "silent")
    ours = live(root, checkpoint, silent, tmp_path / "live", min_cameras=5)
    assert ours.silent == 0
    assert_same(ours.detections, offline(root, checkpoint, pixels="fast", dropped_cameras=("CAM_BACK",)))


def without(bag: Path, topic: str, path: Path) -> Path:
    """Write a copy of a bag without a topic."""
    store = type_store()
    with Reader(bag) as reader, Writer(path, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        kept = [connection for connection in reader.connections if connection.topic != topic]
        copies = {
            each.topic: writer.add_connection(
                each.topic, each.msgtype, typestore=store, offered_qos_profiles=each.ext.offered_qos_profiles
            )
            for each in kept
        }
        for connection, stamp_ns, data in reader.messages(kept):
            writer.write(copies[connection.topic], stamp_ns, data)
    return path


def test_the_reference_is_equal_bit_by_bit(root: Path, checkpoint: Path):
    infos, _ = open_split(root)
    expected = infer(infos, root, InferenceConfig(checkpoint, runtime=ON_CPU))
    perception = Perception(TorchRuntime(load_checkpoint(checkpoint), "cpu"), ResetPolicy(2.0, 80.0), resize="exact")
    for keyframe, frame in zip(infos, expected.frames, strict=True):
        found = perception.process(snapshot_of(keyframe, root, (), True)).detections
        for name, value in vars(frame.detections).items():
            assert np.array_equal(getattr(found, name), value), name


@pytest.mark.parametrize(
    ("missing", "is_known"), [(("CAM_BACK",), False), (("CAM_FRONT", "CAM_BACK_LEFT"), True), (CAMERAS[1:4], True)]
)
def test_without_some_cameras_the_node_sees_what_the_evaluation_sees(
    root: Path, checkpoint: Path, missing: tuple[str, ...], is_known: bool
):
    """A camera whose calibration came is left out at once; one that breaks down is known from before."""
    infos, _ = open_split(root)
    expected = infer(infos, root, InferenceConfig(checkpoint, pixels="fast", runtime=ON_CPU, dropped_cameras=missing))
    perception = Perception(TorchRuntime(load_checkpoint(checkpoint), "cpu"), ResetPolicy(2.0, 80.0))
    if not is_known:  # seen once, long before
        perception.process(snapshot_of(infos[0], root, (), is_known, time=-100.0))
    for keyframe, frame in zip(infos, expected.frames, strict=True):
        found = perception.process(snapshot_of(keyframe, root, missing, is_known)).detections
        np.testing.assert_allclose(found.scores_D, frame.detections.scores_D, atol=1e-4)
        np.testing.assert_allclose(found.boxes_D7[:, :6], frame.detections.boxes_D7[:, :6], atol=1e-3)


def snapshot_of(
    keyframe: Keyframe, root: Path, missing: tuple[str, ...], is_known: bool, time: float = 0.0
) -> Snapshot:
    views = []
    for channel, camera in zip(CAMERAS, keyframe.cameras, strict=True):
        view = CameraView(read_image(root / camera.path), camera.intrinsics, invert_transform(camera.ref_T_cam))
        views.append(view if channel not in missing else view.lens if is_known else None)
    return Snapshot(keyframe.timestamp / 1e6 + time, views, keyframe.world_T_ref)
