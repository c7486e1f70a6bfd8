"""The documentation of the node against what the node declares."""

import re
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.lifecycle import LifecycleNode

from scripts.write_parameters import with_table
from streampetr_ros.diagnostics import Diagnostics
from streampetr_ros.guard import Guard
from streampetr_ros.intake import ThrottledLog
from streampetr_ros.outputs import Outputs
from streampetr_ros.parameters import _DECLARATIONS

ROOT = Path(__file__).parents[2]


def test_the_table_of_parameters_is_that_of_the_declarations():
    page = (ROOT / "docs" / "node.md").read_text()
    assert page == with_table(page), "run python -m scripts.write_parameters"
    assert page.count("\n| `") > len(_DECLARATIONS)


@pytest.fixture
def published() -> dict[str, str]:
    """Return the topics of a node's publishers, below its name, and their types."""
    rclpy.init()
    node = LifecycleNode("lonely")
    try:
        Outputs(node, ["car"], "model.safetensors", "base_link", 1)
        Diagnostics(node, Guard(ThrottledLog(print)))
        found = node.get_publisher_names_and_types_by_node("lonely", "/")
        return {topic: kinds[0].replace("/msg/", "/") for topic, kinds in found}
    finally:
        node.destroy_node()
        rclpy.shutdown()


def test_the_table_of_topics_is_what_the_node_publishes(published):
    page = (ROOT / "docs" / "node.md").read_text()
    rows = re.findall(r"^\| `(~/[\w/]+)` \| (\w+/\w+) \|", page, re.MULTILINE)
    own = {topic.replace("/lonely/", "~/"): kind for topic, kind in published.items() if topic.startswith("/lonely/")}
    assert dict(rows) == {topic: kind for topic, kind in own.items() if topic != "~/transition_event"}
    assert published["/diagnostics"] == "diagnostic_msgs/DiagnosticArray"


def test_the_parameter_file_holds_the_declared_defaults():
    values = yaml.safe_load((ROOT / "config" / "node.yaml").read_text())["/**"]["ros__parameters"]
    assert values == {name: _DECLARATIONS[name].default for name in values}
    set_by_launch = {"model", "cameras", "transport", "autostart"}
    assert set(values) | set_by_launch == set(_DECLARATIONS)
