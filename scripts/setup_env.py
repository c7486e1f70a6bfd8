"""Make `.venv` complete: the pinned packages, what a ROS distribution would supply, and this package in place.

Called by the Makefile before every target. A step that stands is skipped: each leaves a stamp in .venv that names the
content of its inputs. A .venv in which pip was interrupted is never trusted but made anew. Standard library only.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit(
        "set-up: Python 3.10, 3.11 or 3.12 is needed, this is {}.{}: apt-get install -y python3.11-venv, "
        "then make PYTHON=python3.11".format(*sys.version_info)
    )

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
UNFINISHED = STAMPS / "unfinished"
BUILD = ROOT / "build"
LOG = BUILD / "setup.log"
REQUIREMENTS = ROOT / "requirements"
OVERLAY = ROOT / "ros_overlay"
PACKAGE = "streampetr_ros"
COMPILED = ("vision_msgs", "tf2_msgs")
OVERLAY_PACKAGES = (*COMPILED, "tf2_ros")
DISTRIBUTION_PACKAGES = ("rclpy", "cv_bridge", *OVERLAY_PACKAGES)
PIP_REQUIREMENTS = ("base", "ros", "training", "runtime", "quantise", "dev")
EXECUTABLES = ("streampetr", "streampetr_node")
SHARED_FOLDERS = ("config", "launch", "weights")
# Puts .venv in front of AMENT_PREFIX_PATH; a .pth file takes one line.
AMENT_PREFIX_HOOK = (
    "import os, sys; os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join(dict.fromkeys("
    "[sys.prefix, *filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))]))\n"
)


class SetupError(Exception):
    """Set-up cannot go on; the message is one line that says why and what to do."""


def main() -> int:
    """Do every step whose inputs changed; returns the exit code."""
    BUILD.mkdir(exist_ok=True)
    try:
        with (BUILD / "setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            set_up(sourced=distribution_sourced())
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next run takes it up", file=sys.stderr)
        return 130
    return 0


def set_up(sourced: bool) -> None:
    """Bring .venv up to date; `sourced` tells that a ROS distribution supplies rclpy and the messages."""
    keys = step_keys(sourced)
    if UNFINISHED.exists() or not stands("venv", keys):
        shutil.rmtree(STAMPS, ignore_errors=True)
    todo = [step for step in keys if not stands(step, keys)]
    if not todo:
        return
    overlay = [name for name in OVERLAY_PACKAGES if name in todo]
    to_build = {name: wheel_folder(name, keys) for name in overlay if not wheel_folder(name, keys).is_dir()}
    check_machine(compiling=any(name in COMPILED for name in to_build))
    LOG.write_text("")
    progress = Progress(len([step for step in todo if step not in overlay]) + bool(overlay))
    if "venv" in todo:
        with progress.step("making .venv"):
            make_venv(sourced, keys)
    if "ros" in todo:
        with progress.step("installing ROS 2 (rclpy, Fast DDS) and the message compiler"), finished(["ros"], keys):
            pip_install(*requirement_arguments("packaging", "ros-distribution", "overlay-build"))
    # Compiling runs beside the next download.
    with building(to_build) as builds:
        if "packages" in todo:
            with progress.step("installing PyTorch, training and test packages"), finished(["packages"], keys):
                pip_install(*requirement_arguments("packaging", *PIP_REQUIREMENTS))
        if overlay:
            with progress.step(f"compiling {', '.join(overlay)}"):
                collect(builds, to_build)
                with finished(overlay, keys):
                    wheels = [str(wheel) for name in overlay for wheel in wheel_folder(name, keys).glob("*.whl")]
                    pip_install("--no-deps", "--force-reinstall", *wheels)
    if "package" in todo:
        with progress.step("installing this package"), finished(["package"], keys):
            pip_install("--no-deps", "--no-build-isolation", "--force-reinstall", "--editable", str(ROOT))
            make_ament_prefix()


def distribution_sourced() -> bool:
    """Tell whether a ROS distribution is sourced; raises SetupError naming the packages that it lacks."""
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    missing = [name for name in DISTRIBUTION_PACKAGES if PathFinder.find_spec(name, folders) is None]
    if "rclpy" in missing:
        return False
    if missing:
        distribution = os.environ.get("ROS_DISTRO", "$ROS_DISTRO")
        names = " ".join(f"ros-{distribution}-{name.replace('_', '-')}" for name in missing)
        raise SetupError(f"the sourced ROS distribution lacks {', '.join(missing)}: apt-get install -y {names}")
    return True


def step_keys(sourced: bool) -> dict[str, str]:
    """Return the steps in order, each with the digest of what it is made from."""

    def pins(*names: str) -> list[Path]:
        return [REQUIREMENTS / f"{name}.txt" for name in (*names, "packaging", "constraints")]

    keys = {"venv": digest([], sys.version, sys.base_prefix, str(VENV), str(sourced))}
    if not sourced:
        keys["ros"] = digest(pins("ros-distribution", "overlay-build"))
    keys["packages"] = digest(pins(*PIP_REQUIREMENTS))
    if not sourced:
        for name in OVERLAY_PACKAGES:
            keys[name] = digest(files_under(OVERLAY / name), keys["ros"], sys.version)
        shared = files_under(OVERLAY / "cmake")
        keys |= {name: digest(shared, keys[name]) for name in COMPILED}
    metadata = [ROOT / name for name in ("setup.py", "setup.cfg", "package.xml", "pyproject.toml")]
    keys["package"] = digest([*metadata, Path(__file__)])
    return keys


def files_under(folder: Path) -> list[Path]:
    """Return the source files of a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")


