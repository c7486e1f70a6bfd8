"""See it work: a bag is made, played to a live node over DDS, and a video of what came out is written.

With --dataroot the scene is real (any nuScenes-format root); without, a synthetic world is made first. Each step is a
command of its own, printed as it runs, so that you can run it yourself. At the end stand a picture, a video and, where
the truth is known, mAP, NDS and AMOTA of what the node published.

--rerun also leaves a recording for the rerun viewer, and opens it where there is a display; --rviz opens RViz of a ROS
distribution while the bag plays.

Example:
  streampetr demo --dataroot data/nuscenes --scene scene-0103 --model weights/r50.safetensors
"""

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from streampetr_core.errors import StreampetrError
from streampetr_ros.commands.bag import RERUN_INSTALL

_CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")
_WEIGHTS = "weights/demo.safetensors"
_SAMPLES = 20  # of the synthetic scene, 2 a second
_RECORDED = 5  # topics that `streampetr bag record` takes by itself
_READY_SECONDS = 60.0
_IDLE_SECONDS = 4.0
_STOP_SECONDS = 10.0
_SETTLING_SECONDS = 0.5  # for what is announced to be known everywhere


@dataclass(frozen=True)
class _Scene:
    dataroot: Path
    version: str
    name: str


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--dataroot", type=Path, help="a nuScenes-format root (default: make a synthetic world)")
    parser.add_argument("--version", help="version folder of the root (default: the only one)")
    parser.add_argument("--scene", help="scene to play (default: the first)")
    parser.add_argument("--model", type=Path, help=f"model file (default: {_WEIGHTS} of this package)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of results (default: %(default)s)")
    parser.add_argument("--rerun", action="store_true", help="also show the scene in the rerun viewer")
    parser.add_argument("--rviz", action="store_true", help="show markers in RViz while the bag plays")
    parser.add_argument("--rate", type=float, default=0.33, help="playing speed (default: %(default)s)")


def run(args: Namespace) -> None:
    """Run the commands one after the other and say what they left."""
    _check_viewers(args)
    args.out.mkdir(parents=True, exist_ok=True)
    # The demo is for this machine alone, unless the user's environment says otherwise.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    model = args.model or _shared_file(_WEIGHTS)
    if model is None:
        raise StreampetrError(f"{_WEIGHTS} is missing from this installation; install it anew, or give --model")
    dataroot = args.dataroot or _synthetic_world(args.out)
    scene = _Scene(dataroot, *_choose_scene(dataroot, args.version, args.scene))
    bag, recorded = args.out / "bag", args.out / "published"
    _run("bag", "from-nuscenes", dataroot, bag, "--version", scene.version, "--scene", scene.name, "--force")
    with _rviz() if args.rviz else nullcontext():
        _play_to_node(bag, recorded, model, args.rate)
    out = args.out
    with _beside("bag", "video", bag, recorded, "--picture", out / "picture.png", "--video", out / "video.mp4"):
        _judge(scene, recorded, out / "results")
    if args.rerun:
        _run("bag", "rerun", bag, recorded, "--out", out / "scene.rrd", "--show")
    print(f"\nLook at {out}/picture.png and {out}/video.mp4. The bag {bag} also plays in `ros2 bag play`.")


def _check_viewers(args: Namespace) -> None:
    """Raise StreampetrError, before anything is done, for a viewer that is not there."""
    if args.rerun and find_spec("rerun") is None:
        raise StreampetrError(f"--rerun: the rerun viewer is not installed; {RERUN_INSTALL}")
    if args.rviz and shutil.which("rviz2") is None:
        raise StreampetrError("--rviz: no rviz2 on the PATH; source a ROS 2 distribution that has it, or use --rerun")


def _rviz() -> AbstractContextManager:
    """Return RViz, started with the display configuration of this package."""
    return _background(["rviz2", "-d", _shared_file("launch/streampetr.rviz")])


