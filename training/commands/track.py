"""Join the detections of a results file to tracks, and say how good they are (AMOTA).

RESULTS is a results_nusc.json, such as `streampetr test` writes. The info file tells which samples follow each other,
and of which split and version they are; metrics need the tables of that version too.

Methods: 'greedy' is the published tracker, which lets each detection take the nearest track; 'hungarian' is its other
option, which looks for the best assignment of all. 'identity' is our own: it follows the detector's queries, which
`streampetr test` leaves in identities.json beside RESULTS. Where that file is missing, distance alone decides.

Example:
  streampetr track out/results_nusc.json --infos data/nuscenes/infos/infos_v1.0-trainval_val.npz
  streampetr track out/results_nusc.json --infos infos_v1.0-mini_mini_val.npz --dataroot data/nuscenes --evaluate
"""

import argparse
from pathlib import Path

from streampetr_core.errors import StreampetrError

METHODS = ("greedy", "hungarian", "identity")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr track`."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results_nusc.json of detections")
    parser.add_argument("--infos", type=Path, required=True, help="info file of the split, or an official .pkl")
    parser.add_argument("--out", type=Path, help="file of the tracks (default: tracking_result.json beside RESULTS)")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="how to join (default: %(default)s)")
    parser.add_argument("--max-age", type=int, default=3, help="frames that a lost track lives on; not for identity")
    parser.add_argument(
        "--min-score", type=float, help="leave out detections below (default: identity 0.2, others 0.25, as published)"
    )
    parser.add_argument("--evaluate", action="store_true", help="also compute nuScenes' tracking metrics")
    parser.add_argument("--dataroot", type=Path, help="folder of the version folder; for --evaluate")


def run(args: argparse.Namespace) -> None:
    """Write the tracks; with --evaluate, print a table of metrics and write them beside."""
    from training.data.infos_file import load_infos
    from training.evaluation.greedy_tracker import META, TrackerConfig, frames_of, track
    from training.evaluation.identity_tracker import IDENTITIES, read_identities, track_results
    from training.evaluation.results import META as DETECTOR_META
    from training.evaluation.results import read_results, write_json

    if args.evaluate and args.dataroot is None:
        raise StreampetrError("--evaluate needs --dataroot, the folder with the tables of the annotations")
    out = args.out or args.results.parent / "tracking_result.json"
    infos = load_infos(args.infos)
    detections = read_results(args.results)
    missing = [token for token in infos.tokens if token not in detections]
    if missing:
        raise StreampetrError(
            f"{args.results}: lacks {len(missing)} of the {len(infos)} samples of {args.infos}, such as {missing[0]}; "
            "give the info file of the results' own split"
        )
    if args.method == "identity":
        path = args.results.parent / IDENTITIES
        identities = read_identities(path, detections) if path.is_file() else None
        print(f"queries: {path}" if identities else f"{path}: no such file, so distance alone decides")
        meta, tracks = DETECTOR_META, track_results(frames_of(infos), detections, args.min_score, identities)
    else:
        thresholds = {} if args.min_score is None else {"min_score": args.min_score}
        config = TrackerConfig(args.max_age, hungarian=args.method == "hungarian", **thresholds)
        meta, tracks = META, track(frames_of(infos), detections, config)
    write_json(out, {"meta": meta, "results": tracks})
    print(f"wrote {out}: {sum(map(len, tracks.values()))} boxes of tracks in {len(tracks)} samples")
    if args.evaluate:
        from training.data.tables import open_tables
        from training.evaluation.tracking_eval import evaluate_tracks, tracking_table

        tables = open_tables(args.dataroot, infos.header.version)
        print(tracking_table(evaluate_tracks(out, tables, infos.header.split, out.parent / "tracking_metrics")))
