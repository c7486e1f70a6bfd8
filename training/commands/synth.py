"""Write a synthetic driving world as a nuScenes data set.

A car with six cameras and a LiDAR drives along a road among traffic of all ten detection classes. Pictures, times,
poses and boxes agree with each other, so the result takes the place of nuScenes in every other command. The same
arguments give the same bytes (with the same versions of the libraries).

Example:
  streampetr synth out/world --scenes 2 --samples 8 --size 704x396 --sweeps
"""

import argparse
import re
from pathlib import Path

from streampetr_core.errors import StreampetrError
from training.synth import WorldOptions, write_world


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr synth`."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; new, empty, or holding this very world")
    parser.add_argument("--scenes", type=int, default=1, help="number of scenes (default: %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=40, help="keyframes in a scene, two a second (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world (default: %(default)s)")
    parser.add_argument("--size", default="1600x900", metavar="WxH", help="picture size (default: %(default)s)")
    parser.add_argument("--sweeps", action="store_true", help="also write what lies between the keyframes, at 12 Hz")
    parser.add_argument(
        "--version",
        default="v1.0-synth",
        help="v1.0-synth (default; its split is synth_val) or v1.0-mini (official scene names: mini_val comes first)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the world, or say that it is already there."""
    size = re.fullmatch(r"(\d+)x(\d+)", args.size)
    if size is None:
        raise StreampetrError(f"--size {args.size}: give width x height in pixels, as in 704x396")
    options = WorldOptions(
        scenes=args.scenes,
        samples=args.samples,
        seed=args.seed,
        width=int(size[1]),
        height=int(size[2]),
        sweeps=args.sweeps,
        version=args.version,
    )
    if write_world(args.out, options):
        print(f"wrote {args.out}: {args.scenes} scenes of {args.samples} samples, version {args.version}")
    else:
        print(f"{args.out}: already there")
