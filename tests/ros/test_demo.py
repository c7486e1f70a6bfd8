"""The demo as a user runs it: processes, DDS, a picture and a video at the end."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from streampetr_ros.commands.bag import RERUN_INSTALL

ROOT = Path(__file__).parents[2]
LEAST_MAP = 0.17  # of a single scene; chance has 0.00
KEYFRAME = ROOT.parent / "shared" / "nuscenes_keyframe"


def _demo(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "streampetr_core.cli", "demo", "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def _check_picture(path: Path) -> None:
    picture = cv2.imread(str(path))
    assert picture.shape == (34 + 2 * 270, 3 * 480 + 540, 3)
    assert all(tile.std() > 5 for row in (picture[60:280], picture[330:]) for tile in (row[:, :480], row[:, 960:1440]))


def _check_video(path: Path, pictures: int) -> None:
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == pictures


def test_a_synthetic_scene_runs_through_bag_node_and_video(tmp_path: Path):
    result = _demo(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    sets = 115  # twenty samples at 2 Hz with sweeps at 12 Hz
    assert f"\n{sets} sets of detections; age of output" in result.stdout
    for topic in ("detections", "detections/points", "tracks", "objects"):
        assert f"  /streampetr/{topic}: {sets}\n" in result.stdout
    assert f"{sets} sets published; dropped sets: none; dropped images: none" in result.stderr
    assert "context is invalid" not in result.stderr  # the node stops in order
    values = {name: float(value) for name, value in re.findall(r"(mAP|NDS) (0\.\d+)", result.stdout)}
    assert values["mAP"] > LEAST_MAP and "AMOTA" in result.stdout, result.stdout
    _check_picture(tmp_path / "picture.png")
    _check_video(tmp_path / "video.mp4", sets)


@pytest.mark.skipif(not KEYFRAME.is_dir(), reason="the real nuScenes keyframe is not on this machine")
def test_the_real_keyframe_runs_through_bag_node_and_picture(tmp_path: Path):
    result = _demo(tmp_path, "--dataroot", str(KEYFRAME))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "images: 6 of 6 cameras, keyframes: 1, boxes: 68" in result.stdout
    assert "\n1 sets of detections" in result.stdout
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


def test_a_viewer_that_is_missing_is_said_before_anything_is_done(tmp_path: Path):
    environment = os.environ | {"PATH": str(tmp_path)}
    command = [sys.executable, "-m", "streampetr_core.cli", "demo", "--out", str(tmp_path / "out"), "--rviz"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert result.returncode == 1 and not (tmp_path / "out").exists()
    said = "no rviz2 on the PATH; source a ROS 2 distribution that has it, or use --rerun"
    assert result.stderr == f"streampetr demo: error: --rviz: {said}\n"


def test_the_pip_command_for_rerun_is_that_of_the_extra():
    extra = (ROOT / "pyproject.toml").read_text().split("\nviz = [")[1].split("]")[0]
    words = shlex.split(RERUN_INSTALL)
    assert words[:2] == ["pip", "install"] and sorted(words[2:]) == re.findall('"(.+?)"', extra)
