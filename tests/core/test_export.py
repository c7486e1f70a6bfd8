"""Exported engines: the golden sequences through ONNX files alone, layouts, int8, and the command."""

from argparse import ArgumentParser
from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

from streampetr_core.checkpoint import save_checkpoint
from streampetr_core.commands import export as command
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime import RuntimeOptions, TorchRuntime, open_runtime
from streampetr_core.runtime.export import export_geometry, export_head
from streampetr_core.runtime.onnx_export import export_encoder
from tests.core import golden
from tests.core.engines import checkpoint_of, lively_checkpoint, needs
from tests.core.models import lively_detector, make_frame, tiny_config

pytestmark = needs("onnx", "onnxscript", "onnxruntime")

SEQUENCE = golden.SEQUENCES["428q_small_seq"]
MEMORY = ("embedding", "centre", "velocity", "age", "ref_T_obs")
DOUBLE = 11  # ONNX's number of float64


def run_command(*argv):
    parser = ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args(list(map(str, argv))))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(lively_checkpoint(), path)
    return path


@pytest.fixture(scope="module")
def engines(weights, tmp_path_factory):
    """Return what the command writes for the tiny model, with int8 where NNCF is installed."""
    root, folder = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("engines")
    for camera in range(3):
        images = root / "samples" / f"CAM_{camera}"
        images.mkdir(parents=True)
        image = np.random.default_rng(camera).integers(0, 255, (9, 16, 3), np.uint8)
        cv2.imwrite(str(images / "image.jpg"), cv2.resize(image, (160, 90), interpolation=cv2.INTER_CUBIC))
    int8 = ("--int8", "--calibration", root, "--images", 3) if find_spec("nncf") else ()
    run_command(weights, "--out", folder, *int8)
    return folder


@pytest.fixture(scope="module")
def golden_engines(tmp_path_factory):
    """Return the deployment files of the golden weights, for the golden images' size."""
    detector = golden.golden_detector(SEQUENCE.layout)
    config = replace(detector.config, input_height=SEQUENCE.height, input_width=SEQUENCE.width)
    checkpoint = checkpoint_of(detector, config)
    folder = tmp_path_factory.mktemp("golden")
    export_encoder(checkpoint, folder)
    export_geometry(checkpoint, folder)
    export_head(checkpoint, folder, torch.float32)
    return folder


class Deployed:
    """Runs the exported files as a C++ program would: plain arrays, the memory handed back in every frame."""

    def __init__(self, folder):
        import onnxruntime

        self.encoder, self.geometry, self.head = (
            onnxruntime.InferenceSession(str(folder / f"{name}.onnx")) for name in ("encoder", "geometry", "head")
        )

    def step(self, frame, memory):
        """Return class logits, boxes and the next memory's arrays."""
        inverse = np.linalg.inv(frame.img_P_ref_BN44.double().numpy()).astype(np.float32)
        calibration = {"ref_P_img": inverse, "intrinsics": frame.intrinsics_BN33.float().numpy()}
        position, gamma, beta = self.geometry.run(None, calibration)
        (features,) = self.encoder.run(None, {"images": frame.images_BN3HW[0].numpy()})
        inputs = {
            **{"features": features, "position": position, "gamma": gamma, "beta": beta},
            **dict(zip(MEMORY, memory, strict=False)),
            "ref_T_prev": frame.ref_T_prev_B44.numpy(),
            "dt": frame.dt_B.float().numpy(),
            "is_first": frame.is_first_B.float().numpy(),
        }
        if any(node.name == "ref_P_img" for node in self.head.get_inputs()):
            inputs |= {"ref_P_img": inverse, "known": memory[-1]}
        logits, boxes, *after = self.head.run(None, inputs)
        return logits, boxes, after


def arrays(memory):
    """Return what a memory holds; that of a model without proposals knows nothing of objects beyond five tensors."""
    return [value.numpy() for value in vars(memory).values() if value.shape[-1]]


def forced_frames():
    """Yield the official frames whose official memory of the frame before is recorded in full: input, memory, truth."""
    frames = golden.official_frames(SEQUENCE.file, golden.COMMITTED)
    for previous, current in zip(frames, frames[1:], strict=False):
        if golden.holds_whole_memory(previous, golden.golden_detector(SEQUENCE.layout)):
            memory = golden.memory_from_official(previous, 512)
            yield golden.frame_from_official(current, previous, SEQUENCE), memory, current


def assert_golden(logits, boxes, official):
    for name, ours in (("all_cls_scores", logits), ("all_bbox_preds", boxes)):
        np.testing.assert_allclose(ours, official[name][-1], rtol=0, atol=golden.TOLERANCES[name], err_msg=name)


def test_the_golden_sequence_through_exported_files_is_that_of_the_official_code(golden_engines):
    deployed, count = Deployed(golden_engines), 0
    for frame, memory, official in forced_frames():
        logits, boxes, _ = deployed.step(frame, arrays(memory))
        assert_golden(logits, boxes, official)
        count += 1
    assert count >= 4


@pytest.fixture(scope="module")
def proposing(tmp_path_factory):
    """Return a checkpoint of a model with proposals, and the deployment files of it."""
    config = tiny_config(num_proposals=5)
    checkpoint, folder = checkpoint_of(lively_detector(config), config), tmp_path_factory.mktemp("proposing")
    export_encoder(checkpoint, folder)
    export_geometry(checkpoint, folder)
    export_head(checkpoint, folder, torch.float32)
    return checkpoint, folder


@pytest.mark.parametrize("cameras", [1, 3, 5])
def test_any_number_of_cameras_and_a_sequence_with_its_memory(engines, cameras):
    assert_same_sequence(lively_checkpoint(), engines, cameras)


