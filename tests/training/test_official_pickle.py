"""Official info files: what is in them comes out as the official data set gives it, and nothing in them is executed."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from streampetr_core.config import load_config
from streampetr_core.errors import StreampetrError
from tests.training import golden
from training.data.augment import no_augmentation
from training.data.dataset import make_sample, training_boxes
from training.data.infos_file import load_infos, save_infos
from training.data.safe_pickle import load_plain_pickle

DATASET = golden.load_json("dataset")
ARRAYS = golden.load_arrays("dataset")
MODEL = load_config("r50_704_428q")
ARRAY_KEYS = ("gt_boxes", "gt_names", "gt_velocity", "num_lidar_pts", "num_radar_pts", "valid_flag")


def official_infos():
    """The golden infos with arrays where the official converter writes arrays."""
    infos = []
    for info in DATASET["infos_in_file_order"]:
        info = dict(info)
        info["gt_velocity"] = np.array(info["gt_velocity"], dtype=float).reshape(-1, 2)
        for key in ARRAY_KEYS:
            info[key] = np.array(info[key])
        for key, shape in {"bboxes2d": (-1, 4), "centers2d": (-1, 2), "depths": (-1,)}.items():
            info[key] = [np.array(value, np.float32).reshape(shape) for value in info[key]]
        info["labels2d"] = [np.array(value, np.int64) for value in info["labels2d"]]
        info["cams"] = {name: camera | {"data_path": f"./data/nuscenes/{camera['data_path']}"}
                        | {key: np.array(camera[key]) for key in ("sensor2lidar_rotation", "sensor2lidar_translation")}
                        for name, camera in info["cams"].items()}  # fmt: skip
        infos.append(info)
    return {"infos": infos, "metadata": {"version": "v1.0-trainval"}}


def write(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.fixture(scope="module")
def infos(tmp_path_factory):
    return load_infos(write(tmp_path_factory.mktemp("pkl") / "nuscenes2d_temporal_infos_train.pkl", official_infos()))


def test_keyframes_come_in_the_official_order(infos):
    assert list(infos.tokens) == DATASET["splits"]["1"]["tokens"]
    assert (infos.header.version, infos.header.split, infos.header.annotated) == ("v1.0-trainval", "train", True)
    flag = DATASET["splits"]["1"]["flag"]
    assert infos.columns["starts_sequence"].tolist() == [i == 0 or flag[i] != flag[i - 1] for i in range(12)]


@pytest.mark.parametrize("expected", DATASET["samples"], ids=lambda sample: sample["token"])
def test_samples_are_the_official_ones(infos, expected):
    index, prefix = expected["index"], f"sample{expected['index']}"
    keyframe = infos[index]
    assert (keyframe.token, keyframe.timestamp / 1e6) == (expected["token"], expected["timestamp"])
    assert [camera.timestamp / 1e6 for camera in keyframe.cameras] == expected["img_timestamp"]
    np.testing.assert_allclose(keyframe.world_T_ref, ARRAYS[f"{prefix}_ego_pose"], rtol=3e-7, atol=3e-6)
    np.testing.assert_allclose(
        [camera.intrinsics for camera in keyframe.cameras], ARRAYS[f"{prefix}_intrinsics"][:, :3, :3]
    )
    # The official matrices went through float32.
    cam_T_ref = [np.linalg.inv(camera.ref_T_cam) for camera in keyframe.cameras]
    np.testing.assert_allclose(cam_T_ref, ARRAYS[f"{prefix}_extrinsics"], atol=1e-6)
    augmentation = no_augmentation(1600, 900, MODEL)
    sample = make_sample(keyframe, torch.zeros(6, 1, 1, 3, dtype=torch.uint8), augmentation, is_first=False)
    input_T_source = np.eye(4)
    input_T_source[:3, :3] = augmentation.image.input_T_source
    official = input_T_source @ ARRAYS[f"{prefix}_lidar2img"]
    np.testing.assert_allclose(sample.img_P_ref_N44, official, rtol=1e-6, atol=2e-3)


@pytest.mark.parametrize("expected", DATASET["samples"], ids=lambda sample: sample["token"])
def test_boxes_are_the_official_ones(infos, expected):
    prefix = f"sample{expected['index']}"
    keyframe = infos[expected["index"]]
    everywhere = MODEL.to_dict() | {"detection_range": (-1e9, -1e9, -5.0, 1e9, 1e9, 3.0)}
    boxes, labels = training_boxes(keyframe.objects, type(MODEL)(**everywhere))
    assert [MODEL.class_names[label] for label in labels] == expected["gt_names"]
    np.testing.assert_array_equal(labels, ARRAYS[f"{prefix}_gt_labels_3d"])
    np.testing.assert_allclose(boxes[:, :3], ARRAYS[f"{prefix}_gravity_center"], rtol=1e-6, atol=1e-6)
    official = golden.gravity_boxes(ARRAYS[f"{prefix}_gt_bboxes_3d"])
    # Official code brings yaw to -pi .. pi later, when it filters by range.
    official[:, 6] = np.arctan2(np.sin(official[:, 6]), np.cos(official[:, 6]))
    np.testing.assert_allclose(boxes, official, rtol=1e-6, atol=1e-6)
    assert np.isfinite(boxes).all()


def test_saving_loses_nothing(infos, tmp_path):
    path = tmp_path / "sub" / "infos.npz"
    save_infos(infos, path)
    again = load_infos(path)
    assert again.header == infos.header
    assert again.columns.keys() == infos.columns.keys()
    for name, values in infos.columns.items():
        np.testing.assert_array_equal(again.columns[name], values, err_msg=name)
        assert again.columns[name].dtype == values.dtype
    assert [path.name for path in path.parent.iterdir()] == ["infos.npz"]


def test_image_paths_start_at_the_data_root(infos):
    assert infos.image_paths()[:2] == ["samples/CAM_FRONT/A0.jpg", "samples/CAM_FRONT_RIGHT/A0.jpg"]


PLAIN = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float32),
    "names": np.array(["car", "bus"]),
    "flags": np.array([True, False]),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12).reshape(3, 4)[:, ::2],
    "big_endian": np.arange(3, dtype=">i4"),
    "zero_dimensional": np.array(5),
    "scalar": np.float64(3.5),
    "flag": np.bool_(True),
    "text": np.str_("abc"),
    "bytes": b"\xff\x00",
    "containers": [{1, 2}, frozenset([1]), (1, None, True), bytearray(b"x"), 1 + 2j, {"a": 2**80}],
}


def use_numpy_2_names(monkeypatch):
    """Let pickles of this test name NumPy's functions as NumPy 2 does."""
    for function in (np.core.multiarray._reconstruct, np.core.multiarray.scalar, np.core.numeric._frombuffer):
        monkeypatch.setattr(function, "__module__", function.__module__.replace("numpy.core", "numpy._core"))
    for name in ("", ".multiarray", ".numeric"):
        module = __import__(f"numpy.core{name}", fromlist=["core"])
        monkeypatch.setitem(__import__("sys").modules, f"numpy._core{name}", module)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy_major", [1, 2])
