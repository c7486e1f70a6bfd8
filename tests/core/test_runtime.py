"""The runtime: every back-end does what the reference does, stage by stage and over a sequence; choice and errors."""

import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from streampetr_core.checkpoint import save_checkpoint, untrained_checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime import EngineRuntime, RuntimeOptions, TorchRuntime, open_runtime, selection
from streampetr_core.runtime.engine_files import MANIFEST, cached_engines, write_manifest
from streampetr_core.runtime.stages import decoder_arguments, folded_encoder
from tests.core.engines import checkpoint_of, lively_checkpoint, needs, variant
from tests.core.models import lively_detector, make_frame, tiny_config

CHECKPOINT = lively_checkpoint()
# Largest error of a stage as a part of its largest output. bf16 keeps eight bits of every product.
STAGE_TOLERANCE = {"fp32": 1e-5, "bf16": 0.1}
EXACT = [variant("torch", "fp32"), variant("openvino", "fp32"), variant("onnxruntime", "fp32")]
VARIANTS = [*EXACT, variant("torch", "bf16"), variant("openvino", "bf16")]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Keep what is converted out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMPETR_CACHE", str(folder))
        yield folder


def opened(backend, precision="fp32", checkpoint=CHECKPOINT, **options):
    try:
        return open_runtime(checkpoint, RuntimeOptions(backend, precision, "cpu", **options))
    except StreampetrError as error:
        if "this CPU has no instructions" in str(error):
            pytest.skip(str(error))
        raise


def scene(batch=1, **of_second):
    config = CHECKPOINT.config
    still = {"is_first_B": torch.zeros(batch, dtype=torch.bool), "dt_B": torch.full((batch,), 0.5)}
    return [make_frame(config, batch=batch), make_frame(config, batch=batch, seed=1, **still, **of_second)]


def repeated(memory, batch):
    return type(memory)(**{name: value.repeat(batch, *[1] * (value.dim() - 1)) for name, value in vars(memory).items()})


def played(runtime, frames):
    memory, results = repeated(runtime.fresh_memory(), len(frames[0].dt_B)), []
    for frame in frames:
        predictions, memory = runtime.step(frame, memory)
        results.append((predictions, memory))
    return results


def assert_same_results(ours, expected, tolerance=3e-4):
    for (predictions, memory), (expected_predictions, expected_memory) in zip(ours, expected, strict=True):
        assert predictions.boxes.shape[0] == 1  # the last layer's alone
        for name in ("class_logits", "boxes"):
            own, other = getattr(predictions, name)[-1], getattr(expected_predictions, name)[-1]
            torch.testing.assert_close(own, other, rtol=0, atol=tolerance)
        for name, value in vars(memory).items():
            rtol = 1e-5 if name == "known_BMV" else 0  # covariances are of any size
            torch.testing.assert_close(value, getattr(expected_memory, name), rtol=rtol, atol=tolerance, msg=name)


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_queries_that_know_their_place_are_the_same_everywhere(backend, precision):
    config = replace(CHECKPOINT.config, placed_queries=True)
    placed = checkpoint_of(lively_detector(config), config)
    expected = played(TorchRuntime(placed, "cpu"), scene())
    assert_same_results(played(opened(backend, precision, placed), scene()), expected)
    without = played(TorchRuntime(CHECKPOINT, "cpu"), scene())
    assert (without[0][0].boxes - expected[0][0].boxes).abs().max() > 1e-3


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_proposals_are_the_same_everywhere_also_where_cameras_are_missing(backend, precision):
    config = replace(CHECKPOINT.config, num_proposals=5)
    proposing = checkpoint_of(lively_detector(config), config)
    frames = scene(batch=2, present_BN=torch.tensor([[True, False, True], [True, True, True]]))
    frames[1].images_BN3HW[0, 1] = torch.nan
    expected = played(TorchRuntime(proposing, "cpu"), frames)
    assert_same_results(played(opened(backend, precision, proposing), frames), expected)
    assert_same_results(
        played(opened(backend, precision, proposing), scene()), played(TorchRuntime(proposing, "cpu"), scene())
    )


@pytest.mark.parametrize(("backend", "precision"), EXACT)
@pytest.mark.parametrize("num_proposals", [0, 5])
def test_one_runtime_serves_rigs_of_any_size(backend, precision, num_proposals):
    """Some engines compile for the sizes that they meet: each rig must get its own, and the first be served again."""
    config = replace(CHECKPOINT.config, num_proposals=num_proposals)
    checkpoint = checkpoint_of(lively_detector(config), config)
    runtime, reference = opened(backend, precision, checkpoint), TorchRuntime(checkpoint, "cpu")
    still = {"is_first_B": torch.zeros(1, dtype=torch.bool), "dt_B": torch.full((1,), 0.5)}
    for num_cameras in (3, 1, 4, 3):
        first = torch.arange(num_cameras)[None] < max(1, num_cameras - 1)
        frames = [make_frame(config, num_cameras), make_frame(config, num_cameras, seed=1, present_BN=first, **still)]
        frames[1].images_BN3HW[~first] = torch.nan
        frames.append(make_frame(config, num_cameras, seed=2, **still))
        assert_same_results(played(runtime, frames), played(reference, frames))


