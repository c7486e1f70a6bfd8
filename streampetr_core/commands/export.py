"""Export a model as ONNX: for the runtimes of this package, and for TensorRT or C++ (docs/export.md).

With --int8 the image encoder is also written in eight bits, calibrated on images of any data set of the nuScenes format
or of a synthetic world that `streampetr synth` wrote. The folder belongs to these weights: the runtimes refuse it for
others.

Examples:
  streampetr export weights/r50.safetensors --out out/r50_engines
  streampetr export weights/r50.safetensors --out out/r50_engines --int8 --calibration data/nuscenes
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from streampetr_core.checkpoint import load_checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime.export import PRECISIONS, ExportOptions, export
from streampetr_core.runtime.onnx_export import require_exporter
from streampetr_core.runtime.quantise import calibration_images, require_quantiser


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("weights", type=Path, help="weights file (.safetensors)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="type of image encoder and decoder; fp16 and bf16 are for deployment elsewhere (default: %(default)s)",
    )
    parser.add_argument("--int8", action="store_true", help="also an int8 image encoder; needs --calibration")
    parser.add_argument("--calibration", type=Path, metavar="ROOT", help="images to calibrate with, a folder")
    parser.add_argument("--images", type=int, default=60, help="how many of them (default: %(default)s)")


def run(args: Namespace) -> None:
    """Export and say what was written."""
    if args.int8 != (args.calibration is not None):
        raise StreampetrError("--int8 and --calibration ROOT go together")
    if args.int8 and args.precision != "fp32":
        raise StreampetrError("--int8 goes with --precision fp32: int8 kernels compute the rest in the runtime's type")
    if args.images < 1:
        raise StreampetrError("--images must be 1 or more")
    require_exporter("`streampetr export`")
    checkpoint, images = load_checkpoint(args.weights), None
    if args.int8:
        require_quantiser()
        images = calibration_images(args.calibration, checkpoint.config, args.images)
    for path in export(checkpoint, args.out, ExportOptions(args.precision, images)):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
