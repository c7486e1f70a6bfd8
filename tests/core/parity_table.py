"""Print how far the detector is from the official code, array by array: python -m tests.core.parity_table

`--write docs/parity.md` writes the same table with what it needs to be read alone. The comparison is the tests' own.
"""

import argparse
import os
import platform
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import torch
from tqdm import tqdm

from tests.core import golden

_HEADER = """# Parity with the official code

The detector's arrays against those that the official StreamPETR recorded for the same images, poses and weights.
Each line is one array over all frames of a golden sequence: the largest absolute difference, in the array's own unit
(metres for points and boxes, m/s for velocities, radians for yaw, seconds for times), and the bound that the tests
assert.

- Official side: exiawsh/StreamPETR 95f6470, mmdet3d 1.0.0rc6, torch 1.13.1, float32, CPU, non-flash attention.
- This side: {torch}, float32, {hardware}. Golden files: {source}.
- Weights and images are synthetic and follow from `tests/data/golden/weights.py` and `inputs.py`. The weights go
  through a checkpoint file and `streampetr convert`'s code. So this table shows equal computation, not accuracy.
- Mode `free`: frame by frame on our own memory. Mode `forced`: each frame starts from the official memory of the frame
  before. `428q_small_seq` changes its scene in the middle; `428q_small_drop` and `428q_full` lie at 1200 m and 1700 m
  from the world's origin, where the official float32 poses are good to about 1e-4 m; a frame is missing in the former.
- Decoded boxes (`boxes_3d`, `scores_3d`, `labels_3d`) are matched first, since near-ties may swap places.
  `topk_indexes` (which queries enter the memory, in order) must be equal.
- Why each bound is what it is stands at `TOLERANCES` in `tests/core/golden.py`.

Written by `make parity ARGS="--write docs/parity.md"`.
"""


def main() -> int:
    """Compare, print the table, write it if asked; return 1 if any bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="also write the table with its header to this Markdown file")
    args = parser.parse_args()
    folder = golden.folders()[-1]
    rows: list[golden.Comparison] = []
    for sequence, mode in tqdm(golden.runs(), desc="golden sequences"):
        rows += golden.compare(sequence, mode, folder)
    table = markdown_table(rows)
    print(table)
    if args.write:
        args.write.write_text(f"{_header(folder)}\n{table}\n", encoding="utf-8")
    return 0 if all(row.ok for row in rows) else 1


def markdown_table(rows: Iterable[golden.Comparison]) -> str:
    """Return one line for each sequence, mode and array: the worst of its frames."""
    lines = [
        "| golden file | mode | array | shape | frames | max error | bound | ok |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def key(row: golden.Comparison) -> tuple[str, str, str]:
        return row.sequence, row.mode, row.array

    for (sequence, mode, array), group in groupby(sorted(rows, key=key), key):
        frames = list(group)
        worst = max(frames, key=lambda row: row.error)
        shape = "x".join(map(str, worst.shape))
        verdict = "yes" if all(row.ok for row in frames) else "**no**"
        lines.append(
            f"| infer_{sequence} | {mode} | {array} | {shape} | {len(frames)} "
            f"| {worst.error:.1e} | {worst.tolerance:.0e} | {verdict} |"
        )
    return "\n".join(lines)


def _header(folder: Path) -> str:
    return _HEADER.format(
        torch=f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads",
        hardware=f"CPU {_cpu_name()} ({os.cpu_count()} cores seen)",
        source="the committed subset" if folder == golden.COMMITTED else "the whole set",
    )


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
