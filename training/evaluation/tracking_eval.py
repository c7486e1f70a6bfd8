"""Tracking metrics (AMOTA and others) by nuscenes-devkit and motmetrics, and a table of them."""

import math
from pathlib import Path
from typing import Any

from nuscenes.eval.common.config import config_factory
from nuscenes.nuscenes import NuScenes

from streampetr_core.errors import StreampetrError
from training.evaluation.devkit import run_evaluation

_COLUMNS = {
    "amota": "AMOTA",
    "amotp": "AMOTP",
    "recall": "recall",
    "mota": "MOTA",
    "ids": "IDS",
    "frag": "FRAG",
    "tp": "TP",
    "fp": "FP",
    "fn": "FN",
}
_COUNTS = {"ids", "frag", "tp", "fp", "fn"}


def evaluate_tracks(results_path: Path, tables: NuScenes, split: str, out: Path) -> dict[str, Any]:
    """Return nuScenes' summary of a tracking file; also written to `out`, see `run_evaluation`.

    Raises:
        StreampetrError: motmetrics is missing, there are no annotations, or the results are not those of this split.
    """
    evaluator = load_evaluator()
    config, version, root = config_factory("tracking_nips_2019"), tables.version, tables.dataroot

    def start() -> Any:
        return evaluator(config, str(results_path), split, str(out), version, root, verbose=False)

    return run_evaluation(start, results_path, tables, split, out)


def tracking_table(summary: dict[str, Any]) -> str:
    """Return the metrics as a table: one line for each class, then all of them."""
    labels = summary["label_metrics"]
    lines = [f"{'class':<22}" + "".join(f"{title:>8}" for title in _COLUMNS.values())]
    for name in labels["amota"]:
        lines.append(_row(name, {metric: labels[metric][name] for metric in _COLUMNS}))
    return "\n".join([*lines, _row("all", summary)])


def _row(name: str, values: dict[str, float]) -> str:
    texts = ("-" if math.isnan(values[m]) else f"{values[m]:.{0 if m in _COUNTS else 3}f}" for m in _COLUMNS)
    return f"{name:<22}" + "".join(f"{text:>8}" for text in texts)


def load_evaluator() -> type:
    """Return the devkit's TrackingEval; raises StreampetrError with the remedy where motmetrics is missing."""
    # The devkit's module tells of a missing pandas by unittest's SkipTest.
    try:
        import motmetrics  # noqa: F401
        import pandas  # noqa: F401
        from nuscenes.eval.tracking.evaluate import TrackingEval
    except ImportError as error:
        raise StreampetrError(f"tracking metrics need {error.name}; install motmetrics==1.4.0 and pandas") from error
    return TrackingEval
