"""Write a synthetic driving world as a nuScenes data set.

A car with six cameras and a LiDAR drives along straight and winding roads, over crossings, past road works, bus stops
and car parks, among traffic of all ten detection classes. Pictures, times, poses and boxes agree with each other, so
the result takes the place of nuScenes in every other command. The same arguments give the same bytes, whatever the
number of jobs (with the same versions of the libraries). An interrupted run goes on where it was.

Example:
  streampetr synth out/world --scenes 10 --size 704x396 --sweeps
"""

import argparse
import os
import re
from pathlib import Path

from streampetr_core.errors import StreampetrError
from training.synth import WorldOptions, write_world


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr synth`."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; new, empty, or holding this very world")
    parser.add_argument("--scenes", type=int, default=1, help="number of scenes (default: %(default)s)")
    parser.add_argument(
        "--val-scenes", type=int, metavar="V", help="how many of them are for validation (default: one in five)"
    )
    parser.add_argument(
        "--samples", type=int, default=40, help="keyframes in a scene, two a second (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world (default: %(default)s)")
    parser.add_argument("--size", default="1600x900", metavar="WxH", help="picture size (default: %(default)s)")
    parser.add_argument("--sweeps", action="store_true", help="also write what lies between the keyframes, at 12 Hz")
    parser.add_argument("--lidar", action="store_true", help="also write LiDAR scans")
    parser.add_argument(
        "--version",
        default="v1.0-synth",
        help="v1.0-synth (default; splits synth_train, synth_val) or v1.0-mini (official scene names, mini_val first)",
    )
    parser.add_argument(
        "--quota",
        action="append",
        default=[],
        metavar="CLASS=N",
        help="annotations of a class that every split must have, seen and in range (default: 1 of each class)",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one for each processor)")


def run(args: argparse.Namespace) -> None:
    """Write the world, or say that it is already there."""
    size = re.fullmatch(r"(\d+)x(\d+)", args.size)
    if size is None:
        raise StreampetrError(f"--size {args.size}: give width x height in pixels, as in 704x396")
    jobs = args.jobs if args.jobs is not None else len(os.sched_getaffinity(0))
    if jobs < 1:
        raise StreampetrError(f"--jobs {jobs}: give 1 or more")
    options = WorldOptions(
        scenes=args.scenes,
        samples=args.samples,
        seed=args.seed,
        width=int(size[1]),
        height=int(size[2]),
        sweeps=args.sweeps,
        lidar=args.lidar,
        version=args.version,
        val_scenes=args.val_scenes,
        quota=tuple(_quota(text) for text in args.quota),
    )
    if write_world(args.out, options, jobs):
        print(f"wrote {args.out}: {args.scenes} scenes of {args.samples} samples, version {args.version}")
    else:
        print(f"{args.out}: already there")


def _quota(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\w+)=(\d+)", text)
    if match is None:
        raise StreampetrError(f"--quota {text}: give a class and a number, as in bus=20")
    return match[1], int(match[2])
