"""Draw docs/images/architecture.png: the rooms of this repository, and the way from an image to a box.

python -m scripts.draw_architecture docs/images/architecture.png
"""

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch

TOPIC, SHELL, PLAIN, CORE, TRAINING, VALUE = "#eeeeee", "#bcd7f2", "#c9e8c3", "#fbd9a6", "#e3cdf0", "#ffffff"
MEANINGS = {
    TOPIC: "topics",
    SHELL: "streampetr_ros, with ROS",
    PLAIN: "streampetr_ros, without ROS",
    CORE: "streampetr_core",
    TRAINING: "training",
    VALUE: "state: a value",
}


class Box(NamedTuple):
    """A box: centre and size in the picture's units, text and colour."""

    x: float
    y: float
    width: float
    height: float
    text: str
    colour: str


ROOMS = {
    "ros": Box(2.2, 1.2, 3.9, 1.5, "streampetr_ros\nnode, bags, demo, viewers\nrclpy, tf2, rosbags", SHELL),
    "core": Box(7.5, 1.2, 3.9, 1.5, "streampetr_core\nthe detector, runtimes, tracking\nPyTorch, NumPy, OpenCV", CORE),
    "training": Box(12.8, 1.2, 3.9, 1.5, "training\ndata, losses, loop, evaluation,\nthe synthetic world", TRAINING),
    "cli": Box(7.5, 3.0, 3.9, 0.7, "streampetr COMMAND", CORE),
}
FLOW = {
    "images": Box(1.6, 9.4, 2.6, 0.9, "images\none topic a camera", TOPIC),
    "infos": Box(1.6, 7.9, 2.6, 0.9, "camera_info", TOPIC),
    "tf": Box(1.6, 6.4, 2.6, 0.9, "/tf, /tf_static", TOPIC),
    "sync": Box(5.2, 9.4, 2.8, 0.9, "synchroniser.py\none rotation: a set", PLAIN),
    "intake": Box(5.2, 7.9, 2.8, 0.9, "intake.py, images.py\npixels, camera models", SHELL),
    "transforms": Box(5.2, 6.4, 2.8, 0.9, "transforms.py\nexposure-time geometry", SHELL),
    "perception": Box(9.0, 7.9, 2.8, 1.2, "perception.py\nSnapshot to Frame:\nresize, img_P_ref, motion", PLAIN),
    "state": Box(9.0, 6.2, 2.8, 0.9, "PerceptionState\nmemory, tracks", VALUE),
    "encode": Box(13.0, 9.4, 3.0, 0.9, "encode\nbackbones, neck", CORE),
    "decode": Box(13.0, 8.0, 3.0, 0.9, "carry, temporal, decode\nqueries, decoder, heads", CORE),
    "boxes": Box(13.0, 6.6, 3.0, 0.9, "decode.py\n300 detections", CORE),
    "track": Box(13.0, 5.2, 3.0, 0.9, "tracking.py\nidentity", CORE),
    "outputs": Box(9.0, 3.7, 2.8, 0.9, "outputs.py, markers.py\nref to base_link", SHELL),
    "published": Box(4.4, 3.7, 4.4, 0.9, "~/detections ~/tracks\n~/objects ~/markers", TOPIC),
    "diagnosis": Box(5.2, 5.0, 2.8, 0.7, "diagnosis.py", PLAIN),
    "diagnostics": Box(1.6, 5.0, 2.6, 0.7, "/diagnostics", TOPIC),
}
ARROWS = [
    ("images", "sync", "stamps"),
    ("infos", "intake", "K, D"),
    ("tf", "transforms", ""),
    ("sync", "intake", "ImageSet"),
    ("intake", "perception", "views"),
    ("transforms", "perception", "cam_T_ref\nworld_T_ref"),
    ("perception", "encode", "Frame"),
    ("encode", "decode", "features"),
    ("decode", "boxes", "predictions"),
    ("boxes", "track", ""),
    ("state", "perception", "before"),
    ("decode", "state", "after"),
    ("track", "state", "after"),
    ("track", "outputs", "in ref"),
    ("outputs", "published", ""),
    ("diagnosis", "diagnostics", ""),
]


def main(path: Path) -> None:
    """Draw both parts into one picture."""
    figure, (flow, rooms) = plt.subplots(2, 1, figsize=(12, 10.4), height_ratios=(2.1, 1))
    _draw(flow, FLOW, ARROWS, "From image to box")
    flow.set_ylim(3.0, 10.2)
    flow.legend(
        handles=[Patch(facecolor=colour, edgecolor="0.4", label=text) for colour, text in MEANINGS.items()],
        loc="lower right",
        ncols=1,
        fontsize=9,
        frameon=False,
    )
    imports = [("ros", "core", "imports"), ("training", "core", "imports")]
    _draw(rooms, ROOMS, imports, "Who imports whom")
    for room in ("ros", "core", "training"):
        _arrow(rooms, ROOMS["cli"], ROOMS[room], "", "--")
    rooms.text(7.5, 3.55, "finds the commands of all three by entry points", ha="center", fontsize=9)
    rooms.set_ylim(0.2, 3.9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _draw(panel: Axes, boxes: dict[str, Box], arrows: list[tuple[str, str, str]], title: str) -> None:
    panel.set_title(title, loc="left")
    panel.set_xlim(0, 15)
    panel.axis("off")
    for box in boxes.values():
        corner = box.x - box.width / 2, box.y - box.height / 2
        style = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": box.colour, "edgecolor": "0.4"}
        panel.add_patch(FancyBboxPatch(corner, box.width, box.height, **style))
        panel.text(box.x, box.y, box.text, ha="center", va="center", fontsize=9.5)
    for start, end, label in arrows:
        _arrow(panel, boxes[start], boxes[end], label, "-")


def _arrow(panel: Axes, start: Box, end: Box, label: str, line: str) -> None:
    """Draw an arrow between the borders that face each other."""
    apart_x = abs(end.x - start.x) - (start.width + end.width) / 2
    apart_y = abs(end.y - start.y) - (start.height + end.height) / 2
    right, up = (1 if end.x > start.x else -1), (1 if end.y > start.y else -1)
    if apart_x > apart_y:
        tail, tip = (start.x + right * start.width / 2, start.y), (end.x - right * end.width / 2, end.y)
    else:
        tail, tip = (start.x, start.y + up * start.height / 2), (end.x, end.y - up * end.height / 2)
    style = {"arrowstyle": "-|>", "color": "0.25", "linewidth": 1.2, "linestyle": line, "shrinkA": 1, "shrinkB": 1}
    panel.annotate("", tip, tail, arrowprops=style)
    middle = (tail[0] + tip[0]) / 2, (tail[1] + tip[1]) / 2
    if label:
        plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        panel.text(*middle, label, ha="center", va="center", fontsize=8, color="0.25", bbox=plate)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
