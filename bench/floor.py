"""How near to the processor's limit the model runs: a report of `streampetr bench` against the most that cores can do.

A loop of multiply-adds on registers (floor.c), on all cores at once, gives the most operations a second in fp32, bf16
and int8; nothing runs faster on this machine. The floor of a variant is the work of a frame that wastes nothing, each
stage in its own precision, at that rate; its share is the floor over the median of wall time.

Examples:
  python -m bench.floor
  streampetr bench --threads 2 --json out/bench.json && python -m bench.floor out/bench.json
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast")
# By the variant's precision: that of the image encoder, and that of the decoder; all else is fp32.
_PRECISIONS = {"fp32": ("fp32", "fp32"), "bf16": ("bf16", "bf16"), "int8": ("int8", "bf16")}


def main() -> int:
    """Measure, print the rates and the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", type=Path, help="what `streampetr bench --json` wrote, on this machine")
    parser.add_argument("--cores", type=int, help="how many are counted on (default: those that this process may use)")
    args = parser.parse_args()
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        print("a C compiler is needed, and there is no cc; install gcc", file=sys.stderr)
        return 1
    rates = measure(compiler, sorted(os.sched_getaffinity(0))[: args.cores])
    print(", ".join(f"{precision} {rate:.0f} GFLOP/s" for precision, rate in rates.items()))
    if args.report:
        model = json.loads(args.report.read_text())["model"]
        print(f"{model['model']}, {model['least_work']}")
        for variant, row in model["variants"].items():
            _print_share(variant, row["wall_ms"], model["least_work"], rates)
    return 0


def measure(compiler: str, cores: list[int]) -> dict[str, float]:
    """Return billions of operations a second by precision, of all cores together."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "floor"
        subprocess.run([compiler, *_FLAGS, "-o", program, _SOURCE], check=True)
        running = [
            subprocess.Popen(["taskset", "-c", str(core), program], stdout=subprocess.PIPE, text=True) for core in cores
        ]
        lines = [line.split() for process in running for line in process.communicate()[0].splitlines()]
    total: Counter[str] = Counter()
    for precision, rate in lines:
        total[precision] += float(rate)
    return dict(total)


def _print_share(variant: str, wall_ms: float, work: dict[str, float], rates: dict[str, float]) -> None:
    encoder, decoder = _PRECISIONS.get(variant.rpartition(":")[2], _PRECISIONS["fp32"])
    if encoder not in rates or decoder not in rates:
        print(f"{variant:<24}this processor has no instructions of that precision")
        return
    seconds = (
        work["encoder_gflop"] / rates[encoder]
        + work["decoder_gflop"] / rates[decoder]
        + work["others_gflop"] / rates["fp32"]
    )
    print(f"{variant:<24}floor {1e3 * seconds:>7.1f} ms, took {wall_ms:>7.1f} ms: {1e5 * seconds / wall_ms:.0f} %")


if __name__ == "__main__":
    sys.exit(main())
