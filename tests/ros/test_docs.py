"""The documentation of the node against what the node declares."""

from pathlib import Path

import yaml

from streampetr_ros.parameters import _DECLARATIONS

ROOT = Path(__file__).parents[2]


def _row(name: str) -> str:
    declaration = _DECLARATIONS[name]
    value = declaration.default
    if isinstance(value, list):
        value = "the six of nuScenes"
    elif isinstance(value, bool):
        value = str(value).lower()
    limits = "; {:g} to {:g}".format(*declaration.range) if declaration.range else ""
    return f"| `{name}` | {'(none)' if value == '' else value} | {declaration.description}{limits} |"


def test_every_parameter_stands_in_the_documentation_as_it_is_declared():
    lines = (ROOT / "docs" / "node.md").read_text().splitlines()
    assert [row for row in map(_row, _DECLARATIONS) if row not in lines] == []


def test_the_parameter_file_holds_the_declared_defaults():
    values = yaml.safe_load((ROOT / "config" / "node.yaml").read_text())["/**"]["ros__parameters"]
    assert values == {name: _DECLARATIONS[name].default for name in values}
    set_by_launch = {"model", "cameras", "transport", "autostart"}
    assert set(values) | set_by_launch == set(_DECLARATIONS)