@pytest.mark.parametrize("cameras", [1, 4])
def test_a_model_with_proposals_is_told_where_the_cameras_look(proposing, cameras):
    assert_same_sequence(*proposing, cameras)


def assert_same_sequence(checkpoint, folder, cameras):
    reference, deployed = TorchRuntime(checkpoint, "cpu"), Deployed(folder)
    motion = torch.eye(4)[None].clone()
    motion[0, :3, 3] = torch.tensor([0.3, -4.0, 0.1])
    memory = reference.fresh_memory()
    handed = [np.full_like(value, 7.0) for value in arrays(memory)]  # forgotten, since a scene begins
    for number in range(3):
        given = {"is_first_B": torch.tensor([number == 0]), "dt_B": torch.tensor([0.5]), "ref_T_prev_B44": motion}
        frame = make_frame(reference.config, cameras, seed=number, **given)
        logits, boxes, handed = deployed.step(frame, handed)
        predictions, memory = reference.step(frame, memory)
        np.testing.assert_allclose(logits, predictions.class_logits[-1], rtol=0, atol=3e-4)
        np.testing.assert_allclose(boxes, predictions.boxes[-1], rtol=0, atol=3e-4)
        for ours, expected in zip(handed, arrays(memory), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-4)
        given = map(torch.from_numpy, handed)
        memory = replace(memory, **dict(zip(vars(memory), given, strict=False)))


def test_names_and_free_sizes_are_those_of_the_documentation(engines):
    import onnx

    head = onnx.load(engines / "head.onnx").graph
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in [*head.input, *head.output]
    }
    memory = {"embedding": 32, "centre": 3, "velocity": 2, "age": 1}
    assert list(shapes) == [
        *("features", "position", "gamma", "beta", *MEMORY, "ref_T_prev", "dt", "is_first"),
        *("class_logits", "boxes", *(f"next_{name}" for name in MEMORY)),
    ]
    assert shapes["features"] == ["cameras", 32, 2, 4]
    assert shapes["position"] == [1, "8*cameras", 32]
    assert shapes["boxes"] == [1, 16, 10]
    for prefix in ("", "next_"):
        assert {name: shapes[prefix + name] for name in memory} == {k: [1, 15, size] for k, size in memory.items()}
        assert shapes[f"{prefix}ref_T_obs"] == [1, 15, 4, 4]


@pytest.mark.parametrize("name", ["encoder", "geometry", "head", "decoder"])
def test_nothing_inside_is_float64(engines, name):
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(engines / f"{name}.onnx")).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    assert len(values) > 5
    assert not [value.name for value in values if value.type.tensor_type.elem_type == DOUBLE]
    assert not [constant.name for constant in graph.initializer if constant.data_type == DOUBLE]


def test_half_precision_is_in_the_files_and_metres_stay_float32(tmp_path):
    import onnx
    import onnxruntime

    export_head(lively_checkpoint(), tmp_path, torch.float16)
    head = onnx.load(tmp_path / "head.onnx").graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*head.input, *head.output]}
    assert types.pop("features") == onnx.TensorProto.FLOAT16
    assert set(types.values()) == {onnx.TensorProto.FLOAT}
    detector, frame = lively_checkpoint().detector().requires_grad_(False), make_frame(lively_checkpoint().config)
    features, memory = detector.encode(frame.images_BN3HW)[0], detector.fresh_memory()
    given = [features.half(), *vars(detector.geometry(frame)).values()]
    given += [*map(torch.from_numpy, arrays(memory))]
    given += [frame.ref_T_prev_B44, frame.dt_B, frame.is_first_B.float()]
    session = onnxruntime.InferenceSession(str(tmp_path / "head.onnx"))
    inputs = {node.name: value.numpy() for node, value in zip(session.get_inputs(), given, strict=True)}
    error = np.abs(session.run(["boxes"], inputs)[0] - detector.step(frame, memory)[0].boxes[-1].numpy()).max()
    assert 1e-5 < error < 0.2


@needs("nncf", "openvino")
def test_an_int8_encoder_stays_near_and_runs_in_both_runtimes(engines):
    size = [(engines / f"{name}.onnx").stat().st_size for name in ("encoder", "encoder_int8")]
    assert size[1] < 0.3 * size[0]
    frame = make_frame(lively_checkpoint().config)
    images = (frame.images_BN3HW[0] * 50 + 128).clamp(0, 255)  # grey levels, as in calibration
    expected = lively_checkpoint().detector().encode(images[None])[0].detach()
    for backend in ("openvino", "onnxruntime"):
        runtime = open_runtime(lively_checkpoint(), RuntimeOptions(backend, "int8", "cpu", engines))
        encoded = runtime.engine.encode(images)
        error = (encoded - expected).norm() / expected.norm()
        assert 1e-4 < error < 0.2


def test_bad_usage_is_named(weights, tmp_path):
    for argv, message in (
        (("--int8",), "--int8 and --calibration ROOT go together"),
        (("--calibration", tmp_path), "--int8 and --calibration ROOT go together"),
        (("--int8", "--calibration", tmp_path, "--precision", "fp16"), "--int8 goes with --precision fp32"),
        (("--int8", "--calibration", tmp_path, "--images", 0), "--images must be 1 or more"),
    ):
        with pytest.raises(StreampetrError, match=message):
            run_command(weights, "--out", tmp_path / "out", *argv)


@needs("nncf")
def test_a_folder_without_images_cannot_calibrate(weights, tmp_path):
    with pytest.raises(StreampetrError, match="no images .* to calibrate with"):
        run_command(weights, "--out", tmp_path / "out", "--int8", "--calibration", tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(StreampetrError, match=r"broken.jpg: a damaged image"):
        run_command(weights, "--out", tmp_path / "out", "--int8", "--calibration", tmp_path)
