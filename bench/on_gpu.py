"""Everything that is worth knowing of one GPU, in one run of under ten minutes.

First the tests of the runtime, which compare every back-end on the GPU with the CPU, and the table of its errors on the
golden frames. Then, for ResNet-50 and V2-99, the model alone in every back-end and precision, as ratios to the
official-style eager fp32 forward in the same run; images are on the GPU already. Beside each time stands the floor: the
work of a frame at the rate of a large matrix product, or the numbers that its layers read and write at the rate of a
copy, whichever takes longer. Last, cross-attention alone by SDPA, by flash-attn where it is installed, and written out.
Results go to bench/results/, under the GPU's name.

Example:
  python -m bench.on_gpu
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from streampetr_core.attention import BACKENDS, attend
from streampetr_core.benchmarks.machine import describe_machine
from streampetr_core.benchmarks.model import ModelBench, bench_model
from streampetr_core.benchmarks.timing import time_in_turn
from streampetr_core.checkpoint import untrained_checkpoint
from streampetr_core.config import load_config
from streampetr_core.runtime.torch_engine import DTYPES

_RESULTS = Path(__file__).parent / "results"
_DEVICE = "cuda"
_LARGE = 8192  # rows and columns of a matrix that keeps the whole GPU busy
_CASES = (
    ("r50_704_428q", 1, False),
    ("r50_704_428q", 8, False),
    ("r50_704_428q", 1, True),
    ("v2_99_800_900q", 1, False),
)
_VARIANTS = tuple(
    f"{backend}:{precision}" for backend in ("torch", "cuda_graph") for precision in ("fp32", "bf16", "fp16")
)


def main() -> int:
    """Run the tests, measure, write JSON; the exit code is that of the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("PyTorch finds no CUDA GPU here", file=sys.stderr)
        return 1
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/core/test_runtime.py"]).returncode
    device = torch.device(_DEVICE)
    variants = _VARIANTS + (("torch_compile:bf16",) if args.compile else ())
    report = {"machine": describe_machine(device), "tests_of_the_runtime": "passed" if tests == 0 else "failed"}
    errors = subprocess.run([sys.executable, "-m", "tests.core.backend_table"], stdout=subprocess.PIPE, text=True)
    report["errors_on_golden_frames"] = errors.stdout.splitlines()
    report["rates"] = rates = {name: _rates(dtype, device) for name, dtype in DTYPES.items()}
    report["cases"] = [_measure(name, batch, moving, variants, args.rounds, rates) for name, batch, moving in _CASES]
    report["attention_ms"] = _attention(device, args.rounds)
    _RESULTS.mkdir(exist_ok=True)
    name = re.sub(r"\W+", "_", torch.cuda.get_device_name(device)).lower()
    path = _RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")
    return tests


def _rates(dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Return what the GPU reaches: operations of a large matrix product, and numbers read and written by a copy."""
    a, b = (torch.randn(_LARGE, _LARGE, device=device, dtype=dtype) for _ in range(2))
    times = time_in_turn({"product": lambda: a @ b, "copy": lambda: a.copy_(b)}, rounds=10)
    milliseconds = {name: time.summary()["wall_ms"] for name, time in times.items()}
    return {
        "gflop_per_s": 2 * _LARGE**3 / milliseconds["product"] / 1e6,
        "giganumbers_per_s": 2 * _LARGE**2 / milliseconds["copy"] / 1e6,
    }


def _floor_ms(work: dict[str, float], rates: dict[str, float]) -> float:
    gflop = work["encoder_gflop"] + work["decoder_gflop"] + work["others_gflop"]
    return 1e3 * max(gflop / rates["gflop_per_s"], work["giganumbers"] / rates["giganumbers_per_s"])


def _attention(device: torch.device, rounds: int) -> dict[str, float | str]:
    """Return the time of one cross-attention of the R50 model in bf16, by every back-end."""
    query = torch.randn(1, 8, 428, 32, device=device, dtype=torch.bfloat16)
    key, value = (torch.randn(1, 8, 4224, 32, device=device, dtype=torch.bfloat16) for _ in range(2))
    results: dict[str, float | str] = {}
    for backend in BACKENDS:
        try:
            times = time_in_turn({backend: lambda name=backend: attend(query, key, value, backend=name)}, rounds)
            results[backend] = times[backend].summary()["wall_ms"]
        except ImportError as error:
            results[backend] = f"not installed: {error}"
    return results


def _measure(
    name: str, batch: int, moving: bool, variants: tuple[str, ...], rounds: int, rates: dict[str, dict[str, float]]
) -> dict:
    bench = ModelBench(variants, rounds, torch.device(_DEVICE), batch, moving_calibration=moving)
    section = bench_model(untrained_checkpoint(load_config(name)), bench)
    print(f"\n{name}, batch {batch}, calibration {section['calibration']}")
    for variant, row in section["variants"].items():
        rate = 1e3 * batch / row["wall_ms"]
        row["floor_ms"] = _floor_ms(section["least_work"], rates[variant.split(":")[-1].split()[-1]])
        print(
            f"{variant:<24}{row['wall_ms']:>9.2f} ms{row['wall_ratio']:>7.2f} x{rate:>9.1f} frames/s"
            f"{row['floor_ms']:>9.2f} ms floor"
        )
    for variant, reason in section["could_not_run"].items():
        print(f"{variant:<24}not run: {reason}")
    return section


if __name__ == "__main__":
    sys.exit(main())