@torch.inference_mode()
@pytest.mark.parametrize(("backend", "precision"), VARIANTS)
def test_each_stage_is_that_of_the_detector(backend, precision):
    engine, detector = opened(backend, precision).engine, CHECKPOINT.detector()
    frame = make_frame(CHECKPOINT.config)
    features = detector.encode(frame.images_BN3HW)
    geometry, queries = detector.geometry(frame), detector.temporal(detector.fresh_memory())
    hidden = detector.decode(features, geometry, queries)[-1]
    encoded = engine.encode(frame.images_BN3HW[0])
    arguments = [x.to(engine.dtype) for x in decoder_arguments(features, geometry, queries)]
    typed = (
        type(geometry)(*arguments[1:4]),
        type(queries)(*arguments[4:6], queries.reference_BQ3, *arguments[6:], queries.prior_BQO),
    )
    decoded = engine.decode(arguments[0], *typed)
    for ours, expected in ((encoded, features[0]), (decoded, hidden)):
        error = (ours.float() - expected).abs().max() / expected.abs().max()
        assert error <= STAGE_TOLERANCE[precision]
    assert decoded.dtype == torch.float32


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_a_sequence_gives_the_results_of_the_reference(backend, precision):
    frames = scene()
    assert_same_results(played(opened(backend, precision), frames), played(TorchRuntime(CHECKPOINT, "cpu"), frames))


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_cameras_that_are_missing_are_left_out_scene_by_scene(backend, precision):
    frames = scene(batch=2, present_BN=torch.tensor([[True, False, True], [True, True, True]]))
    frames[1].images_BN3HW[0, 1] = torch.nan
    assert_same_results(played(opened(backend, precision), frames), played(TorchRuntime(CHECKPOINT, "cpu"), frames))


def test_a_calibration_that_changes_is_noticed_and_one_that_does_not_is_embedded_once():
    runtime, frames = opened("torch"), scene()
    shifted = frames[1].img_P_ref_BN44.clone()
    shifted[..., 0, 3] += 5.0
    moved = [frames[0], replace(frames[1], img_P_ref_BN44=shifted)]
    assert_same_results(played(runtime, moved), played(TorchRuntime(CHECKPOINT, "cpu"), moved))
    embedded = []
    runtime._detector.position.ray_encoder.register_forward_hook(lambda *_: embedded.append(1))
    played(runtime, [*frames, *frames])
    assert len(embedded) == 1


def test_a_kept_geometry_does_not_follow_a_tensor_that_is_written_again():
    runtime, frames = opened("torch"), scene()
    matrices = frames[0].img_P_ref_BN44.clone()
    frame = replace(frames[0], img_P_ref_BN44=matrices)
    played(runtime, [frame])
    matrices[..., 0, 3] += 5.0
    assert_same_results(played(runtime, [frame]), played(TorchRuntime(CHECKPOINT, "cpu"), [frame]))


