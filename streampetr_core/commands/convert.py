"""Convert an official StreamPETR checkpoint (.pth) to a native, self-describing weights file.

Every key is accounted for; nothing in the file is executed. The configuration is recognised by the weights, or given.

Example:
  streampetr convert stream_petr_r50_flash_704_bs2_seq_428q_nui_60e.pth weights/r50.safetensors
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from streampetr_core.checkpoint import save_checkpoint
from streampetr_core.config import load_config
from streampetr_core.convert import NUSCENES_LICENCE, convert_official


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("official", type=Path, help="the official checkpoint (.pth)")
    parser.add_argument("out", type=Path, help="the native file to write (.safetensors)")
    parser.add_argument("--config", help="model configuration: a name or a YAML file (default: recognised)")
    parser.add_argument(
        "--licence", default=NUSCENES_LICENCE, help="what the weights may be used for (default: %(default)s)"
    )


def run(args: Namespace) -> None:
    """Convert and say what was written."""
    config = load_config(args.config) if args.config else None
    checkpoint = convert_official(args.official, config, args.licence)
    save_checkpoint(checkpoint, args.out)
    print(f"{args.out}: {len(checkpoint.state)} tensors of model {checkpoint.config.name}; {checkpoint.licence}")
