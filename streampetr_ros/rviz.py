"""What RViz shows, for any rig: the committed configuration with its cameras, names and frames exchanged.

Knows nothing of ROS; a configuration is the content of an .rviz file, which is YAML.
"""

import copy
from collections.abc import Mapping
from typing import Any

_IMAGE, _MARKERS = "rviz_default_plugins/Image", "rviz_default_plugins/MarkerArray"


def rviz_config(template: dict[str, Any], images: Mapping[str, str], markers: str, base_frame: str) -> dict[str, Any]:
    """Return a configuration like `template`.

    Args:
        template: with one display of images at least, which the others are made like.
        images: the topic of each camera; one that ends in /compressed is read as such.
        markers: the topic of the markers.
        base_frame: in which everything is shown.
    """
    config = copy.deepcopy(template)
    manager = config["Visualization Manager"]
    sample = next(display for display in manager["Displays"] if display["Class"] == _IMAGE)
    displays = [display for display in manager["Displays"] if display["Class"] != _IMAGE]
    for display in displays:
        if display["Class"] == _MARKERS:
            display["Topic"]["Value"] = markers
        if "Reference Frame" in display:
            display["Reference Frame"] = base_frame
    for camera, topic in images.items():
        displays.append(copy.deepcopy(sample) | {"Name": camera, "Topic": sample["Topic"] | {"Value": topic}})
    manager["Displays"] = displays
    manager["Global Options"]["Fixed Frame"] = base_frame
    manager["Views"]["Current"]["Target Frame"] = base_frame
    return config
