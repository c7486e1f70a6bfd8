"""Model cards, of weights as training leaves them and of others."""

import json
import re

import pytest

from streampetr_core.checkpoint import load_checkpoint, save_checkpoint, untrained_checkpoint
from streampetr_core.errors import StreampetrError
from tests.core.models import tiny_config
from tests.training import golden, tiny_set
from training.card import training_seconds
from training.commands import card as command
from training.dry_run import duration
from training.evaluation.results import evaluation_config
from training.fabric import make_fabric
from training.loop import train


@pytest.fixture(scope="module")
def run(tiny_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("card") / "run"
    recipe = tiny_set.recipe(tiny_root, schedule={"epochs": 3}, training={"seed": 11, "validate_every_epochs": 1})
    train(recipe, make_fabric("fp32", accelerator="cpu"), out, stop_after=14)
    return out


def rows_of(card):
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", card, re.MULTILINE))


def test_weights_know_the_run_that_they_come_from(run):
    for name, step in (("latest", 14), ("best", None)):
        training = load_checkpoint(run / f"{name}.safetensors").training
        assert training["step"] == step or step is None
        assert (training["steps"], training["steps_per_epoch"], training["num_samples"]) == (15, 5, 20)
        assert tiny_set.recipe_from_dict(training["recipe"], "weights").training.seed == 11
        assert training["hardware"].startswith("1 x CPU (")
        assert "PyTorch" in training["software"]
        assert re.fullmatch(r"([0-9a-f]{40}( with changes)?)?", training["commit"])


def test_a_card_tells_training_loss_and_metrics(run, tmp_path, capsys):
    (tmp_path / "detection.json").write_text(json.dumps(detection_summary()))
    golden.run_command(
        command, run / "latest.safetensors", "--run", run, "--metrics", tmp_path / "detection.json",
        "--out", tmp_path / "CARD.md",
    )  # fmt: skip
    assert "CARD.md and" in capsys.readouterr().out
    card = (tmp_path / "CARD.md").read_text()
    rows = rows_of(card)
    assert rows["recipe"] == "tiny" and rows["seed"] == "11"
    assert rows["length"] == "14 of 15 steps, 2.8 of 3 epochs"
    assert rows["data"] == "train.npz; 20 samples"
    assert rows["licence"] == load_checkpoint(run / "latest.safetensors").licence
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert rows["time"] == f"{duration(training_seconds(lines))} of steps"
    assert f"| 1 | 0.2 | {lines[0]['loss']:.4g} | - |" in card and f"| 14 | 2.8 | {lines[-1]['loss']:.4g} | - |" in card
    assert card.count("| - | ") == len([line for line in lines if "val_loss" in line]) == 2
    assert "![loss over steps](CARD_loss.png)" in card
    assert (tmp_path / "CARD_loss.png").stat().st_size > 1000
    assert "v1.0-synth synth_val: " in card and "mAP 0.2500  NDS 0.3500" in card


def test_a_card_tells_of_every_run_that_led_to_the_weights(run, tmp_path):
    golden.run_command(command, run / "latest.safetensors", "--run", run, run, "--out", tmp_path / "CARD.md")
    card = (tmp_path / "CARD.md").read_text()
    for number in (1, 2):
        assert f"## Training, run {number} of 2\n" in card and f"## Loss, run {number} of 2\n" in card
        assert f"![loss over steps](CARD_loss_{number}.png)" in card
        assert (tmp_path / f"CARD_loss_{number}.png").stat().st_size > 1000
    assert card.count("| hardware | ") == 2


def detection_summary():
    names = evaluation_config().class_names
    errors = dict.fromkeys(("trans_err", "scale_err", "orient_err", "vel_err", "attr_err"), 0.5)
    return {
        "mean_dist_aps": dict.fromkeys(names, 0.25),
        "label_tp_errors": dict.fromkeys(names, errors),
        "tp_errors": errors,
        "mean_ap": 0.25,
        "nd_score": 0.35,
        "data": {"version": "v1.0-synth", "split": "synth_val"},
    }


def test_time_is_that_of_the_steps():
    log = [{"step": 9, "step_time": 36.0}, {"step": 9, "val_loss": 1.0}, {"step": 29, "step_time": 18.0}]
    assert training_seconds(log) == pytest.approx(720)


def test_weights_without_a_run_have_a_card_too(tmp_path):
    save_checkpoint(untrained_checkpoint(tiny_config(), 3), tmp_path / "w.safetensors")
    golden.run_command(command, tmp_path / "w.safetensors")
    card = (tmp_path / "w.md").read_text()
    assert rows_of(card)["source"] == "untrained, seed 3"
    assert "## Training" not in card and "## Loss" not in card


def test_files_of_another_kind_are_named(run, tmp_path):
    weights = run / "latest.safetensors"
    with pytest.raises(StreampetrError, match=r"log\.jsonl: cannot be read as a log"):
        golden.run_command(command, weights, "--run", tmp_path)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(StreampetrError, match=r"other\.json: has neither nd_score nor amota"):
        golden.run_command(command, weights, "--metrics", tmp_path / "other.json")
    (tmp_path / "other.json").write_text('{"nd_score": 1}')
    with pytest.raises(StreampetrError, match=r"other\.json: lacks 'mean_dist_aps'; evaluate again"):
        golden.run_command(command, weights, "--metrics", tmp_path / "other.json", "--out", tmp_path / "x.md")
    with pytest.raises(StreampetrError, match="--out .*cannot be written"):
        golden.run_command(command, weights, "--out", "/dev/null/card.md")
