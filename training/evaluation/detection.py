"""Detection metrics by nuscenes-devkit, and a table of them."""

import math
from pathlib import Path
from typing import Any

from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.nuscenes import NuScenes

from streampetr_core.errors import StreampetrError
from training.data.tables import splits_of
from training.evaluation.results import evaluation_config, read_results, write_json

_ERRORS = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}


def evaluate_detections(results_path: Path, tables: NuScenes, split: str, out: Path) -> dict[str, Any]:
    """Return nuScenes' summary of a results file; also written to `out`: metrics_summary.json, metrics_details.json.

    Raises:
        StreampetrError: no annotations, or results that are not those of this split.
    """
    check_results(results_path, tables, split)
    try:
        evaluation = DetectionEval(tables, evaluation_config(), str(results_path), split, str(out), verbose=False)
        metrics, details = evaluation.evaluate()
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise StreampetrError(f"{results_path}: nuscenes-devkit refuses these results: {error}") from error
    summary = metrics.serialize() | {"meta": evaluation.meta}
    write_json(out / "metrics_summary.json", summary)
    write_json(out / "metrics_details.json", details.serialize())
    return summary


def check_results(results_path: Path, tables: NuScenes, split: str) -> None:
    """Raise StreampetrError unless the split has annotations and the results name just its samples."""
    if not tables.sample_annotation:
        raise StreampetrError(
            f"{tables.table_root}: has no annotations to evaluate against; submit {results_path} to nuScenes instead"
        )
    splits = splits_of(tables)
    if split not in splits:
        raise StreampetrError(f"{tables.table_root}: no split '{split}'; there are: {', '.join(splits)}")
    scenes = {scene["token"] for scene in tables.scene if scene["name"] in set(splits[split])}
    expected = {sample["token"] for sample in tables.sample if sample["scene_token"] in scenes}
    given = set(read_results(results_path))
    if given != expected:
        raise StreampetrError(
            f"{results_path}: not the samples of split '{split}' in {tables.table_root}: {len(expected - given)} of "
            f"{len(expected)} are missing, {len(given - expected)} are of elsewhere; give the results' own split and "
            "version, and results of the whole split"
        )


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
