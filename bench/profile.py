"""Where the time of a frame goes in OpenVINO: stage by stage, and kind by kind of kernel in image encoder and decoder.

Stages are timed in turn over the frames of the benchmark's scene, with the calibration constant; medians. Kernels are
those of OpenVINO's own profile, in the mean of all frames; measuring them costs a little itself.

Examples:
  streampetr export weights/demo.safetensors --out out/engines --int8 --calibration data/synthetic
  python -m bench.profile weights/demo.safetensors --engines out/engines --precision int8 --threads 2
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streampetr_core.benchmarks.scene import frames
from streampetr_core.checkpoint import Checkpoint, load_checkpoint
from streampetr_core.runtime import RuntimeOptions, open_runtime
from streampetr_core.runtime.engine_files import DECODER, ENCODER, ENCODER_INT8
from streampetr_core.runtime.openvino_models import compile_for, settings, shared_core
from streampetr_core.runtime.stages import example_arguments

_WARM_UPS, _CAMERAS = 4, 6
_DECODED_IN = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # OpenVINO's names


def main() -> None:
    """Measure, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--engines", type=Path, required=True, help="what `streampetr export` wrote")
    parser.add_argument("--precision", choices=_DECODED_IN, default="fp32")
    parser.add_argument("--threads", type=int, help="processor threads (default: as PyTorch likes)")
    parser.add_argument("--frames", type=int, default=20, help="counted ones (default: %(default)s)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    checkpoint = load_checkpoint(args.weights)
    _print_stages(checkpoint, args)
    encoder = ENCODER_INT8 if args.precision == "int8" else ENCODER
    images, decoder_inputs = example_arguments(checkpoint.detector(), _CAMERAS, batch=1)
    print("\n| stage | kernels | number | ms | share |\n|---|---|---|---|---|")
    for name, inputs in ((encoder, (images,)), (DECODER, decoder_inputs)):
        _print_kernels(args.engines / f"{name}.onnx", inputs, args)


def _print_stages(checkpoint: Checkpoint, args: argparse.Namespace) -> None:
    runtime = open_runtime(checkpoint, RuntimeOptions("openvino", args.precision, "cpu", args.engines))
    print(f"{runtime.description}, {torch.get_num_threads()} threads")
    times: dict[str, list[tuple[float, float]]] = {}
    timed = [(runtime.engine, "encode"), (runtime.engine.temporal, "prepare"), (runtime.engine, "decode")]
    for owner, name in [*timed, (runtime.engine.temporal, "conclude"), (runtime, "step")]:
        setattr(owner, name, _timed(getattr(owner, name), times.setdefault(name, [])))
    scene, memory = frames(checkpoint.config, 4), runtime.fresh_memory()
    for number in range(_WARM_UPS + args.frames):
        _, memory = runtime.step(scene[number % len(scene)], memory)
    medians = {name: np.median(np.array(values[_WARM_UPS:]), axis=0) for name, values in times.items()}
    whole = medians.pop("step")
    medians["the rest: geometry kept, Python"] = whole - sum(medians.values())
    print("\n| stage | wall ms | CPU ms | share of wall |\n|---|---|---|---|")
    for name, (wall, cpu) in [*medians.items(), ("step", whole)]:
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {100 * wall / whole[0]:.0f} % |")


def _timed(call: Callable, times: list[tuple[float, float]]) -> Callable:
    def timed(*arguments: object) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call(*arguments)
        times.append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
        return result

    return timed


def _print_kernels(path: Path, inputs: tuple[Tensor, ...], args: argparse.Namespace) -> None:
    profiled = {**settings(_DECODED_IN[args.precision]), "PERF_COUNT": True}
    compiled = compile_for(shared_core().read_model(path), inputs, profiled)
    taken, number = Counter(), Counter()
    for frame in range(_WARM_UPS + args.frames):
        compiled(inputs)
        for node in compiled.request.profiling_info if frame >= _WARM_UPS else ():
            kind = f"{node.node_type} ({node.exec_type})"
            taken[kind] += 1e3 * node.real_time.total_seconds() / args.frames
            number[kind] += node.real_time.total_seconds() > 0
    whole = sum(taken.values())
    for kind, ms in taken.most_common():
        if ms >= whole / 200:  # else it is lost in rounding
            print(f"| {path.stem} | {kind} | {number[kind] // args.frames} | {ms:.2f} | {100 * ms / whole:.0f} % |")


if __name__ == "__main__":
    main()
