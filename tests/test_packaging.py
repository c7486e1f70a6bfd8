"""The tree as a package: what the environment of `make` finds of it, what a wheel holds, and what set-up says."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ament_index_python import get_package_prefix, get_package_share_path, get_search_paths

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "streampetr_ros"
SHARED_FOLDERS = ("config", "launch", "weights")


def copy_of_tree(folder, *names):
    """Copy the named files and folders of the tree, or all that packaging reads."""
    for name in names or ("streampetr_core", "streampetr_ros", "training", "tests", "resource", *SHARED_FOLDERS):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    tree = copy_of_tree(tmp_path_factory.mktemp("tree"))
    copy_of_tree(tree, "setup.py", "setup.cfg", "pyproject.toml", "package.xml", "LICENSE")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tree,
        tree,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (path,) = tree.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_a_wheel_holds_the_three_packages_and_no_tests(wheel):
    modules = {name for name in wheel if name.endswith(".py") and ".data/" not in name}
    assert {name.split("/")[0] for name in modules} == {"streampetr_core", "streampetr_ros", "training"}
    in_tree = {
        str(path.relative_to(ROOT)) for name in ("streampetr_core", "training") for path in (ROOT / name).rglob("*.py")
    }
    assert in_tree <= modules


def test_a_wheel_shares_what_the_tree_shares(wheel):
    shared = {name.split(f"/share/{PACKAGE}/")[1] for name in wheel if f"/share/{PACKAGE}/" in name}
    files = [path for folder in SHARED_FOLDERS for path in (ROOT / folder).rglob("*")]
    assert shared == {"package.xml"} | {
        str(path.relative_to(ROOT)) for path in files if path.is_file() and path.suffix != ".pyc"
    }
    assert any(name.endswith(f"/share/ament_index/resource_index/packages/{PACKAGE}") for name in wheel)


def test_the_share_directory_is_the_tree_itself():
    share = get_package_share_path(PACKAGE)
    assert (share / "package.xml").samefile(ROOT / "package.xml")
    for folder in SHARED_FOLDERS:
        assert (share / folder).resolve() == ROOT / folder


def test_the_environment_comes_first_among_the_ament_prefixes():
    assert Path(get_search_paths()[0]) == Path(sys.prefix) == Path(get_package_prefix(PACKAGE))
    code = "import os; print(os.environ['AMENT_PREFIX_PATH'])"
    for outer in ("", "/opt/ros/jazzy", f"/opt/ros/jazzy:{sys.prefix}"):
        environment = os.environ | {"AMENT_PREFIX_PATH": outer}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip().split(":") == [sys.prefix, *(["/opt/ros/jazzy"] if outer else [])]


@pytest.mark.parametrize("name", ["streampetr", "streampetr_node"])
def test_ros2_run_finds_the_executables(name):
    path = Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / name
    assert os.access(path, os.X_OK)
    assert path.samefile(Path(sys.prefix) / "bin" / name)


def test_the_version_is_that_of_package_xml():
    assert distribution(PACKAGE).version == ElementTree.parse(ROOT / "package.xml").findtext("version")


@pytest.mark.parametrize("point", distribution(PACKAGE).entry_points, ids=lambda point: f"{point.group}:{point.name}")
def test_every_entry_point_leads_somewhere(point):
    target = point.load()
    if point.group == "streampetr.commands":
        assert target.__doc__ and callable(target.add_arguments) and callable(target.run)
    else:
        assert callable(target)


def set_up(tree, **environment):
    """Run set-up in a copy of the tree."""
    base = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    return subprocess.run(
        [sys.executable, tree / "scripts/setup_env.py"], env=base | environment, capture_output=True, text=True
    )


@pytest.fixture
def tree(tmp_path):
    parts = ("scripts", "requirements", "ros_overlay", "setup.py", "setup.cfg", "package.xml", "pyproject.toml")
    return copy_of_tree(tmp_path, *parts)


def test_a_missing_compiler_is_told_in_one_line_with_its_cure(tree):
    done = set_up(tree, CC="no-such-cc", CXX="no-such-c++")
    assert done.returncode == 1
    assert done.stderr == "set-up: gcc, g++ not found: apt-get install -y gcc g++\n"
    assert not (tree / ".venv").exists()


def source_distribution(tree, *packages):
    """Make a ROS distribution that has the named Python packages; return the environment of who sourced it."""
    for name in packages:
        (tree / "distribution" / name).mkdir(parents=True)
        (tree / "distribution" / name / "__init__.py").touch()
    return {"PYTHONPATH": str(tree / "distribution"), "ROS_DISTRO": "jazzy"}


def test_a_ros_distribution_that_lacks_packages_is_told_in_one_line_with_their_names(tree):
    done = set_up(tree, **source_distribution(tree, "rclpy", "cv_bridge", "tf2_ros"))
    assert done.returncode == 1
    assert done.stderr == (
        "set-up: the sourced ROS distribution lacks vision_msgs, tf2_msgs: "
        "apt-get install -y ros-jazzy-vision-msgs ros-jazzy-tf2-msgs\n"
    )


def test_beside_a_ros_distribution_nothing_of_ros_is_installed_or_compiled(tree):
    distribution = source_distribution(tree, "rclpy", "cv_bridge", "tf2_ros", "tf2_msgs", "vision_msgs")
    refuse_to_install(tree, "base")
    done = set_up(tree, CXX="no-such-c++", **distribution)
    steps = [line.split(" ...")[0] for line in done.stdout.splitlines()]
    assert steps == ["[1/3] making .venv", "[2/3] installing PyTorch, training and test packages"]
    assert "include-system-site-packages = true" in (tree / ".venv/pyvenv.cfg").read_text()


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 13, 1)])
def test_an_unfit_python_is_told_in_one_line_with_its_cure(tree, version):
    code = f"import runpy, sys; sys.version_info = {version}; runpy.run_path({str(tree / 'scripts/setup_env.py')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "this is {}.{}: apt-get install -y python3.11-venv".format(*version) in done.stderr


def refuse_to_install(tree, requirements):
    """Make pip refuse a requirements file at once, so that set-up ends there."""
    (tree / f"requirements/{requirements}.txt").write_text("no-such/file.whl\n")


def test_an_interrupted_environment_is_made_anew_and_a_failed_install_is_not(tree):
    refuse_to_install(tree, "overlay-build")
    first = set_up(tree)
    assert first.returncode == 1
    assert "file.whl is not a valid wheel" in first.stderr.splitlines()[-1]
    kept = tree / ".venv/kept"
    kept.touch()
    assert set_up(tree).returncode == 1
    assert kept.exists()
    (tree / ".venv/stamps/unfinished").touch()
    assert set_up(tree).returncode == 1
    assert not kept.exists()