def digest(files: Iterable[Path], *words: str) -> str:
    """Return a digest of words and of the names and contents of files of this tree."""
    total = hashlib.sha256(repr(words).encode())
    for path in files:
        total.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def stands(step: str, keys: dict[str, str]) -> bool:
    """Tell whether the step was done with the inputs of now."""
    stamp = STAMPS / step
    return stamp.is_file() and stamp.read_text() == keys[step]


@contextmanager
def finished(steps: Iterable[str], keys: dict[str, str]) -> Iterator[None]:
    """Stamp the steps when the block ends well; while it runs .venv counts as unfinished, also after a kill."""
    UNFINISHED.touch()
    try:
        yield
    except SetupError:
        # pip itself gave up, and left .venv as it was.
        UNFINISHED.unlink()
        raise
    for step in steps:
        (STAMPS / step).write_text(keys[step])
    UNFINISHED.unlink()


class Progress:
    """Prints '[2/5] what is being done ... 34 s', one line a step."""

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce a step, and tell its seconds when it ends."""
        self._done += 1
        print(f"[{self._done}/{self._total}] {what} ... ", end="", flush=True)
        start = time.monotonic()
        try:
            yield
        except SetupError:
            print("failed")
            raise
        print(f"{time.monotonic() - start:.0f} s")


def check_machine(compiling: bool) -> None:
    """Raise SetupError with the apt command when the machine lacks a tool that the steps ahead need."""
    lacking = {}
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        lacking["venv"] = "python3-venv"
    if compiling:
        if shutil.which(os.environ.get("CC", "gcc")) is None:
            lacking["gcc"] = "gcc"
        if shutil.which(os.environ.get("CXX", "g++")) is None:
            lacking["g++"] = "g++"
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            lacking["Python.h"] = "python3-dev"
    if lacking:
        raise SetupError(f"{', '.join(lacking)} not found: apt-get install -y {' '.join(lacking.values())}")


def make_venv(sourced: bool, keys: dict[str, str]) -> None:
    """Make .venv from nothing; beside a ROS distribution it sees the system's packages, which that builds on."""
    shutil.rmtree(VENV, ignore_errors=True)
    # .venv's own interpreter, which may be running this, cannot make itself anew: the one it was made from does.
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    interpreter = base if base.exists() else sys.executable
    run(str(interpreter), "-m", "venv", *(["--system-site-packages"] if sourced else []), str(VENV))
    STAMPS.mkdir()
    (STAMPS / "venv").write_text(keys["venv"])


def requirement_arguments(*names: str) -> list[str]:
    """Return pip's arguments for requirement files, held by the constraints."""
    files = [argument for name in names for argument in ("-r", str(REQUIREMENTS / f"{name}.txt"))]
    return ["-c", str(REQUIREMENTS / "constraints.txt"), *files]


def pip_install(*arguments: str) -> None:
    """Run `pip install` of .venv."""
    run(str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments)


def run(*command: str) -> None:
    """Run a command with its output in the log; raises SetupError with the last error line when it fails."""
    with LOG.open("a") as log:
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=child_environment())
    if status.returncode:
        raise SetupError(failure(LOG))


def child_environment() -> dict[str, str]:
    """Return the environment without what an outer environment of ROS wheels left, which would hide this one's."""
    return {name: value for name, value in os.environ.items() if name != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}


def failure(log: Path) -> str:
    """Return one line on a failed command: the first of its log that tells an error, else the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror:|CMake Error", line, re.IGNORECASE)]
    told = errors[0] if errors else lines[-1] if lines else "no word of why"
    return f"{told} (the whole log: {log.relative_to(ROOT)})"


def wheel_folder(name: str, keys: dict[str, str]) -> Path:
    """Return the folder of the wheel of an overlay package; it exists only when the wheel is whole."""
    return BUILD / "overlay" / f"{name}-{keys[name][:16]}"


@contextmanager
def building(folders: dict[str, Path]) -> Iterator[dict[str, subprocess.Popen]]:
    """Build the wheels of overlay packages while the block runs, each into its folder; no build outlives the block."""
    builds = {}
    for name, folder in folders.items():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        options = ["--verbose", "--no-build-isolation", "--no-deps", "--wheel-dir", partial]
        command = [PYTHON, "-m", "pip", "wheel", *options, OVERLAY / name]
        with (BUILD / f"{name}.log").open("w") as log:
            builds[name] = subprocess.Popen(command, stdout=log, stderr=log, env=child_environment())
    try:
        yield builds
    finally:
        for build in builds.values():
            build.terminate()


def collect(builds: dict[str, subprocess.Popen], folders: dict[str, Path]) -> None:
    """Wait for the wheels of overlay packages and keep them; raises SetupError with the first error of a failed one."""
    for name, build in builds.items():
        if build.wait():
            raise SetupError(failure(BUILD / f"{name}.log"))
        folders[name].with_suffix(".partial").rename(folders[name])


def make_ament_prefix() -> None:
    """Make .venv an ament prefix: the ament index, `ros2 run` and `ros2 launch` find the package, live in the tree."""
    share = VENV / "share" / PACKAGE
    index = VENV / "share/ament_index/resource_index/packages"
    programs = VENV / "lib" / PACKAGE
    links = {share / name: ROOT / name for name in ("package.xml", *SHARED_FOLDERS)}
    links[index / PACKAGE] = ROOT / "resource" / PACKAGE
    links |= {programs / name: VENV / "bin" / name for name in EXECUTABLES}
    for folder in (share, programs):
        shutil.rmtree(folder, ignore_errors=True)
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))
    site_packages = VENV / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (site_packages / "streampetr_ament_prefix.pth").write_text(AMENT_PREFIX_HOOK)


if __name__ == "__main__":
    sys.exit(main())
