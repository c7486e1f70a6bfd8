"""Run a checkpoint over the validation split of a recipe: mAP and NDS, or AMOTA for tracks.

RECIPE is the name of a recipe that ships with the package, or a YAML file, such as the recipe.yaml of a run. It says of
which model the checkpoint must be, and where the data is. --dataroot gives another root, with the recipe's info file in
it; --version and --split name tables to be read instead of an info file; --infos names another info file, which may be
an official nuscenes2d_temporal_infos_*.pkl.

OUT receives results_nusc.json in nuScenes' own format, identities.json for `streampetr track`, metrics_summary.json and
metrics_details.json; with --eval track also tracking_result.json and the folder tracking_metrics.

--runtime, --precision and --engines are those of the node: what a faster back-end costs in accuracy. The reference is
the detector as it stands. Given engines, mAP and NDS are also kept in their folder, in accuracy.json, with what is lost
against the reference as soon as that has been run with the same --engines; not with --rate, --no-memory or
--drop-cameras.

Trackers: 'greedy' is the published one, 'hungarian' its other option, 'identity' follows the detector's own queries.

Example:
  streampetr test r50_704_428q_nui_60e --checkpoint weights/r50.safetensors --out out/val
  streampetr test synthetic_demo --checkpoint weights/small.safetensors --dataroot out/world --eval bbox track
  streampetr test r50_704_428q_nui_60e --checkpoint weights/r50.safetensors --version v1.0-test --format-only
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from streampetr_core.errors import StreampetrError

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

    from training.data.infos import Infos
    from training.evaluation.inference import InferenceConfig, SplitOutput
    from training.evaluation.results import Entry

TRACKERS = ("greedy", "hungarian", "identity")
RESULTS, TRACKS = "results_nusc.json", "tracking_result.json"
_MOST_JOBS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr test`."""
    parser.add_argument("recipe", metavar="RECIPE", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights file (.safetensors)")
    parser.add_argument("--dataroot", type=Path, help="folder of images and tables, instead of the recipe's")
    parser.add_argument("--version", help="read these tables instead of an info file")
    parser.add_argument("--split", help="of the tables (default: the one that is meant for evaluation)")
    parser.add_argument("--infos", type=Path, help="info file; --dataroot is by default its folder, or the one above")
    parser.add_argument("--out", type=Path, default=Path("out/test"), help="folder to write (default: %(default)s)")
    parser.add_argument("--eval", nargs="+", choices=("bbox", "track"), default=["bbox"], help="default: bbox")
    parser.add_argument("--tracker", choices=TRACKERS, default=TRACKERS[0], help="default: %(default)s")
    parser.add_argument("--format-only", action="store_true", help="write results, compute no metrics")
    pixels = parser.add_mutually_exclusive_group()
    pixels.add_argument("--exact-resize", dest="pixels", action="store_const", const="exact", default="exact")
    pixels.add_argument("--fast-resize", dest="pixels", action="store_const", const="fast")
    pixels.add_argument("--reduced-resize", dest="pixels", action="store_const", const="reduced")
    parser.add_argument("--no-memory", action="store_true", help="take every frame by itself")
    parser.add_argument("--rate", type=float, metavar="HZ", help="run on sweeps too, so many frames a second in all")
    parser.add_argument(
        "--memory-interval",
        type=float,
        metavar="SECONDS",
        help="between entries of the memory; 0: every frame enters it (default: with --rate the model's, else 0)",
    )
    parser.add_argument(
        "--memory-phase",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="with --rate: the second entry of a scene comes so soon, so that no later one falls on a keyframe",
    )
    parser.add_argument("--drop-cameras", nargs="+", default=[], metavar="NAME", help="as if these had failed")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each GPU, or one)")
    parser.add_argument("--threads", type=int, help="CPU threads of each process (default: the cores, shared out)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ... (default: %(default)s)")
    parser.add_argument("--runtime", default="reference", help="what runs the network (default: %(default)s)")
    parser.add_argument("--precision", default="fp32", help="of its arithmetic (default: %(default)s)")
    parser.add_argument("--engines", type=Path, metavar="DIR", help="what `streampetr export` wrote; int8 needs it")


def run(args: argparse.Namespace) -> None:
    """Write results, print tables."""
    from streampetr_core.checkpoint import load_checkpoint
    from streampetr_core.runtime.engine_files import check_engines
    from training.data.source import open_validation_split
    from training.data.tables import open_tables
    from training.recipe import check_same_model, load_recipe

    config, recipe = _config(args), load_recipe(args.recipe)
    checkpoint = load_checkpoint(args.checkpoint)
    check_same_model(checkpoint, args.checkpoint, recipe)
    if args.engines:
        check_engines(args.engines, checkpoint)  # whatever runs: its accuracy will be kept there
    _check_writable(args.out)
    infos, dataroot = open_validation_split(recipe, args.dataroot, args.infos, args.version, args.split)
    if not args.format_only:
        _check_evaluable(args, infos, dataroot)
    output = _infer(args, infos, dataroot, config)
    detections = _write_detections(args.out, infos, output)
    if "track" in args.eval:
        _write_tracks(args, infos, output, detections)
    if not args.format_only:
        _evaluate(args, open_tables(dataroot, infos.header.version), infos)


