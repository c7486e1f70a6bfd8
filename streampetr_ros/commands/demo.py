"""See it work: a bag is made, played to a live node over DDS, and a picture of what came out is written.

With --dataroot the scene is real (any nuScenes-format root); without, a synthetic world is made first. Each step is a
command of its own, printed as it runs, so that you can run it yourself. Without --model the weights are untrained: all
parts run for real, but the boxes mean nothing.

Example:
  streampetr demo --dataroot data/nuscenes --scene scene-0103 --model weights/r50.safetensors
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import contextmanager
from pathlib import Path

from streampetr_core.errors import StreampetrError

_CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")
_UNTRAINED_CONFIG = "small_352_256q"
_UNTRAINED_NOTE = "UNTRAINED WEIGHTS: the coloured boxes mean nothing."
_UNTRAINED_BOXES = 12  # all scores are alike, so a few boxes are enough to see that they arrive
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--dataroot", type=Path, help="a nuScenes-format root (default: make a synthetic world)")
    parser.add_argument("--version", help="version folder of the root (default: the only one)")
    parser.add_argument("--scene", help="scene to play (default: the first)")
    parser.add_argument("--model", type=Path, help="model file (default: untrained weights of the small model)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of results (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, help="playing speed (default: %(default)s)")


def run(args: Namespace) -> None:
    """Run the commands one after the other and say where the picture is."""
    args.out.mkdir(parents=True, exist_ok=True)
    # The demo is for this machine alone, unless the user's environment says otherwise.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    dataroot = args.dataroot or _synthetic_world(args.out)
    version, scene = _choose_scene(dataroot, args.version, args.scene)
    bag, picture = args.out / "bag", args.out / "picture.png"
    _run("bag", "from-nuscenes", dataroot, bag, "--version", version, "--scene", scene, "--force")
    model = args.model or _untrained_model(args.out)
    picture_options = [] if args.model else ["--note", _UNTRAINED_NOTE, "--max-boxes", _UNTRAINED_BOXES]
    parameters = {"model": model.resolve(), "autostart": "true", "realtime": "false", "reliability": "reliable"}
    if not args.model:
        parameters["score_threshold"] = 0.0
    overrides = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    node_command = [_executable("streampetr_node"), "--ros-args", *overrides]
    listener_command = [*_streampetr("snapshot"), picture, "--wait", _READY_SECONDS, *picture_options]
    with _background(node_command) as node, _background(listener_command) as listener:
        # Node and listener must both be there before the first message, or they would miss it.
        waiting = ["--subscribers", 2, "--wait-for-subscribers", "/tf", "/tf_static", *_camera_topics()]
        _run("bag", "play", bag, "--rate", args.rate, *waiting)
        if listener.wait() != 0:
            raise StreampetrError("nothing could be drawn; the messages above say why")
        if node.poll() is not None:
            raise StreampetrError(f"the node ended by itself (exit code {node.returncode}); its messages are above")
    print(f"\nLook at {picture}. The bag {bag} also plays in `ros2 bag play`.")


def _synthetic_world(out: Path) -> Path:
    world = out / "world"
    _run("synth", world, "--scenes", 1, "--samples", 6, "--size", "800x450", "--sweeps")
    return world


def _untrained_model(out: Path) -> Path:
    model = out / "untrained.safetensors"
    _run("init", _UNTRAINED_CONFIG, model)
    return model


def _choose_scene(dataroot: Path, version: str | None, scene: str | None) -> tuple[str, str]:
    """Return version and scene; the converter checks what the user named, so only defaults are looked up here."""
    versions = sorted(path.parent.name for path in dataroot.glob("*/scene.json"))
    if not versions:
        raise StreampetrError(
            f"{dataroot}: no nuScenes tables (no folder with scene.json); give the folder above v1.0-*"
        )
    if version is None and len(versions) > 1:
        raise StreampetrError(f"{dataroot} holds {', '.join(versions)}; choose one with --version")
    version = version or versions[0]
    if scene is None:
        try:
            scene = json.loads((dataroot / version / "scene.json").read_text(encoding="utf-8"))[0]["name"]
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise StreampetrError(f"{dataroot / version / 'scene.json'}: holds no scene ({error})") from error
    return version, scene


def _camera_topics() -> list[str]:
    return [f"/{camera}/{topic}" for camera in _CAMERAS for topic in ("image_raw/compressed", "camera_info")]


def _streampetr(name: str) -> list[str]:
    return [sys.executable, "-m", "streampetr_core.cli", name]


def _executable(name: str) -> str:
    """Return a program that was installed beside this interpreter, or one on the PATH (a ROS workspace)."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def _run(name: str, *arguments: object) -> None:
    """Run a subcommand in a process of its own; raises StreampetrError if it fails."""
    command = [*_streampetr(name), *map(str, arguments)]
    _show(command)
    if subprocess.run(command, check=False).returncode != 0:
        raise StreampetrError(f"`streampetr {name}` failed; its message is above")


@contextmanager
def _background(command: list):
    """Run a program beside this one; interrupt it at the end."""
    command = [str(word) for word in command]
    _show(command)
    # A session of its own, so that ctrl-c in the terminal reaches it once, through us.
    try:
        process = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        raise StreampetrError(f"{command[0]} cannot be started: {error}; install the package first") from error
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen) -> None:
    for way in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(way)
        deadline = time.monotonic() + _STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


def _show(command: list[str]) -> None:
    words = command[3:] if command[1:3] == ["-m", "streampetr_core.cli"] else [Path(command[0]).name, *command[1:]]
    program = "streampetr " if command[1:3] == ["-m", "streampetr_core.cli"] else ""
    print(f"\n$ {program}{shlex.join(words)}", flush=True)