def _play_to_node(bag: Path, recorded: Path, model: Path, rate: float) -> None:
    """Run node, recorder and player as processes of their own, and watch them until nothing comes any more."""
    parameters = {
        "model": model.resolve(),
        "autostart": "true",
        "realtime": "false",
        "transform_wait": 5.0,
        "reliability": "reliable",
        "reference_topic": "/lidar_top/stamp",
        "score_threshold": 0.0,
        "runtime": "auto",
    }
    overrides = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    node_command = [_executable("streampetr_node"), "--ros-args", *overrides]
    recorder_command = [*_streampetr("bag"), "record", recorded, "--force"]
    # All must be there before the first message, or they would miss it; calibrations are heard by node and watch.
    calibrations = [f"/{camera}/camera_info" for camera in _CAMERAS]
    waiting = ["--wait-for-subscribers", "/tf", "/tf_static", "/lidar_top/stamp", *_camera_topics(), *calibrations]
    player_command = [*_streampetr("bag"), "play", bag, "--rate", rate, "--delay", _SETTLING_SECONDS, *waiting]
    with _background(recorder_command, stderr=subprocess.PIPE) as recorder, _background(node_command) as node:
        _wait_until_recording(recorder, node)
        with _background(player_command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as player:
            _run("watch", "--wait", _READY_SECONDS, "--idle", _IDLE_SECONDS)
            if player.wait() != 0:
                raise StreampetrError(f"the bag could not be played; `streampetr bag play {bag}` says why")
        if node.poll() is not None:
            raise StreampetrError(f"the node ended by itself (exit code {node.returncode}); its messages are above")


def _wait_until_recording(recorder: subprocess.Popen, node: subprocess.Popen) -> None:
    """Wait until the recorder has found all that the node publishes."""
    said, deadline = b"", time.monotonic() + _READY_SECONDS
    while said.count(b"recording ") < _RECORDED:
        if node.poll() is not None or recorder.poll() is not None or time.monotonic() > deadline:
            said += recorder.stderr.read() if recorder.poll() is not None else b""
            raise StreampetrError(f"the node did not get ready; the messages above say why {said.decode()}".rstrip())
        if select.select([recorder.stderr], [], [], 0.1)[0]:
            said += os.read(recorder.stderr.fileno(), 65536)


def _judge(scene: _Scene, recorded: Path, out: Path) -> None:
    """Print mAP, NDS and AMOTA of what was published, where there are annotations of a whole split to judge by."""
    tables = ["--dataroot", scene.dataroot, "--version", scene.version]
    _run("bag", "to-results", recorded, *tables, "--out", out)
    try:
        _run("score", out / "results_nusc.json", out / "tracking_result.json", *tables)
    except StreampetrError:
        print("No metrics of this scene; the message above says why.")


def _synthetic_world(out: Path) -> Path:
    world = out / "world"
    _run("synth", world, "--scenes", 1, "--val-scenes", 1, "--samples", _SAMPLES, "--size", "800x450", "--sweeps")
    return world


def _shared_file(name: str) -> Path | None:
    """Return a file of this package: in the tree, in a workspace's share folder, or in the environment's."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    shares = [prefix / "share" / "streampetr_ros" for prefix in (*prefixes, Path(sys.prefix))]
    found = (folder / name for folder in (Path(__file__).parents[2], *shares))
    return next((path for path in found if path.is_file()), None)


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
def _beside(name: str, *arguments: object) -> Iterator[None]:
    """Run a subcommand, silent unless it fails, beside what is done meanwhile; raises StreampetrError if it fails."""
    with tempfile.TemporaryFile() as said:
        with _background([*_streampetr(name), *arguments], stdout=said, stderr=subprocess.STDOUT) as process:
            yield
            failed = process.wait() != 0
        if failed:
            said.seek(0)
            raise StreampetrError(f"`streampetr {name}` failed:\n{said.read().decode(errors='replace').rstrip()}")


@contextmanager
def _background(command: list, **streams: object):
    """Run a program beside this one; interrupt it at the end."""
    command = [str(word) for word in command]
    _show(command)
    # A session of its own, so that ctrl-c in the terminal reaches it once, through us.
    try:
        process = subprocess.Popen(command, start_new_session=True, **streams)
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
