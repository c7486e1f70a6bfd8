"""Who imports whom: the rooms of docs/architecture.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROS = {"rclpy", "tf2_ros", "cv_bridge", "sensor_msgs", "vision_msgs", "geometry_msgs", "std_msgs", "rosbags", "launch"}
DATA_SETS = {"nuscenes", "pyquaternion"}
FORBIDDEN = {
    "streampetr_core": {"streampetr_ros", "training", "matplotlib", "lightning_fabric"} | ROS | DATA_SETS,
    "streampetr_ros": {"training"},
    "training": {"streampetr_ros"} | ROS,
    "ros_overlay": {"streampetr_core", "streampetr_ros", "training"},
}
WITHOUT_ROS = (
    "synchroniser",
    "rhythm",
    "jumps",
    "perception",
    "diagnosis",
    "reference_times",
    "worker",
    "arrival_clock",
)


def imports(path: Path) -> set[str]:
    """Return the packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_imports_what_it_must_not_know(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    found = {(str(path.relative_to(ROOT)), name) for path in files for name in imports(path) & FORBIDDEN[room]}
    assert not found


@pytest.mark.parametrize("name", WITHOUT_ROS)
def test_the_plain_classes_of_the_node_know_no_ros(name):
    assert not {package for package in imports(ROOT / "streampetr_ros" / f"{name}.py") if package in ROS}


def test_only_making_and_judging_bags_reads_nuscenes_tables():
    found = {
        path.name for path in (ROOT / "streampetr_ros").rglob("*.py") if imports(path) & {"nuscenes", "pyquaternion"}
    }
    assert found == {"nuscenes_scene.py", "to_results.py"}
