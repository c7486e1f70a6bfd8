"""CPU time of the synthetic world's renderer on a fixed street of 41 objects and 45 pieces of scenery.

Example:
    python -m bench.synth.render --repeats 30
"""

import argparse
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numba
import numpy as np

from streampetr_core.geometry import Array, make_transform
from training.synth.raster import (
    TYPICAL_SIZES,
    GroundMap,
    Instance,
    Light,
    object_mesh,
    render,
    scan,
    structure_mesh,
    visibility,
)

_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
_OBJECTS, _BUILDINGS, _TREES = 41, 20, 25
_LANES = (-9.0, -4.5, 0.0, 3.5, 7.0, 10.5, 15.0)


def street(seed: int = 0) -> list[Instance]:
    """Return a straight street along x, all classes in turn."""
    rng = np.random.default_rng(seed)
    kinds, instances = list(TYPICAL_SIZES), []
    for index in range(_OBJECTS):
        kind, lane = kinds[index % len(kinds)], _LANES[index % len(_LANES)]
        mesh = object_mesh(kind, index, TYPICAL_SIZES[kind], tuple(rng.uniform(20, 230, 3)), index, rng.random())
        x = 14.0 + 15.0 * (index // len(_LANES)) + rng.uniform(-4, 4)
        instances.append(Instance(mesh, _pose(x, lane, np.pi if lane > 5 else 0.0), index + 1))
    for index in range(_BUILDINGS):
        mesh = structure_mesh("building", index, (16.0, 12.0, float(rng.uniform(7, 20))))
        instances.append(Instance(mesh, _pose(-20.0 + 17.0 * (index // 2), 32.0 if index % 2 else -26.0, 0.0)))
    for index in range(_TREES):
        mesh = structure_mesh("tree", index, (4.0, 4.0, float(rng.uniform(5, 9))))
        instances.append(Instance(mesh, _pose(-15.0 + 12.0 * (index // 2), 21.0 if index % 2 else -14.0, 0.0)))
    return instances


def _pose(x: float, y: float, yaw: float, z: float = 0.0) -> Array:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return make_transform([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], (x, y, z))


def _ground() -> GroundMap:
    image = np.full((3000, 3000, 3), (92, 112, 62), np.uint8)
    image[1400:1670] = (84, 86, 90)
    image[1516:1518, np.arange(3000) % 90 < 30] = (222, 222, 216)
    return GroundMap(image, 0.1, (-150.0, -150.0))


def _milliseconds(work: Callable[[], object], repeats: int) -> float:
    work()  # compiles, and fills the caches
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times))


def _hardware() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30, help="how often each is measured (median)")
    repeats = parser.parse_args().repeats
    instances, ground, light = street(), _ground(), Light()
    triangles = sum(len(item.mesh.triangles) for item in instances)
    print(
        f"{_hardware()}; Python {platform.python_version()}, numba {numba.__version__}, numpy {np.__version__}, ",
        end="",
    )
    print(f"OpenCV {cv2.__version__}\n{len(instances)} instances, {triangles} triangles, one thread\n")
    print(f"{'':34}{'CPU ms':>8}{'a second':>10}")
    world_T_cam = make_transform(_OPTICAL, (0.0, 0.0, 1.51))
    for width, height, crop, supersample in ((1600, 900, 0, 1), (704, 256, 140, 1), (704, 256, 140, 2)):
        scale = width / 1600
        K = np.array([[1266 * scale, 0, 816 * scale], [0, 1266 * scale, 491 * scale - crop], [0, 0, 1]])
        name = f"picture {width}x{height}" + (", drawn at twice the size" if supersample > 1 else "")
        spent = _milliseconds(
            lambda w=width, h=height, k=K, s=supersample: render(instances, ground, light, w, h, k, world_T_cam, s),
            repeats,
        )
        print(f"{name:34}{spent:8.1f}{1e3 / spent:10.0f}")
    spent = _milliseconds(lambda: visibility(instances, 704, 256, K, world_T_cam), repeats)
    print(f"{'visibility alone 704x256':34}{spent:8.1f}{1e3 / spent:10.0f}")
    spent = _milliseconds(lambda: scan(instances, _pose(0, 0, 0, 1.84)), repeats)
    print(f"{'LiDAR turn, 32 x 1080 rays':34}{spent:8.1f}{1e3 / spent:10.0f}")
    print(f"\nlargest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