def test_every_protocol_is_read_without_loss(tmp_path, monkeypatch, protocol, numpy_major):
    if numpy_major == 2:
        use_numpy_2_names(monkeypatch)
    path = write(tmp_path / "plain.pkl", PLAIN, protocol)
    assert (b"numpy._core" in path.read_bytes()) == (numpy_major == 2)
    content = load_plain_pickle(path)
    assert content.keys() == PLAIN.keys()
    for name, value in PLAIN.items():
        if isinstance(value, np.ndarray):
            array = np.asarray(content[name])
            assert array.dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            np.testing.assert_array_equal(array, value)
        else:
            assert content[name] == value
            assert type(content[name]) is type(value)


def test_arrays_of_objects_hold_what_they_held(tmp_path):
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(2), np.ones(3)]
    content = load_plain_pickle(write(tmp_path / "ragged.pkl", ragged))
    assert [np.asarray(item).tolist() for item in content] == [[0, 0], [1, 1, 1]]


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def exploits(marker):
    """Pickles that would leave a file behind, or change this reader, if anything in them were executed."""
    touch = f"touch {marker}"
    builder_state = b"cnumpy\ndtype\n(N(dV_function\ncnumpy\nndarray\nstb."
    return {
        "system": pickle.dumps(Calls(os.system, touch)),
        "system, old protocol": pickle.dumps(Calls(os.system, touch), protocol=0),
        "eval": pickle.dumps(Calls(eval, f"open({str(marker)!r}, 'w')")),
        "getattr": pickle.dumps(Calls(getattr, "text", "upper")),
        "in an array": pickle.dumps({"infos": np.array([Calls(os.system, touch)], dtype=object)}),
        "a numpy function": pickle.dumps(Calls(np.fromfile, str(marker))),
        "a class": pickle.dumps(Calls(type(marker), str(marker))),
        "instance opcode": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "persistent id": b"Pwhatever\n.",
        "extension": b"\x80\x02\x82\x01.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x12core.multiarray.np\x93.",
        "changes a builder": builder_state,
    }


