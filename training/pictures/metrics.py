"""Reads what nuscenes-devkit's detection evaluation wrote: AP of each class, and precision over recall."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuscenes.eval.detection.constants import TP_METRICS
from nuscenes.eval.detection.data_classes import DetectionMetricDataList, DetectionMetrics

from streampetr_core.errors import StreampetrError
from training.evaluation.devkit import DETAILS, SUMMARY
from training.pictures.logs import Values


@dataclass(frozen=True)
class PrecisionCurve:
    """Precision over recall, up to the highest recall that was reached, for matches within `distance` metres."""

    distance: float
    recall: Values
    precision: Values
    average_precision: float


@dataclass(frozen=True)
class ClassMetrics:
    """What the evaluation says of one class; errors (by the devkit's names) are NaN where not defined."""

    name: str
    mean_average_precision: float
    errors: dict[str, float]
    curves: tuple[PrecisionCurve, ...]  # by distance


@dataclass(frozen=True)
class Metrics:
    """What the evaluation says: mAP, NDS and each class, in the devkit's order."""

    mean_average_precision: float
    detection_score: float
    errors: dict[str, float]  # means over the classes
    classes: tuple[ClassMetrics, ...]


def read_metrics(folder: Path) -> Metrics:
    """Read metrics_summary.json and metrics_details.json, as DetectionEval.main writes them, from a folder.

    Raises:
        StreampetrError: one of them is missing, or not what the detection evaluation writes.
    """
    path = folder / SUMMARY
    try:
        summary = DetectionMetrics.deserialize(_read_json(path))
        path = folder / DETAILS
        details = DetectionMetricDataList.deserialize(_read_json(path))
        classes = tuple(_class_metrics(name, summary, details) for name in summary.cfg.class_names)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StreampetrError(
            f"{path}: not what nuscenes-devkit's detection evaluation writes ({type(error).__name__}: {error}); "
            "evaluate again"
        ) from error
    return Metrics(summary.mean_ap, summary.nd_score, summary.tp_errors, classes)


def _class_metrics(name: str, summary: DetectionMetrics, details: DetectionMetricDataList) -> ClassMetrics:
    curves = []
    for distance in summary.cfg.dist_ths:
        data = details[name, distance]
        reached = slice(0, data.max_recall_ind + 1)
        ap = summary.get_label_ap(name, distance)
        curves.append(PrecisionCurve(distance, data.recall[reached], data.precision[reached], ap))
    errors = {metric: summary.get_label_tp(name, metric) for metric in TP_METRICS}
    return ClassMetrics(name, float(summary.mean_dist_aps[name]), errors, tuple(curves))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StreampetrError(
            f"{path}: cannot be read: {error.strerror}; give the folder that the evaluation wrote {SUMMARY} and "
            f"{DETAILS} to"
        ) from None
