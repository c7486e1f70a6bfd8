"""The contact sheet of all classes: `python -m training.synth.raster.sheet docs/images/synth_classes.png`.

Six close looks at each class, the first three of training and the others of validation, then the class at 10, 20, 30
and 45 m, as large as in a picture of 704 pixels width (at 10 m half as large).
"""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streampetr_core.geometry import Array, make_transform
from training.synth.raster.ground import GroundMap
from training.synth.raster.light import Light
from training.synth.raster.mesh import Mesh
from training.synth.raster.palette import PALETTES
from training.synth.raster.picture import Instance, render
from training.synth.raster.shapes import TYPICAL_SIZES, object_mesh

_TILE = (140, 96)
_FOCAL = 557.0  # of a nuScenes camera, in pixels of a picture of 704 pixels width
_DISTANCES = (10.0, 20.0, 30.0, 45.0)
_YAWS = (2.5, 0.6, -2.3, 2.7, 0.4, -0.8)
_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
_RIDERS = {"bicycle": 1.70, "motorcycle": 1.60}  # heights with a rider


def contact_sheet() -> NDArray[np.uint8]:
    """Return the sheet, RGB."""
    rows = []
    for kind in TYPICAL_SIZES:
        close = [
            _close_look(_example(kind, index, "train" if index < 3 else "val"), _YAWS[index]) for index in range(6)
        ]
        far = [_at(_example(kind, index, "train"), distance, _YAWS[index]) for index, distance in enumerate(_DISTANCES)]
        rows.append(_titled(np.concatenate(close + far, axis=1), kind))
    return np.concatenate(rows)


def _example(kind: str, index: int, family: str) -> Mesh:
    colours = PALETTES[family].clothes if kind == "pedestrian" else PALETTES[family].vehicles
    colour = colours[(3 * index + len(kind)) % len(colours)]
    size, with_rider = TYPICAL_SIZES[kind], index % 3 != 2
    if kind in _RIDERS and with_rider:
        size = (*size[:2], _RIDERS[kind])
    return object_mesh(kind, index, size, colour, index, 0.2 + 0.1 * index, family=family, with_rider=with_rider)


def _close_look(mesh: Mesh, yaw: float) -> NDArray[np.uint8]:
    distance = 2.1 * mesh.radius + 0.5 * mesh.height
    focal = min(0.36 * _TILE[0] / mesh.radius, 0.75 * _TILE[1] / mesh.height) * distance
    return _look(mesh, yaw, distance, focal, max(1.0, 0.8 * mesh.height), 0.5 * mesh.height)


def _at(mesh: Mesh, distance: float, yaw: float) -> NDArray[np.uint8]:
    focal = _FOCAL if distance > _DISTANCES[0] else 0.5 * _FOCAL
    return _look(mesh, yaw, distance, focal, 1.5, 0.5 * mesh.height)


def _look(mesh: Mesh, yaw: float, distance: float, focal: float, height: float, aim: float) -> NDArray[np.uint8]:
    """Return a tile with the mesh in its middle, seen from `height` metres."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    world_T_body = make_transform([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], (distance, 0, 0))
    width, rows = _TILE
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, rows / 2 - focal * (height - aim) / distance], [0, 0, 1]])
    light = replace(Light(), noise=0.0, vignette=0.0)
    scenery = [Instance(mesh, world_T_body, 1)]
    return render(scenery, _road(), light, width, rows, intrinsics, _camera(height), supersample=2).image


def _camera(height: float) -> Array:
    return make_transform(_OPTICAL, (0, 0, height))


def _road() -> GroundMap:
    image = np.full((400, 400, 3), (92, 112, 62), np.uint8)
    image[130:270] = (84, 86, 90)
    image[[131, 132, 267, 268]] = (222, 222, 216)
    return GroundMap(image, 0.2, (-10.0, -40.0))


def _titled(row: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    return cv2.putText(
        np.ascontiguousarray(row),
        title.replace("_", " "),
        (4, 12),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.4,
        (255, 255, 255),
        1,
        cv2.LINE_AA,
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet()).quantize(256, kmeans=3, dither=Image.Dither.NONE).save(target, optimize=True)
