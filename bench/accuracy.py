"""What the frame rate and missing cameras cost in accuracy, by `streampetr test` and nuscenes-devkit.

`rates`: keyframes alone are judged, as at 2 Hz, but the frames between them are seen too. Either the memory keeps
entries half a second apart (rate-aware), keyframes halfway between two of them, or it takes in every frame.
`cameras`: one to three cameras are missing all the time. What `--out` has already is not
evaluated again, so give other weights another folder.

Examples:
  streampetr synth out/val12 --scenes 4 --val-scenes 4 --samples 40 --size 800x450 --sweeps
  python -m bench.accuracy rates --dataroot out/val12 --picture out/rates.png
  python -m bench.accuracy cameras --dataroot out/val12
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from training.pictures.curves import Curve
from training.pictures.plots import plot_curves

_RATES = (2, 4, 6, 12)  # images a second of every camera; sweeps have 12
_AWARE, _ALL = "rate-aware memory", "every frame enters the memory"
_MISSING = (
    (),
    ("CAM_FRONT",),
    ("CAM_FRONT_RIGHT",),
    ("CAM_FRONT_LEFT",),
    ("CAM_BACK",),
    ("CAM_BACK_LEFT",),
    ("CAM_BACK_RIGHT",),
    ("CAM_FRONT", "CAM_BACK"),
    ("CAM_FRONT_LEFT", "CAM_FRONT_RIGHT"),
    ("CAM_FRONT", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"),
)


def main() -> None:
    """Evaluate, print a table, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rates", "cameras"))
    parser.add_argument("--dataroot", type=Path, required=True, help="a synthetic world with sweeps")
    parser.add_argument("--checkpoint", default="weights/demo.safetensors")
    parser.add_argument("--recipe", default="synthetic_demo")
    parser.add_argument("--out", type=Path, default=Path("out/accuracy"), help="default: %(default)s")
    parser.add_argument("--jobs", default="2", help="processes, of one thread each (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="where to draw the curves of the rates")
    args = parser.parse_args()
    (_rates if args.what == "rates" else _cameras)(args)


def _rates(args: argparse.Namespace) -> None:
    results: dict[str, dict[int, tuple[float, ...]]] = {_AWARE: {}, _ALL: {}}
    for rate in _RATES:
        options = ["--rate", str(rate), "--eval", "bbox", "track"]
        results[_AWARE][rate] = _measure(args, f"rate_{rate}", [*options, "--memory-phase", "0.25"])
        if rate != _RATES[0]:  # at 2 Hz both are the same
            results[_ALL][rate] = _measure(args, f"rate_{rate}_all", [*options, "--memory-interval", "0"])
    results[_ALL][_RATES[0]] = results[_AWARE][_RATES[0]]
    print("| images a second | mAP | NDS | AMOTA | mAP | NDS | AMOTA |\n|---|---|---|---|---|---|---|")
    for rate in _RATES:
        _print_row(str(rate), *results[_AWARE][rate], *results[_ALL][rate])
    if args.picture:
        curves = [
            Curve(run, key, np.array(_RATES), values, values)
            for column, key in enumerate(("mAP", "NDS", "AMOTA"))
            for run, of_run in results.items()
            for values in [np.array([of_run[rate][column] for rate in _RATES])]
        ]
        figure = plot_curves(curves, "images a second", "accuracy at keyframes", separate=True, logarithmic=False)
        figure.savefig(args.picture, dpi=100)


def _cameras(args: argparse.Namespace) -> None:
    print("| missing | mAP | NDS |\n|---|---|---|")
    for cameras in _MISSING:
        options = ["--drop-cameras", *cameras] if cameras else []
        accuracy = _measure(args, "_".join(("without", *cameras)), [*options, "--eval", "bbox"])
        _print_row(", ".join(f"`{camera}`" for camera in cameras) or "none", *accuracy)


def _measure(args: argparse.Namespace, name: str, options: list[str]) -> tuple[float, ...]:
    """Return mAP and NDS, and AMOTA of the published tracker if tracks were asked for."""
    folder = args.out / name
    summary, tracking = folder / "metrics_summary.json", folder / "tracking_metrics" / "metrics_summary.json"
    wanted = [summary, tracking] if "track" in options else [summary]
    if not all(path.exists() for path in wanted):
        command = [sys.executable, "-m", "streampetr_core.cli", "test", args.recipe, "--checkpoint", args.checkpoint]
        command += ["--dataroot", args.dataroot, "--version", "v1.0-synth", "--jobs", args.jobs, "--threads", "1"]
        subprocess.run([*map(str, command), *options, "--out", str(folder)], check=True, stdout=sys.stderr)
    detection = json.loads(summary.read_text())
    accuracy = (detection["mean_ap"], detection["nd_score"])
    return (*accuracy, json.loads(tracking.read_text())["amota"]) if len(wanted) > 1 else accuracy


def _print_row(name: str, *values: float) -> None:
    print(f"| {name} | " + " | ".join(f"{value:.3f}".lstrip("0") for value in values) + " |", flush=True)


if __name__ == "__main__":
    main()
