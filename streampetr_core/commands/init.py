"""Write an untrained model: the right shapes and no knowledge, for trying things without weights.

Example:
  streampetr init small_352_256q out/untrained.safetensors
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from streampetr_core.checkpoint import save_checkpoint, untrained_checkpoint
from streampetr_core.config import load_config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("config", help="model configuration: a name or a YAML file")
    parser.add_argument("out", type=Path, help="the file to write (.safetensors)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: %(default)s)")


def run(args: Namespace) -> None:
    """Initialise and say what was written."""
    checkpoint = untrained_checkpoint(load_config(args.config), args.seed)
    save_checkpoint(checkpoint, args.out)
    print(f"{args.out}: model {checkpoint.config.name}, {checkpoint.source}: its boxes mean nothing")
