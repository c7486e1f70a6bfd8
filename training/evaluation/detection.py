"""Detection metrics by nuscenes-devkit, and a table of them."""

import math
from pathlib import Path
from typing import Any

from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.nuscenes import NuScenes

from training.evaluation.devkit import run_evaluation
from training.evaluation.results import evaluation_config

_ERRORS = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}


def evaluate_detections(results_path: Path, tables: NuScenes, split: str, out: Path) -> dict[str, Any]:
    """Return nuScenes' summary of a results file; also written to `out`, see `run_evaluation`.

    Raises:
        StreampetrError: no annotations, or results that are not those of this split.
    """

    def start() -> DetectionEval:
        return DetectionEval(tables, evaluation_config(), str(results_path), split, str(out), verbose=False)

    return run_evaluation(start, results_path, tables, split, out)


def detection_table(summary: dict[str, Any]) -> str:
    """Return the metrics as a table: classes in descending AP, then the means; errors as nuScenes abbreviates them."""
    lines = [_row("class", ["AP", *_ERRORS.values()])]
    aps, errors = summary["mean_dist_aps"], summary["label_tp_errors"]
    for name in sorted(aps, key=lambda name: -aps[name]):
        lines.append(_row(name, [aps[name], *(errors[name][error] for error in _ERRORS)]))
    lines.append(_row("mean", [summary["mean_ap"], *(summary["tp_errors"][error] for error in _ERRORS)]))
    return "\n".join([*lines, f"mAP {summary['mean_ap']:.4f}  NDS {summary['nd_score']:.4f}"])


def _row(name: str, values: list[float | str]) -> str:
    texts = [value if isinstance(value, str) else "-" if math.isnan(value) else f"{value:.3f}" for value in values]
    return f"{name:<22}" + "".join(f"{text:>8}" for text in texts)
