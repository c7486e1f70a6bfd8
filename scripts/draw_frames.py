"""Draw docs/images/frames.png: the coordinate frames that the node needs, on a car with nuScenes' cameras.

python -m scripts.draw_frames docs/images/frames.png
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from training.synth.rig import make_rig

_AXIS_COLOURS = ("tab:red", "tab:green", "tab:blue")
_LENGTHS = {"base_link": 0.65, "lidar_top": 0.55}
_CAMERA_LENGTH = 0.45
_VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "from above": lambda points: points[..., [0, 1]],
    "from the right": lambda points: points[..., [0, 2]],
}
_LABEL_SHIFTS = {
    "base_link": {"from above": (-0.85, -0.22), "from the right": (0.8, -0.17)},
    "lidar_top": {"from above": (0.05, 0.16), "from the right": (0.12, 0.4)},
}
_OUTLINE_ABOVE = [(-1.0, -0.92), (3.6, -0.92), (3.9, -0.6), (3.9, 0.6), (3.6, 0.92), (-1.0, 0.92)]
_OUTLINE_RIGHT = [(-1.0, 0.3), (-1.0, 0.95), (-0.7, 1.5), (1.6, 1.5), (2.5, 0.95), (3.8, 0.8), (3.9, 0.3)]


def main(path: Path) -> None:
    """Draw both views into one picture."""
    rig = make_rig((1600, 900))
    frames = {"base_link": np.eye(4), "lidar_top": _level(rig.base_T_lidar)}
    frames |= {camera.channel.lower(): camera.base_T_cam for camera in rig.cameras}
    figure, panels = plt.subplots(2, 1, figsize=(9, 9.5), height_ratios=(1.25, 1))
    for panel, (title, project) in zip(panels, _VIEWS.items(), strict=True):
        outline = _OUTLINE_ABOVE if title == "from above" else _OUTLINE_RIGHT
        panel.add_patch(Polygon(outline, closed=True, facecolor="0.93", edgecolor="0.6"))
        for name, base_T_frame in frames.items():
            if title == "from above" or name in ("base_link", "lidar_top", "cam_front", "cam_back"):
                _draw_frame(panel, name, base_T_frame, title, project)
        panel.set_aspect("equal")
        panel.set_title(f"seen {title}", loc="left")
        panel.set_xlabel("base_link x, m")
        panel.spines[["top", "right"]].set_visible(False)
    _finish_above(panels[0])
    _finish_right(panels[1])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _level(base_T_lidar: np.ndarray) -> np.ndarray:
    """Return the LiDAR's frame without the degrees by which it is off: x to the right, y forward."""
    level = np.eye(4)
    level[:3, :3] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    level[:3, 3] = base_T_lidar[:3, 3]
    return level


def _draw_frame(panel: Axes, name: str, base_T_frame: np.ndarray, title: str, project: Callable) -> None:
    origin = project(base_T_frame[:3, 3])
    length = _LENGTHS.get(name, _CAMERA_LENGTH)
    for axis, colour in enumerate(_AXIS_COLOURS):
        arrow = length * project(base_T_frame[:3, axis])
        if np.linalg.norm(arrow) < 0.25 * length:  # it points at the viewer, or away
            continue
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", origin + arrow, origin, arrowprops=style)
        panel.text(*(origin + 1.13 * arrow), "xyz"[axis], color=colour, ha="center", va="center", fontsize=9)
    panel.plot(*origin, "o", color="black", markersize=4)
    if name in _LABEL_SHIFTS:
        shift, weight = np.array(_LABEL_SHIFTS[name][title]), "bold"
    else:
        away = project(base_T_frame[:3, 2])
        shift, weight = away / np.linalg.norm(away), "normal"
    aligned = {"ha": "center" if name not in _LABEL_SHIFTS else "left", "va": "center"}
    panel.text(*(origin + shift), name, fontsize=9, fontweight=weight, **aligned)


def _finish_above(panel: Axes) -> None:
    panel.set_ylabel("base_link y, m")
    panel.set_xlim(-2.2, 4.4)
    panel.set_ylim(-1.7, 1.7)


def _finish_right(panel: Axes) -> None:
    panel.set_ylabel("base_link z, m")
    panel.axhline(0, color="0.4", linewidth=1)
    for wheel in (0.0, 2.9):
        panel.add_patch(plt.Circle((wheel, 0.33), 0.33, facecolor="0.8", edgecolor="0.5"))
    panel.set_xlim(-2.2, 4.4)
    panel.set_ylim(-0.35, 2.8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
