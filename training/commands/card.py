"""Write the model card of weights: recipe, data, hardware, hours, loss and metrics on one page.

Weights know the recipe that they were trained by, the machine and the commit. --run gives the folder of the run, whose
log holds the loss and the time; the curve is drawn beside the card. Where runs started from the weights of runs before,
give the folders of all, in order. --metrics gives files of `streampetr test`.

Example:
  streampetr card out/r50/latest.safetensors --run out/r50 --metrics out/r50/val/metrics_summary.json
"""

import argparse
from pathlib import Path

from streampetr_core.errors import StreampetrError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr card`."""
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file (.safetensors)")
    parser.add_argument(
        "--run", type=Path, nargs="+", default=[], metavar="FOLDER", help="of the runs that led to the weights"
    )
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
    from training.card import Run, model_card, read_records, read_summary

    out = args.out or args.weights.with_suffix(".md")
    checkpoint = load_checkpoint(args.weights)
    metrics = [(str(path), read_summary(path)) for path in args.metrics]
    logs = [read_records(folder / "log.jsonl") for folder in args.run]
    pictures = [_picture(out, number, len(args.run)) for number in range(1, len(args.run) + 1)]
    earlier = [load_checkpoint(folder / "latest.safetensors").training for folder in args.run[:-1]]
    histories = [*earlier, checkpoint.training]
    runs = [Run(checkpoint.training)] if not args.run else []
    for training, log, picture in zip(histories, logs, pictures, strict=False):
        runs.append(Run(training, log, picture.name))
    text = model_card(args.weights.name, checkpoint, runs, metrics)
    for folder, picture in zip(args.run, pictures, strict=True):
        _draw(folder / "log.jsonl", picture)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StreampetrError(f"--out {out}: cannot be written ({error.strerror})") from error
    print(f"wrote {' and '.join(map(str, [out, *pictures]))}")


def _picture(card: Path, number: int, count: int) -> Path:
    return card.with_name(f"{card.stem}_loss{f'_{number}' if count > 1 else ''}.png")


def _draw(log: Path, picture: Path) -> None:
    from training.pictures.curves import read_curves
    from training.pictures.plots import plot_curves, save_figure

    curves = read_curves([log], ["loss"], "iteration", weight=0.9)
    save_figure(plot_curves(curves, "step", "loss", separate=False, logarithmic=False), picture)