@pytest.mark.parametrize("backbone", ["resnet50", "vovnet99"])
def test_batch_norm_folds_into_every_backbone(backbone):
    detector = lively_detector(tiny_config(backbone=backbone))
    folded = folded_encoder(detector)
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    images = make_frame(detector.config).images_BN3HW
    with torch.inference_mode():
        expected = detector.encode(images)[0]
        error = (folded(images[0].clone()) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


def test_the_images_are_not_written_to():
    frame = make_frame(CHECKPOINT.config)
    before = frame.images_BN3HW.clone()
    opened("torch").step(frame, opened("torch").fresh_memory())
    assert torch.equal(frame.images_BN3HW, before)


def test_the_reference_steps_as_the_detector_does():
    runtime, detector = TorchRuntime(CHECKPOINT, "cpu"), CHECKPOINT.detector()
    frame = make_frame(runtime.config)
    ours, memory = runtime.step(frame, runtime.fresh_memory())
    expected, expected_memory = detector.step(frame, detector.fresh_memory())
    torch.testing.assert_close(ours.boxes, expected.boxes)
    torch.testing.assert_close(memory.embedding_BMC, expected_memory.embedding_BMC)
    assert not ours.boxes.requires_grad


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_cameras_encoded_one_by_one_give_what_a_step_gives(backend, precision):
    """In any order, with a camera missing; the frame holds no images then."""
    frames = scene(batch=2, present_BN=torch.tensor([[True, False, True], [True, True, True]]))
    runtime = opened(backend, precision)
    memory, results = repeated(runtime.fresh_memory(), 2), []
    for frame in frames:
        present_BN = torch.ones(2, 3, dtype=torch.bool) if frame.present_BN is None else frame.present_BN
        images = frame.images_BN3HW[present_BN]
        features = {index: runtime.encode(images[index : index + 1]) for index in reversed(range(len(images)))}
        encoded = torch.cat([features[index] for index in range(len(images))])
        predictions, memory = runtime.detect(encoded, replace(frame, images_BN3HW=None), memory)
        results.append((predictions, memory))
    assert_same_results(results, played(TorchRuntime(CHECKPOINT, "cpu"), frames))


def test_the_reference_takes_encoded_cameras_too():
    frames = scene(batch=2, present_BN=torch.tensor([[True, False, True], [True, True, True]]))
    runtime = TorchRuntime(CHECKPOINT, "cpu")
    memory = repeated(runtime.fresh_memory(), 2)
    features = runtime.encode(frames[1].images_BN3HW[frames[1].present_BN])
    ours, memory_after = runtime.detect(features, replace(frames[1], images_BN3HW=None), memory)
    expected, expected_memory = runtime.step(frames[1], memory)
    torch.testing.assert_close(ours.boxes, expected.boxes, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.class_logits, expected.class_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(memory_after.centre_BM3, expected_memory.centre_BM3, rtol=0, atol=1e-3)


# ----------------------------------------------------------------------------------------------- choosing


@needs("openvino")
def test_automatic_choice_takes_openvino_on_a_cpu_and_says_why():
    assert opened("auto").description.startswith("OpenVINO fp32 on ")
    assert opened("auto").description.endswith("(auto: fastest on a CPU)")


def test_automatic_choice_takes_the_next_one_and_says_so(tmp_path, caplog):
    write_manifest(tmp_path, untrained_checkpoint(tiny_config(num_learned=13)), precision="fp32")
    with caplog.at_level(logging.WARNING):
        runtime = opened("auto", engines=tmp_path)
    assert runtime.description == "torch fp32 on cpu (auto: runs on every CPU of those that are left)"
    assert "auto: " in caplog.text and ("made from other weights" in caplog.text or "not installed" in caplog.text)


def test_where_nothing_is_left_all_reasons_are_given():
    with pytest.raises(StreampetrError, match="no runtime can run precision 'int8' here: .*; PyTorch runs fp32"):
        opened("auto", "int8")


def test_a_back_end_that_is_not_installed_names_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(StreampetrError, match=r"runtime 'openvino' is not installed .*pip install 'streampetr_ros\[r"):
        opened("openvino")
    assert opened("auto").description.startswith("torch fp32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RuntimeOptions("tensorflow"), "no runtime 'tensorflow'; there are auto, torch"),
        (RuntimeOptions("torch", "fp64"), "no precision 'fp64'; there are fp32"),
        (RuntimeOptions("torch", "fp16", "cpu"), "'fp16' is many times slower than fp32 on a CPU"),
        (RuntimeOptions("torch", "int8", "cpu"), "PyTorch runs fp32, bf16, fp16 here"),
        (RuntimeOptions("cuda_graph", "fp32", "cpu"), "needs an NVIDIA GPU, not 'cpu'; use runtime torch"),
        (RuntimeOptions("torch", device="gpu"), "device 'gpu' is none that PyTorch knows; use auto, cpu or cuda:0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(StreampetrError, match=message):
        open_runtime(CHECKPOINT, options)


class FailingEngine:
    """An engine on a GPU that is full, or that lacks a kernel."""

    description, device = "a small GPU", torch.device("cpu")
    dtype, arithmetic, encodes_singly = torch.float32, torch.float32, False
    temporal = None

    def __init__(self, error):
        self.error = error

    def encode(self, images_N3HW):
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.cuda.OutOfMemoryError("tried to allocate\nmuch"), r"a small GPU: not enough GPU memory \(tried to allo"),
        (RuntimeError("no kernel image"), r"a small GPU: cannot run here \(no kernel image\)"),
    ],
)
def test_a_gpu_that_cannot_run_the_model_is_found_out_at_once(error, message):
    with pytest.raises(StreampetrError, match=message):
        selection.try_out(EngineRuntime(CHECKPOINT, FailingEngine(error)))
    selection.try_out(opened("torch"))


def test_without_a_compiler_compiling_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(StreampetrError, match="needs a C\\+\\+ compiler, and there is no no-such-compiler"):
        opened("torch_compile")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(StreampetrError, match="device 'cuda:0' was asked for, but PyTorch finds no CUDA GPU"):
        TorchRuntime(CHECKPOINT, "cuda:0")


def test_back_ends_that_may_run_here_are_listed():
    assert "torch" in selection.installed_backends()
    assert ("cuda_graph" in selection.installed_backends()) == torch.cuda.is_available()


# ----------------------------------------------------------------------------------------------- engines in folders


@needs("openvino")
def test_a_converted_model_is_kept_and_taken_again(cache):
    opened("openvino")
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    opened("openvino", "fp32")
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    assert json.loads(next(cache.rglob(MANIFEST)).read_text())["model"] == "tiny"


def test_other_weights_another_configuration_and_another_tool_are_converted_anew():
    others = [
        checkpoint_of(lively_detector(CHECKPOINT.config, seed=1), CHECKPOINT.config),
        replace(CHECKPOINT, config=replace(CHECKPOINT.config, memory_interval=1.0)),
    ]
    built = []
    folders = [cached_engines(checkpoint, "tool-1", built.append) for checkpoint in (CHECKPOINT, *others, CHECKPOINT)]
    folders.append(cached_engines(CHECKPOINT, "tool-2", built.append))
    assert len(built) == 4
    assert len(set(folders)) == 4 and folders[0] == folders[3]


def test_a_conversion_that_fails_leaves_nothing_behind(cache):
    def fail(folder):
        (folder / "encoder.xml").write_text("half")
        raise StreampetrError("no")

    before = set(cache.iterdir())
    with pytest.raises(StreampetrError, match="no"):
        cached_engines(CHECKPOINT, "tool-3", fail)
    assert set(cache.iterdir()) == before


def engines_of(folder, **changes):
    """Write a folder that has nothing but a manifest, changed."""
    write_manifest(folder, CHECKPOINT, precision="fp32")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))
    return folder


