"""`streampetr bench`: what it reports; how fast things are is not tested."""

import json
from argparse import ArgumentParser

import pytest
import torch

from streampetr_core.benchmarks import timing
from streampetr_core.benchmarks.model import OFFICIAL
from streampetr_core.benchmarks.official_style import OfficialStyle
from streampetr_core.benchmarks.work import work_of_a_frame
from streampetr_core.checkpoint import save_checkpoint
from streampetr_core.commands import bench
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime import TorchRuntime
from tests.core.engines import lively_checkpoint
from tests.core.models import make_frame


def run_command(*argv):
    parser = ArgumentParser()
    bench.add_arguments(parser)
    bench.run(parser.parse_args(list(map(str, argv))))


@pytest.fixture
def weights(tmp_path):
    save_checkpoint(lively_checkpoint(), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_the_yardstick_gives_the_results_of_the_detector():
    checkpoint = lively_checkpoint()
    official, reference = OfficialStyle(checkpoint, torch.device("cpu")), TorchRuntime(checkpoint, "cpu")
    frame = make_frame(checkpoint.config)
    ours, _ = official.step(frame, official.fresh_memory())
    expected, _ = reference.step(frame, reference.fresh_memory())
    torch.testing.assert_close(ours.boxes, expected.boxes, rtol=0, atol=1e-4)
    assert ours.boxes.shape[0] == 2  # branches of all layers, as the official code computes them


def test_the_work_of_the_decoder_is_that_of_its_formulas():
    checkpoint = lively_checkpoint()
    config, frame = checkpoint.config, make_frame(checkpoint.config)
    height, width = config.feature_size
    tokens, channels = frame.images_BN3HW.shape[1] * height * width, config.channels
    queries = config.num_queries
    keys = queries + config.memory_length - config.num_propagated

    def attention(keys):
        projections = 2 * (2 * queries + 2 * keys) * channels**2
        return projections + 2 * 2 * queries * keys * channels

    feed_forward = 2 * 2 * queries * channels * config.ffn_channels
    of_tokens = 2 * 4 * tokens * channels**2  # two layers of content, two of the gate
    expected = config.num_layers * (attention(keys) + attention(tokens) + feed_forward) + of_tokens
    work = work_of_a_frame(checkpoint, frame)
    assert work.decoder_gflop == pytest.approx(expected / 1e9, rel=1e-9)


def test_variants_take_turns_and_warm_ups_are_not_counted():
    calls = []
    times = timing.time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_ups=2)
    assert calls == ["a", "b"] * 5
    assert len(times["a"].wall) == len(times["b"].cpu) == 3


def test_a_summary_tells_median_and_spread():
    summary = timing.Times(cpu=(1.0, 2.0, 9.0), wall=(4.0, 3.0, 5.0)).summary()
    assert (summary["cpu_ms"], summary["cpu_ms_min"], summary["cpu_ms_quartiles"]) == (2.0, 1.0, [1.5, 5.5])
    assert summary["wall_ms"] == 4.0


def test_the_report_holds_ratios_errors_and_what_could_not_run(weights, tmp_path, capsys):
    out = tmp_path / "report.json"
    variants = ("torch:fp32", "torch:bf16", "torch:fp16")
    run_command(weights, "--variants", *variants, "--device", "cpu", "--rounds", 1, "--batch", 2, "--json", out)
    report = json.loads(out.read_text())
    rows = report["model"]["variants"]
    assert list(rows) == [OFFICIAL, "torch:fp32", "torch:bf16"]
    assert rows[OFFICIAL]["cpu_ratio"] == rows[OFFICIAL]["wall_ratio"] == 1
    assert rows["torch:fp32"]["max_error_centre_m"] < 1e-3 < rows["torch:bf16"]["max_error_centre_m"]
    assert "slower than fp32 on a CPU" in report["model"]["could_not_run"]["torch:fp16"]
    assert report["model"]["gflop_official_style"] > 0
    images = report["images"]["variants"]
    assert images["exact"]["max_error_levels"] < 0.01 < images["fast"]["max_error_levels"] < 1.01
    assert report["machine"]["versions"]["torch"] and report["machine"]["threads"]
    printed = capsys.readouterr().out
    assert "official-style" in printed and "not run:" in printed


def test_a_calibration_that_moves_is_embedded_in_every_frame(weights, tmp_path):
    out = tmp_path / "report.json"
    run_command(
        weights,
        "--what",
        "model",
        "--variants",
        "torch:fp32",
        "--device",
        "cpu",
        "--rounds",
        1,
        "--moving",
        "--json",
        out,
    )
    assert json.loads(out.read_text())["model"]["calibration"] == "new in every frame"


@pytest.mark.parametrize("option", ["--rounds", "--batch", "--threads"])
def test_a_count_below_one_is_refused(weights, option):
    with pytest.raises(StreampetrError, match="must be 1 or more"):
        run_command(weights, option, 0)
