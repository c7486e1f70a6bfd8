"""How fast whole worlds are written: simulation, six cameras, visibility, LiDAR counts, JPEG and tables, end to end.

Example:
    python -m bench.synth.world --scenes 8 --samples 40 --jobs 2
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numba
import numpy as np

from training.synth import WorldOptions, write_world
from training.synth.rig import CHANNELS
from training.synth.scene import make_scene
from training.synth.sizes import CLASSES

_SIZES = ((1600, 900), (704, 256))
_NO_QUOTA = tuple((kind, 0) for kind in CLASSES)  # with a quota, a scene may be made twice


def main() -> None:
    """Print one line for each picture size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    versions = f"python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}"
    print(f"{_processor()}, {os.cpu_count()} CPUs, {versions}, opencv {cv2.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        # Compiles the inner loops, which numba keeps for every later run.
        write_world(Path(folder) / "warm", WorldOptions(samples=2, width=64, height=36, lidar=True, quota=_NO_QUOTA))
        for size in _SIZES:
            _time_writing(Path(folder) / str(size[0]), size, args)
    _time_simulation(args.samples)


def _time_writing(root: Path, size: tuple[int, int], args: argparse.Namespace) -> None:
    options = WorldOptions(args.scenes, args.samples, 0, *size, quota=_NO_QUOTA)
    begin, cpu_before = time.perf_counter(), _cpu_seconds()
    write_world(root, options, args.jobs)
    seconds, cpu = time.perf_counter() - begin, _cpu_seconds() - cpu_before
    count = args.scenes * args.samples * len(CHANNELS)
    volume = sum(path.stat().st_size for path in root.rglob("*.jpg")) / count / 1e3
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"{size[0]}x{size[1]}, {args.jobs} jobs: {count / seconds:.1f} images/s, {cpu / count * 1e3:.1f} ms of CPU "
        f"an image, {volume:.0f} kB an image, largest process so far {largest / 1024:.0f} MB"
    )


def _time_simulation(samples: int) -> None:
    begin, count = time.process_time(), 12
    for index in range(count):
        make_scene(1, "train", index, (samples - 1) * 0.5, (704, 256))
    print(f"simulation: {(time.process_time() - begin) / count / samples * 1e3:.1f} ms of CPU a sample")


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