@pytest.mark.parametrize("backend", [pytest.param(name, marks=needs(name)) for name in ("openvino", "onnxruntime")])
def test_engines_that_do_not_fit_are_refused(backend, tmp_path):
    def refusal(folder, precision="fp32"):
        with pytest.raises(StreampetrError) as caught:
            opened(backend, precision, engines=folder)
        return str(caught.value)

    assert "no engines here (manifest.json is missing)" in refusal(tmp_path)
    assert "made from other weights or another configuration" in refusal(engines_of(tmp_path, weights="0"))
    assert "exported in fp16, for deployment elsewhere" in refusal(engines_of(tmp_path, precision="fp16"))
    assert "not of format streampetr-engines-1" in refusal(engines_of(tmp_path, format="0"))
    assert "encoder.onnx: not among these engines" in refusal(engines_of(tmp_path))
    assert "run `streampetr export` with --int8 again" in refusal(engines_of(tmp_path), "int8")
    (tmp_path / "encoder.onnx").write_bytes(b"not a model")
    assert "encoder.onnx: " in refusal(tmp_path) and "cannot load it" in refusal(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    assert "manifest.json: damaged" in refusal(tmp_path)


def test_int8_without_calibrated_engines_names_the_remedy():
    for backend in ("openvino", "onnxruntime"):
        with pytest.raises(StreampetrError, match="is not installed|needs calibrated engines: `streampetr export"):
            opened(backend, "int8")


# ----------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("backend", ["torch", "cuda_graph"])
def test_the_gpu_gives_the_results_of_the_cpu(backend):
    frames = scene(present_BN=torch.tensor([[True, False, True]]))
    runtime = open_runtime(CHECKPOINT, RuntimeOptions(backend, "fp32", "cuda"))
    ours, expected = played(runtime, frames * 2), played(TorchRuntime(CHECKPOINT, "cpu"), frames * 2)
    for (predictions, _), (expected_predictions, _) in zip(ours, expected, strict=True):
        torch.testing.assert_close(predictions.boxes[-1].cpu(), expected_predictions.boxes[-1], rtol=0, atol=1e-2)


_SIGNAL_AFTER_ENGINES = """
import os, signal, sys
from streampetr_core.checkpoint import load_checkpoint
from streampetr_core.runtime import RuntimeOptions, open_runtime
checkpoint = load_checkpoint(sys.argv[1])
kept = [open_runtime(checkpoint, RuntimeOptions("openvino", "fp32")) for _ in range(2)]
kept.pop(0)
kept.pop(0)
signal.signal(signal.SIGUSR1, lambda *_: print("signal handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@needs("openvino")
def test_signals_are_handled_after_engines_have_come_and_gone(tmp_path):
    save_checkpoint(CHECKPOINT, tmp_path / "model.safetensors")
    command = [sys.executable, "-c", _SIGNAL_AFTER_ENGINES, str(tmp_path / "model.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "signal handled\n"), result.stderr