def _infer(args: argparse.Namespace, infos: "Infos", dataroot: Path, config: "InferenceConfig") -> "SplitOutput":
    """Return what is found in the keyframes; with --rate the frames between them have been seen too."""
    from dataclasses import replace

    from training.data.sweeps import with_sweeps
    from training.data.tables import open_tables
    from training.evaluation.inference import infer

    if args.rate is None:
        return infer(infos, dataroot, config)
    frames = with_sweeps(open_tables(dataroot, infos.header.version), infos, args.rate)
    output = infer(frames, dataroot, config)
    found = [found for token, found in zip(frames.tokens, output.frames, strict=True) if token]
    return replace(output, frames=tuple(found))


def _config(args: argparse.Namespace) -> "InferenceConfig":
    import torch

    from streampetr_core.runtime import RuntimeOptions
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
        memory_interval=_memory_interval(args),
        memory_phase=args.memory_phase,
        runtime=RuntimeOptions(args.runtime, args.precision, args.device, args.engines),
        jobs=jobs,
        threads=args.threads,
    )


def _memory_interval(args: argparse.Namespace) -> float:
    from streampetr_core.checkpoint import load_checkpoint

    if args.rate is not None and not args.rate > 0:
        raise StreampetrError(f"--rate {args.rate:g}: give a number above 0")
    if args.memory_interval is not None:
        return args.memory_interval
    return load_checkpoint(args.checkpoint).config.memory_interval if args.rate else 0.0


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
    from training.data.tables import choose_version
    from training.evaluation.tracking_eval import load_evaluator

    header = infos.header
    if not header.annotated:
        raise StreampetrError(
            f"split '{header.split}' of {header.version} has no annotations to evaluate against; use --format-only"
        )
    choose_version(dataroot, header.version)
    if "track" in args.eval:
        load_evaluator()


def _write_detections(out: Path, infos: "Infos", output: "SplitOutput") -> "dict[str, list[Entry]]":
    """Write and return the detections by sample token, and write beside them which queries made them."""
    from dataclasses import asdict

    from training.evaluation.identity_tracker import IDENTITIES, Identities
    from training.evaluation.results import frame_queries, frame_results, write_json, write_results

    model, detections, queries, admitted = output.model, {}, {}, {}
    for keyframe, frame in zip(infos, output.frames, strict=True):
        detections[keyframe.token] = frame_results(frame.detections, keyframe, model.class_names)
        queries[keyframe.token] = frame_queries(frame.detections, keyframe, model.class_names)
        if frame.admitted_K is not None:
            admitted[keyframe.token] = frame.admitted_K.tolist()
    write_json(out / IDENTITIES, asdict(Identities(model.num_learned, model.num_propagated, queries, admitted)))
    write_results(out / RESULTS, detections)
    print(f"wrote {out / RESULTS}: {sum(map(len, detections.values()))} boxes in {len(detections)} samples")
    return detections


def _write_tracks(
    args: argparse.Namespace, infos: "Infos", output: "SplitOutput", detections: "dict[str, list[Entry]]"
) -> None:
    from training.evaluation import greedy_tracker, results
    from training.evaluation.identity_tracker import KeyframeTracker

    if args.tracker == "identity":
        meta, tracker, tracks = results.META, KeyframeTracker(output.model), {}
        for keyframe, frame in zip(infos, output.frames, strict=True):
            seen = tracker.step(frame.detections, frame.admitted_K, keyframe)
            tracks[keyframe.token] = results.frame_tracks(seen, keyframe, output.model.class_names)
    else:
        config = greedy_tracker.TrackerConfig(hungarian=args.tracker == "hungarian")
        meta, tracks = greedy_tracker.META, greedy_tracker.track(greedy_tracker.frames_of(infos), detections, config)
    results.write_json(args.out / TRACKS, {"meta": meta, "results": tracks})
    print(f"wrote {args.out / TRACKS}: {sum(map(len, tracks.values()))} boxes of tracks in {len(infos)} samples")


def _evaluate(args: argparse.Namespace, tables: "NuScenes", infos: "Infos") -> None:
    from training.evaluation.detection import detection_table, evaluate_detections
    from training.evaluation.tracking_eval import evaluate_tracks, tracking_table

    split = infos.header.split
    if "bbox" in args.eval:
        summary = evaluate_detections(args.out / RESULTS, tables, split, args.out)
        print(detection_table(summary))
    if "track" in args.eval:
        print(tracking_table(evaluate_tracks(args.out / TRACKS, tables, split, args.out / "tracking_metrics")))
    if "bbox" in args.eval and args.engines and not (args.rate or args.no_memory or args.drop_cameras):
        print(_keep_accuracy(args, infos, summary))


def _keep_accuracy(args: argparse.Namespace, infos: "Infos", summary: dict[str, float]) -> str:
    from training.evaluation.accuracy import Run, record

    data = f"{infos.header.version} {infos.header.split}"
    reached = summary["mean_ap"], summary["nd_score"]
    return record(args.engines, Run(args.runtime, args.precision, data, len(infos), args.pixels, *reached))
