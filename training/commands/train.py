"""Train a detector by a recipe, on any number of GPUs.

RECIPE is the name of a recipe that ships with the package, or a YAML file. Whatever a recipe says can be changed with
--set. Several machines: start the same command on each with torchrun or srun.

Example:
  streampetr train r50_704_428q_nui_24e --out out/r50 --set training.backbone_weights=weights/nuimages.pth
"""

import argparse
import math
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr train`."""
    parser.add_argument("recipe", metavar="RECIPE", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("--out", type=Path, help="folder of the results (default: out/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value, as in schedule.epochs=2"
    )
    parser.add_argument("--devices", type=int, default=0, help="GPUs or CPU processes (default: all GPUs, else 1)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: %(default)s, or as the launcher says)")
    parser.add_argument("--accelerator", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument(
        "--hours", type=float, default=math.inf, help="stop by then, to be resumed (default: train to the end)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the schedule, memory and time; write nothing")


def run(args: argparse.Namespace) -> None:
    """Train, or say what training would be."""
    from training.fabric import make_fabric
    from training.loop import train
    from training.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.set)
    fabric = make_fabric(recipe.training.precision, args.devices, args.nodes, args.accelerator)
    fabric.launch()
    if args.dry_run:
        from training.dry_run import dry_run

        fabric.print(dry_run(recipe, fabric))
        return
    out = args.out or Path("out") / recipe.name
    train(recipe, fabric, out, args.resume, hours=args.hours)
    fabric.print(f"{out}: latest.safetensors is a native weights file; log.jsonl holds the curves")
