"""Write the model card of weights: recipe, data, hardware, hours, loss and metrics on one page.

Weights know the recipe that they were trained by, the machine and the commit. --run gives the folder of the run, whose
log holds the loss and the time; the curve is drawn beside the card. --metrics gives files of `streampetr test`.

Example:
  streampetr card out/r50/latest.safetensors --run out/r50 --metrics out/r50/val/metrics_summary.json
"""

import argparse
from pathlib import Path

from streampetr_core.errors import StreampetrError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr card`."""
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file (.safetensors)")
    parser.add_argument("--run", type=Path, help="folder of the run that the weights come from")
    parser.add_argument(
        "--metrics",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="metrics_summary.json, of boxes or of tracks",
    )
    parser.add_argument("--out", type=Path, help="the card (default: beside WEIGHTS, ending in .md)")


def run(args: argparse.Namespace) -> None:
    """Write the card and, with --run, the picture of the loss."""
    from streampetr_core.checkpoint import load_checkpoint
    from training.card import model_card, read_records, read_summary

    out = args.out or args.weights.with_suffix(".md")
    checkpoint = load_checkpoint(args.weights)
    log = read_records(args.run / "log.jsonl") if args.run else []
    metrics = [(str(path), read_summary(path)) for path in args.metrics]
    picture = out.with_name(f"{out.stem}_loss.png") if log else None
    text = model_card(args.weights.name, checkpoint, log, metrics, picture.name if picture else "")
    if picture:
        _draw(args.run / "log.jsonl", picture)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StreampetrError(f"--out {out}: cannot be written ({error.strerror})") from error
    print(f"wrote {out}" + (f" and {picture}" if picture else ""))


def _draw(log: Path, picture: Path) -> None:
    from training.pictures.curves import read_curves
    from training.pictures.plots import plot_curves, save_figure

    curves = read_curves([log], ["loss"], "iteration", weight=0.9)
    save_figure(plot_curves(curves, "step", "loss", separate=False, logarithmic=False), picture)
