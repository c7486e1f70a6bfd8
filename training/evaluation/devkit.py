"""What nuscenes-devkit's evaluations of detections and of tracks have in common: checks before, files after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nuscenes.nuscenes import NuScenes

from streampetr_core.errors import StreampetrError
from training.data.tables import splits_of
from training.evaluation.results import read_results, write_json

SUMMARY, DETAILS = "metrics_summary.json", "metrics_details.json"


def check_results(results_path: Path, tables: NuScenes, split: str) -> None:
    """Raise StreampetrError unless the split has annotations, and the results have boxes and name just its samples."""
    if not tables.sample_annotation:
        raise StreampetrError(
            f"{tables.table_root}: has no annotations to evaluate against; submit {results_path} to nuScenes instead"
        )
    splits = splits_of(tables)
    if split not in splits:
        raise StreampetrError(f"{tables.table_root}: no split '{split}'; there are: {', '.join(splits)}")
    scenes = {scene["token"] for scene in tables.scene if scene["name"] in set(splits[split])}
    expected = {sample["token"] for sample in tables.sample if sample["scene_token"] in scenes}
    results = read_results(results_path)
    given = set(results)
    if not any(results.values()):
        raise StreampetrError(
            f"{results_path}: not a single box in {len(given)} samples, so there is nothing to evaluate; "
            "use a trained checkpoint, or a lower limit of the score"
        )
    if given != expected:
        raise StreampetrError(
            f"{results_path}: not the samples of split '{split}' in {tables.table_root}: {len(expected - given)} of "
            f"{len(expected)} are missing, {len(given - expected)} are of elsewhere; give the results' own split and "
            "version, and results of the whole split"
        )


def run_evaluation(
    start: Callable[[], Any], results_path: Path, tables: NuScenes, split: str, out: Path
) -> dict[str, Any]:
    """Return the summary of an evaluation, and write it and its details to `out`.

    Args:
        start: makes the devkit's DetectionEval or TrackingEval, which reads the results.
        results_path: the results.
        tables: what they are measured against.
        split: of these tables.
        out: the folder of metrics_summary.json and metrics_details.json.

    Raises:
        StreampetrError: no annotations, results that are not those of this split, or that the devkit does not take.
    """
    check_results(results_path, tables, split)
    try:
        evaluation = start()
        metrics, details = evaluation.evaluate()
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise StreampetrError(f"{results_path}: nuscenes-devkit refuses these results: {error}") from error
    data = {"version": tables.version, "split": split}
    summary = metrics.serialize() | {"meta": evaluation.meta, "data": data}
    write_json(out / SUMMARY, summary)
    write_json(out / DETAILS, details.serialize())
    return summary
