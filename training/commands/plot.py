"""Draw loss curves of training logs, or what the evaluation says of each class.

A LOG is our own log of one JSON object a line or an mmcv *.log.json; several runs come into one figure. A key may be a
pattern. With --metrics, LOG is the folder with the metrics_summary.json and metrics_details.json of nuscenes-devkit's
detection evaluation, and ap_per_class.png and precision_recall.png are written there or to --out.

Examples:
  streampetr plot out/r50/log.jsonl other/20230101_120000.log.json --keys loss 'loss_*' --smooth 0.9
  streampetr plot out/r50/metrics --metrics
"""

import argparse
from pathlib import Path

from streampetr_core.errors import StreampetrError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr plot`."""
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG", help="training logs; with --metrics one folder")
    parser.add_argument(
        "--keys",
        nargs="+",
        default=["loss"],
        metavar="KEY",
        help="what to draw, as in loss 'loss_*' lr (default: loss)",
    )
    parser.add_argument(
        "--smooth", type=float, default=0.0, metavar="WEIGHT", help="exponential smoothing, from 0 (none) to below 1"
    )
    parser.add_argument("--x", choices=("iteration", "epoch"), default="iteration", help="what runs along the figure")
    parser.add_argument("--separate", action="store_true", help="a panel for each key")
    parser.add_argument("--log-scale", action="store_true", help="logarithmic values")
    parser.add_argument("--metrics", action="store_true", help="draw metrics of an evaluation instead")
    parser.add_argument("--title", help="(default: the names of the runs)")
    parser.add_argument("--out", type=Path, help="figure (default: curves.png), with --metrics a folder")


def run(args: argparse.Namespace) -> None:
    """Write the figures and name them."""
    if args.metrics:
        _plot_metrics(args)
    else:
        _plot_logs(args)


def _plot_logs(args: argparse.Namespace) -> None:
    # matplotlib and the devkit take seconds to import; `streampetr --help` need not wait for them.
    from training.pictures.curves import read_curves, run_names
    from training.pictures.plots import plot_curves, save_figure

    if not 0 <= args.smooth < 1:
        raise StreampetrError(f"--smooth {args.smooth:g}: give a weight from 0 to below 1")
    curves = read_curves(args.logs, args.keys, args.x, args.smooth)
    title = args.title or ", ".join(run_names(args.logs))
    out = args.out or Path("curves.png")
    save_figure(plot_curves(curves, args.x, title, args.separate, args.log_scale), out)
    print(f"wrote {out}: {len(curves)} curves")


def _plot_metrics(args: argparse.Namespace) -> None:
    from training.pictures.metrics import read_metrics
    from training.pictures.plots import plot_average_precision, plot_precision_recall, save_figure

    if len(args.logs) > 1:
        raise StreampetrError(f"--metrics takes one folder, not {len(args.logs)}")
    folder = args.logs[0]
    metrics = read_metrics(folder)
    title = args.title or folder.absolute().name
    out = args.out or folder
    save_figure(plot_average_precision(metrics, title), out / "ap_per_class.png")
    save_figure(plot_precision_recall(metrics, title), out / "precision_recall.png")
    print(f"wrote {out / 'ap_per_class.png'} and {out / 'precision_recall.png'}")
