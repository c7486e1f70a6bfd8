"""Measure the model and the image path on this machine, as ratios to the official style in the same run.

All variants take turns in one process; medians of processor time and of wall time are printed, and the ratio of the
official-style eager float32 forward to each. On a machine that does other work trust the processor time, and set
OMP_WAIT_POLICY=PASSIVE (`make bench` does), or threads that spin in wait are counted as work.

Examples:
  streampetr bench
  streampetr bench weights/r50.safetensors --engines out/r50_engines --json out/bench.json
  streampetr bench small_352_256q --variants torch:bf16 openvino:bf16 --threads 2
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch

from streampetr_core.benchmarks.image_path import bench_images
from streampetr_core.benchmarks.machine import describe_machine
from streampetr_core.benchmarks.model import ModelBench, bench_model
from streampetr_core.checkpoint import Checkpoint, load_checkpoint, untrained_checkpoint
from streampetr_core.config import load_config
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime.devices import choose_device

WHAT = ("model", "images")
_CPU_VARIANTS = ("torch:fp32", "torch:bf16", "openvino:fp32", "openvino:bf16", "onnxruntime:fp32")
_CPU_VARIANTS_OF_ENGINES = ("openvino:int8", "onnxruntime:int8")
_GPU_VARIANTS = ("torch:fp32", "torch:bf16", "torch:fp16", "cuda_graph:fp32", "cuda_graph:bf16", "cuda_graph:fp16")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "model",
        nargs="?",
        default="r50_704_428q",
        help="a weights file, or a model configuration, which is timed with untrained weights (default: %(default)s)",
    )
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT, help="what to measure (default: all)")
    parser.add_argument("--variants", nargs="+", metavar="RUNTIME:PRECISION", help="default: all that are installed")
    parser.add_argument("--engines", type=Path, help="a folder of `streampetr export`; needed for int8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="processor threads (default: as PyTorch likes)")
    parser.add_argument("--batch", type=int, default=1, help="scenes at a time (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=7, help="counted rounds, after 2 to warm up (default: %(default)s)"
    )
    parser.add_argument("--moving", action="store_true", help="calibration changes in every frame")
    parser.add_argument("--json", type=Path, help="write everything there")


def run(args: Namespace) -> None:
    """Measure, print tables, write JSON."""
    if args.rounds < 1 or args.batch < 1 or (args.threads is not None and args.threads < 1):
        raise StreampetrError("--rounds, --batch and --threads must be 1 or more")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    checkpoint = _checkpoint(args.model)
    report: dict[str, Any] = {"machine": describe_machine(device)}
    print(json.dumps(report["machine"]))
    if "model" in args.what:
        variants = tuple(args.variants or _default_variants(device, args.engines))
        bench = ModelBench(variants, args.rounds, device, args.batch, args.engines, args.moving)
        report["model"] = bench_model(checkpoint, bench)
        _print_section(report["model"])
    if "images" in args.what:
        report["images"] = bench_images(checkpoint.config, args.rounds)
        _print_section(report["images"])
    if args.json:
        _write(args.json, report)


def _checkpoint(name: str) -> Checkpoint:
    if Path(name).suffix == ".safetensors":
        return load_checkpoint(name)
    return untrained_checkpoint(load_config(name))


def _default_variants(device: torch.device, engines: Path | None) -> tuple[str, ...]:
    if device.type == "cuda":
        return _GPU_VARIANTS
    return _CPU_VARIANTS + (_CPU_VARIANTS_OF_ENGINES if engines else ())


def _print_section(section: dict[str, Any]) -> None:
    print(f"\n{section['timed']}")
    print(
        "; ".join(
            f"{key} {value}"
            for key, value in section.items()
            if isinstance(value, (str, int, float)) and key != "timed"
        )
    )
    print(f"{'variant':<24}{'CPU ms':>9}{'x':>7}{'wall ms':>10}{'x':>7}  {'quartiles of wall':<20}errors")
    for name, row in section["variants"].items():
        low, high = row["wall_ms_quartiles"]
        errors = ", ".join(f"{key.replace('_error_', ' ')} {value:.2g}" for key, value in row.items() if "error" in key)
        print(
            f"{name:<24}{row['cpu_ms']:>9.1f}{row['cpu_ratio']:>7.2f}{row['wall_ms']:>10.1f}{row['wall_ratio']:>7.2f}"
            f"  {f'{low:.1f} .. {high:.1f}':<20}{errors}"
        )
    for name, reason in section.get("could_not_run", {}).items():
        print(f"{name:<24}not run: {reason}")


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be written: {error}") from error
    print(f"written: {path}")
