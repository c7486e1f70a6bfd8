"""Everything that is worth knowing of one GPU, in one run of under ten minutes.

First the tests of the runtime, which compare every back-end on the GPU with the CPU. Then, for ResNet-50 and V2-99, the
model alone in every back-end and precision, as ratios to the official-style eager fp32 forward in the same run; images
are on the GPU already. Results go to bench/results/, under the GPU's name.

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

from streampetr_core.benchmarks.machine import describe_machine
from streampetr_core.benchmarks.model import ModelBench, bench_model
from streampetr_core.checkpoint import untrained_checkpoint
from streampetr_core.config import load_config

_RESULTS = Path(__file__).parent / "results"
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
    device = torch.device("cuda")
    variants = _VARIANTS + (("torch_compile:bf16",) if args.compile else ())
    report = {"machine": describe_machine(device), "tests_of_the_runtime": "passed" if tests == 0 else "failed"}
    report["cases"] = [_measure(name, batch, moving, variants, args.rounds) for name, batch, moving in _CASES]
    _RESULTS.mkdir(exist_ok=True)
    name = re.sub(r"\W+", "_", torch.cuda.get_device_name(device)).lower()
    path = _RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")
    return tests


def _measure(name: str, batch: int, moving: bool, variants: tuple[str, ...], rounds: int) -> dict:
    bench = ModelBench(variants, rounds, torch.device("cuda"), batch, moving_calibration=moving)
    section = bench_model(untrained_checkpoint(load_config(name)), bench)
    print(f"\n{name}, batch {batch}, calibration {section['calibration']}")
    for variant, row in section["variants"].items():
        rate = 1e3 * batch / row["wall_ms"]
        print(f"{variant:<24}{row['wall_ms']:>9.2f} ms{row['wall_ratio']:>7.2f} x{rate:>9.1f} frames/s")
    for variant, reason in section["could_not_run"].items():
        print(f"{variant:<24}not run: {reason}")
    return section


if __name__ == "__main__":
    sys.exit(main())
