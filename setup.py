"""Packaging of `streampetr`, for pip and (as the ament_python package `streampetr_ros`) for colcon.

What colcon needs is said here, in the dialect that setuptools 59 of ROS 2 Humble understands too: files, packages and
entry points. Version, licence and description are read from package.xml. What pip alone needs, dependencies and extras,
stands in pyproject.toml; colcon's users get dependencies through rosdep.
"""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

NAME = "streampetr_ros"
ROOT = Path(__file__).resolve().parent
SHARED_FOLDERS = ("config", "launch", "weights")


def _data_files() -> list[tuple[str, list[str]]]:
    """Return what goes to share/: the marker of the ament index, package.xml and the shared folders as they are."""
    share = Path("share") / NAME
    files = {Path("share/ament_index/resource_index/packages"): [f"resource/{NAME}"], share: ["package.xml"]}
    for folder in SHARED_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                relative = path.relative_to(ROOT)
                files.setdefault(share / relative.parent, []).append(str(relative))
    return [(str(target), sources) for target, sources in files.items()]


package = ElementTree.parse(ROOT / "package.xml").getroot()

setup(
    name=NAME,
    version=package.findtext("version"),
    description=package.findtext("description"),
    license=package.findtext("license"),
    maintainer=package.findtext("maintainer"),
    maintainer_email=package.find("maintainer").get("email"),
    packages=find_packages(include=["streampetr_core*", "streampetr_ros*", "training*"]),
    data_files=_data_files(),
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "streampetr = streampetr_core.cli:main",
            "streampetr_node = streampetr_ros.node:main",
        ],
        "streampetr.commands": [
            "bag = streampetr_ros.commands.bag",
            "card = training.commands.card",
            "bench = streampetr_core.commands.bench",
            "convert = streampetr_core.commands.convert",
            "demo = streampetr_ros.commands.demo",
            "doctor = streampetr_ros.commands.doctor",
            "export = streampetr_core.commands.export",
            "init = streampetr_core.commands.init",
            "plot = training.commands.plot",
            "prepare = training.commands.prepare",
            "score = training.commands.score",
            "snapshot = streampetr_ros.commands.snapshot",
            "synth = training.commands.synth",
            "test = training.commands.test",
            "track = training.commands.track",
            "train = training.commands.train",
            "visualize = training.commands.visualize",
            "watch = streampetr_ros.commands.watch",
        ],
    },
)
