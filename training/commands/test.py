"""Run a checkpoint over a split and say how good it is: mAP and NDS, or AMOTA for tracks.

DATA is an info file of `streampetr prepare`, an official nuscenes2d_temporal_infos_*.pkl, or a nuScenes-format root,
which is then prepared on the fly. OUT receives results_nusc.json in nuScenes' own format, metrics_summary.json and
metrics_details.json; with --eval track also tracking_result.json and the folder tracking_metrics.

Trackers: 'greedy' is the published one, 'hungarian' its other option, 'identity' follows the detector's own queries.

Example:
  streampetr test data/nuscenes/infos/infos_v1.0-trainval_val.npz --checkpoint weights/r50.safetensors --out out/val
  streampetr test out/world --checkpoint weights/small.safetensors --eval bbox track --tracker identity --jobs 2
  streampetr test data/nuscenes --version v1.0-test --checkpoint weights/r50.safetensors --format-only
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streampetr_core.errors import StreampetrError

if TYPE_CHECKING:
    from training.data.infos import Infos
    from training.evaluation.inference import InferenceConfig, SplitOutput
    from training.evaluation.results import Entry

TRACKERS = ("greedy", "hungarian", "identity")
_MOST_JOBS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr test`."""
    parser.add_argument("data", type=Path, metavar="DATA", help="info file, or folder of a nuScenes-format data set")
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights file (.safetensors)")
    parser.add_argument("--dataroot", type=Path, help="folder of images and tables (default: from where DATA is)")
    parser.add_argument("--version", help="of the tables, where a root holds several")
    parser.add_argument("--split", help="default: the one that is meant for evaluation")
    parser.add_argument("--out", type=Path, default=Path("out/test"), help="folder to write (default: %(default)s)")
    parser.add_argument("--eval", nargs="+", choices=("bbox", "track"), default=["bbox"], help="default: bbox")
    parser.add_argument("--tracker", choices=TRACKERS, default=TRACKERS[0], help="default: %(default)s")
    parser.add_argument("--format-only", action="store_true", help="write results, compute no metrics")
    pixels = parser.add_mutually_exclusive_group()
    pixels.add_argument("--exact-resize", dest="pixels", action="store_const", const="exact", default="exact")
    pixels.add_argument("--fast-resize", dest="pixels", action="store_const", const="fast")
    parser.add_argument("--no-memory", action="store_true", help="take every frame by itself")
    parser.add_argument("--drop-cameras", nargs="+", default=[], metavar="NAME", help="as if these had failed")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each GPU, or one)")
    parser.add_argument("--threads", type=int, help="CPU threads of each process (default: the cores, shared out)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ... (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Write results, print tables."""
    from training.data.source import open_split
    from training.evaluation.inference import infer
    from training.evaluation.results import frame_results, write_json, write_results

    config = _config(args)
    _check_writable(args.out)
    infos, dataroot = open_split(args.data, args.dataroot, args.version, args.split)
    if not args.format_only:
        _check_evaluable(args, infos, dataroot)
    output = infer(infos, dataroot, config)
    pairs = zip(infos, output.frames, strict=True)
    detections = {
        keyframe.token: frame_results(frame.detections, keyframe, output.class_names) for keyframe, frame in pairs
    }
    path = args.out / "results_nusc.json"
    write_results(path, detections)
    print(f"wrote {path}: {sum(map(len, detections.values()))} boxes in {len(detections)} samples")
    if "bbox" in args.eval and not args.format_only:
        _evaluate_detections(path, dataroot, infos)
    if "track" in args.eval:
        path = args.out / "tracking_result.json"
        tracks = _track(args.tracker, infos, output, detections)
        write_json(path, tracks)
        print(f"wrote {path}: {sum(map(len, tracks['results'].values()))} boxes of tracks in {len(infos)} samples")
        if not args.format_only:
            _evaluate_tracks(path, dataroot, infos)


def _config(args: argparse.Namespace) -> "InferenceConfig":
    import torch

    from training.evaluation.inference import InferenceConfig

    jobs = args.jobs if args.jobs is not None else max(1, torch.cuda.device_count() if args.device == "auto" else 1)
    if not 1 <= jobs <= _MOST_JOBS:
        raise StreampetrError(f"--jobs {jobs}: give a number from 1 to {_MOST_JOBS}")
    if args.threads is not None and args.threads < 1:
        raise StreampetrError(f"--threads {args.threads}: give 1 or more")
    return InferenceConfig(
        args.checkpoint,
        args.pixels,
        use_memory=not args.no_memory,
        dropped_cameras=tuple(args.drop_cameras),
        track="track" in args.eval and args.tracker == "identity",
        device=args.device,
        jobs=jobs,
        threads=args.threads,
    )


def _check_writable(out: Path) -> None:
    """Fail before hours of work, not after them."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StreampetrError(
            f"{out}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def _check_evaluable(args: argparse.Namespace, infos: "Infos", dataroot: Path) -> None:
    from training.data.tables import check_version
    from training.evaluation.tracking_eval import load_evaluator

    if not infos.header.annotated:
        raise StreampetrError(f"{args.data}: has no annotations to evaluate against; use --format-only")
    check_version(dataroot, infos.header.version)
    if "track" in args.eval:
        load_evaluator()


def _evaluate_detections(path: Path, dataroot: Path, infos: "Infos") -> None:
    from training.data.tables import open_tables
    from training.evaluation.detection import detection_table, evaluate_detections

    tables = open_tables(dataroot, infos.header.version)
    print(detection_table(evaluate_detections(path, tables, infos.header.split, path.parent)))


def _track(tracker: str, infos: "Infos", output: "SplitOutput", detections: "dict[str, list[Entry]]") -> dict[str, Any]:
    """Return the content of a tracking file."""
    from training.evaluation import greedy_tracker, results

    if tracker == "identity":
        pairs = zip(infos, output.frames, strict=True)
        tracks = {
            keyframe.token: results.frame_tracks(frame.tracks, keyframe, output.class_names)
            for keyframe, frame in pairs
        }
        return {"meta": results.META, "results": tracks}
    config = greedy_tracker.TrackerConfig(hungarian=tracker == "hungarian")
    tracks = greedy_tracker.track(greedy_tracker.frames_of(infos), detections, config)
    return {"meta": greedy_tracker.META, "results": tracks}


def _evaluate_tracks(path: Path, dataroot: Path, infos: "Infos") -> None:
    from training.evaluation.tracking_eval import evaluate_tracks, tracking_table

    header = infos.header
    print(
        tracking_table(evaluate_tracks(path, dataroot, header.version, header.split, path.parent / "tracking_metrics"))
    )