@pytest.mark.parametrize("name", exploits("x"))
def test_nothing_is_executed(tmp_path, name):
    marker = tmp_path / "executed"
    path = tmp_path / "nuscenes2d_temporal_infos_train.pkl"
    path.write_bytes(exploits(marker)[name])
    with pytest.raises(StreampetrError, match=r"infos_train\.pkl: (not read, nothing in it was executed|a damaged)"):
        load_infos(path)
    assert not marker.exists()
    # The reader itself is as before.
    assert np.asarray(load_plain_pickle(write(path, np.arange(3)))).tolist() == [0, 1, 2]


def test_the_error_names_what_was_asked_for(tmp_path):
    path = write(tmp_path / "evil.pkl", Calls(os.system, "true"))
    with pytest.raises(StreampetrError, match=r"it asks for (posix|os)\.system"):
        load_plain_pickle(path)


@pytest.mark.parametrize("state", ["records", "short", "negative"])
def test_arrays_that_lie_about_themselves_are_refused(tmp_path, state):
    arrays = {
        "records": pickle.dumps(np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])),
        "short": pickle.dumps(np.arange(4, dtype=np.int32), protocol=2).replace(b"K\x04\x85", b"K\x7f\x85"),
        "negative": pickle.dumps(np.arange(4, dtype=np.int32), protocol=2).replace(
            b"K\x04\x85", b"J" + struct.pack("<i", -9) + b"\x85"
        ),
    }
    path = tmp_path / "array.pkl"
    path.write_bytes(arrays[state])
    with pytest.raises(StreampetrError, match="array.pkl"):
        load_plain_pickle(path)


def spoilt(change):
    content = official_infos()
    change(content)
    return content


def two_cars_where_one_is(content):
    info = content["infos"][2]
    info["gt_names"] = np.array(["car"] * len(info["gt_names"]))
    info["labels2d"][0], info["bboxes2d"][0] = np.array([3]), np.zeros((1, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("infos"), "holds no 'infos'"),
        (lambda content: content["infos"][2].pop("cams"), r"infos\[2\] lacks 'cams'"),
        (lambda content: content["infos"][0]["cams"].pop("CAM_BACK"), r"infos\[0\] lacks 'CAM_BACK'"),
        (lambda content: content["infos"][1].update(gt_boxes=np.zeros((2, 8))), r"infos\[1\] is not as the official"),
        (two_cars_where_one_is, r"infos\[2\]: its 2D boxes are numbered in another class order.*1 times 'bus'"),
    ],
)
def test_bad_content_is_named(tmp_path, change, message):
    path = write(tmp_path / "nuscenes2d_temporal_infos_val.pkl", spoilt(change))
    with pytest.raises(StreampetrError, match=rf"infos_val\.pkl.*{message}"):
        load_infos(path)


def test_a_damaged_pickle_is_named(tmp_path):
    path = write(tmp_path / "half.pkl", official_infos())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(StreampetrError, match="half.pkl"):
        load_infos(path)
