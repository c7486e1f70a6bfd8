"""The runtime: devices, and the same step as the detector's."""

import pytest
import torch

from streampetr_core.checkpoint import untrained_checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime import TorchRuntime
from tests.core.models import make_frame, tiny_config

CHECKPOINT = untrained_checkpoint(tiny_config())


def test_the_runtime_steps_as_the_detector_does():
    runtime, detector = TorchRuntime(CHECKPOINT, "cpu"), CHECKPOINT.detector()
    frame = make_frame(runtime.config)
    ours, memory = runtime.step(frame, runtime.fresh_memory())
    expected, expected_memory = detector.step(frame, detector.fresh_memory())
    torch.testing.assert_close(ours.boxes, expected.boxes)
    torch.testing.assert_close(memory.embedding_BMC, expected_memory.embedding_BMC)
    assert not ours.boxes.requires_grad


def test_automatic_choice_takes_the_gpu_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert TorchRuntime(CHECKPOINT).device.type == expected


def test_an_unknown_device_is_named():
    with pytest.raises(StreampetrError, match="device 'gpu' is none that PyTorch knows; use auto, cpu or cuda:0"):
        TorchRuntime(CHECKPOINT, "gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(StreampetrError, match="device 'cuda:0' was asked for, but PyTorch finds no CUDA GPU"):
        TorchRuntime(CHECKPOINT, "cuda:0")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_gives_the_results_of_the_cpu():
    frame = make_frame(CHECKPOINT.config)
    on_gpu, on_cpu = (TorchRuntime(CHECKPOINT, device) for device in ("cuda", "cpu"))
    ours, _ = on_gpu.step(frame, on_gpu.fresh_memory())
    expected, _ = on_cpu.step(frame, on_cpu.fresh_memory())
    torch.testing.assert_close(ours.boxes.cpu(), expected.boxes, rtol=0, atol=1e-2)
