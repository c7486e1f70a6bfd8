"""Say how good results files are: mAP and NDS of detections, AMOTA of tracks, by nuscenes-devkit.

RESULTS are nuScenes' files of a whole split, such as `streampetr test` and `streampetr bag to-results` write. What the
devkit says is also written beside each.

Example:
  streampetr score out/live/results_nusc.json out/live/tracking_result.json --dataroot out/world
"""

import argparse
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from streampetr_core.errors import StreampetrError

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr score`."""
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="results files")
    parser.add_argument("--dataroot", type=Path, required=True, help="root of the tables with the truth")
    parser.add_argument("--version", help="of the tables (default: the only one)")
    parser.add_argument("--split", help="default: the one whose samples the results have")


def run(args: argparse.Namespace) -> None:
    """Print a table for each file."""
    from training.data.tables import open_tables
    from training.evaluation.detection import detection_table, evaluate_detections
    from training.evaluation.results import read_results
    from training.evaluation.tracking_eval import evaluate_tracks, tracking_table

    tables = open_tables(args.dataroot, args.version)
    for path in args.results:
        results = read_results(path)
        split = args.split or _split_of(path, results, tables)
        first = next((entry for entries in results.values() for entry in entries), {})
        if "tracking_name" in first:
            out = path.parent / "tracking_metrics"
            print(tracking_table(evaluate_tracks(path, tables, split, out)))
        else:
            print(detection_table(evaluate_detections(path, tables, split, path.parent)))


def _split_of(path: Path, tokens: Container[str], tables: "NuScenes") -> str:
    """Return the split whose samples these are."""
    from training.data.tables import splits_of

    scenes = {scene["token"]: scene["name"] for scene in tables.scene}
    names = {scenes[sample["scene_token"]] for sample in tables.sample if sample["token"] in tokens}
    splits = {split: set(members) & set(scenes.values()) for split, members in splits_of(tables).items()}
    fitting = [split for split, members in splits.items() if members == names]
    if not fitting:
        raise StreampetrError(
            f"{path}: its scenes ({', '.join(sorted(names)) or 'none'}) are no whole split of {tables.table_root}; "
            f"there are: {', '.join(splits)}"
        )
    return fitting[0]
