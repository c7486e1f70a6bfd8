"""The demo as a user runs it: processes, DDS, a picture at the end."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

KEYFRAME = Path(__file__).parents[2].parent / "shared" / "nuscenes_keyframe"


def _demo(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "streampetr_core.cli", "demo", "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def _check_picture(path: Path) -> None:
    picture = cv2.imread(str(path))
    assert picture.shape[1] == 3 * 640 and picture.shape[0] > 2 * 300
    assert all(tile.std() > 5 for row in (picture[40:380], picture[400:]) for tile in (row[:, :640], row[:, -640:]))


def test_a_synthetic_scene_runs_through_bag_node_and_picture(tmp_path: Path):
    result = _demo(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    sets = int(re.search(r"cam_front (\d+),", result.stdout)[1])
    assert sets > 20  # six samples at 2 Hz with sweeps at 12 Hz
    assert f"received on /streampetr/detections: {sets} messages in 'base_link'" in result.stdout
    assert f"{sets} sets published; dropped sets: none; dropped images: none" in result.stderr
    assert "context is invalid" not in result.stderr  # the node stops in order
    _check_picture(tmp_path / "picture.png")


@pytest.mark.skipif(not KEYFRAME.is_dir(), reason="the real nuScenes keyframe is not on this machine")
def test_the_real_keyframe_runs_through_bag_node_and_picture(tmp_path: Path):
    result = _demo(tmp_path, "--dataroot", str(KEYFRAME))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "images: 6 of 6 cameras, keyframes: 1, boxes: 68" in result.stdout
    assert "1 messages in 'base_link'" in result.stdout
    _check_picture(tmp_path / "picture.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataroot", "."], "no nuScenes tables (no folder with scene.json); give the folder above v1.0-*"),
        (["--dataroot", "/nowhere"], "/nowhere: no nuScenes tables"),
    ],
)
def test_a_root_without_tables_is_said(tmp_path: Path, arguments: list[str], said: str):
    result = _demo(tmp_path, *arguments)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("streampetr demo: error: ") and said in line
