"""The command `streampetr train`, as a person calls it."""

import argparse
import json

import pytest
import torch

from streampetr_core.errors import StreampetrError
from tests.training import tiny_set
from training.commands import train as command
from training.fabric import make_fabric


def call(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(word) for word in words]))


def test_a_dry_run_tells_schedule_memory_and_time_and_writes_nothing(tiny_root, tmp_path, capsys):
    path = tiny_set.write_recipe(tiny_root, tmp_path / "mine.yaml")
    call(path, "--accelerator", "cpu", "--out", tmp_path / "run", "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    told = {line[:16].strip(): line[16:] for line in lines}
    assert told["epochs"] == "4 of 5 steps: 20 steps, 80 samples seen"
    assert told["global batch"] == "4 = 1 ranks x 1 micro-batches x 4 samples"
    assert told["learning rate"].startswith("0.0001")
    assert int(told["peak memory"].split()[0]) > 50
    assert "waiting for data" in told["step"] and "an epoch" in told["time"]
    assert not (tmp_path / "run").exists()


def test_a_run_leaves_weights_log_and_its_complete_recipe(tiny_root, tmp_path, capsys):
    path = tiny_set.write_recipe(tiny_root, tmp_path / "mine.yaml")
    call(path, "--accelerator", "cpu", "--out", tmp_path / "run", "--set", "schedule.epochs=1")
    assert "latest.safetensors is a native weights file" in capsys.readouterr().out
    assert len([json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]) == 5
    # The written recipe is a recipe: it can be trained again.
    call(tmp_path / "run" / "recipe.yaml", "--accelerator", "cpu", "--out", tmp_path / "again", "--dry-run")
    assert "1 of 5 steps: 5 steps" in capsys.readouterr().out


def test_shipped_recipes_name_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StreampetrError, match=r"data/nuscenes: no such folder; say where.*--set data\.dataroot"):
        call("mini_one_gpu", "--accelerator", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_devices_that_do_not_exist_are_named():
    with pytest.raises(StreampetrError, match="fp16 needs a GPU"):
        make_fabric("fp16", accelerator="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(StreampetrError, match="no CUDA GPU"):
            make_fabric("fp32", accelerator="cuda")


def test_launchers_say_how_many_processes_there_are(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "8")
    from training.fabric import launched_layout

    assert launched_layout(0, 1, available=1) == (2, 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert launched_layout(0, 1, available=3) == (3, 1)
    monkeypatch.setenv("SLURM_NTASKS", "16")
    monkeypatch.setenv("SLURM_NNODES", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert launched_layout(0, 1, available=1) == (8, 2)
