"""What faults do to the live node: does it live, how soon is it back, is every image accounted for, does memory grow.

A synthetic scene is played round and round to a node with untrained weights, in processes of their own. Each fault
gets a fresh node: a quarter of the time all is well, half of it the fault lasts, a quarter of it all is well again.

Example:
  python -m bench.reliability --minutes 10
  python -m bench.reliability --minutes 0.3 --only clock --only JPEG
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

from bench.reliability.recording import load, prepare
from bench.reliability.report import table
from bench.reliability.trial import Outcome, attempt
from streampetr_core.benchmarks.machine import describe_machine

_RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Try all faults, write JSON and a table; 1 if a node did not live, recover or count right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each fault (default: %(default)s)")
    parser.add_argument("--hz", type=float, default=4.0, help="sets a second (default: %(default)s)")
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="faults with these words; again")
    parser.add_argument("--bag", type=Path, help="bag to play (default: a synthetic scene); needs --model")
    parser.add_argument("--model", type=Path, help="weights (default: untrained ones)")
    parser.add_argument("--out", type=Path, default=_RESULTS / "reliability.json", help="default: %(default)s")
    args = parser.parse_args()
    if (args.bag is None) != (args.model is None):
        parser.error("--bag and --model go together")
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    # Modules are loaded once; each node is a fork of the server that has them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.reliability.node"])
    with tempfile.TemporaryDirectory() as folder:
        bag, model = prepare(Path(folder)) if args.bag is None else (args.bag, args.model)
        outcomes = _try_all(args, bag, model, context)
    _write(args.out, outcomes)
    return 0 if all(each.lived and each.adds_up and each.recovered_after is not None for each in outcomes) else 1


def _try_all(args: argparse.Namespace, bag: Path, model: Path, context: object) -> list[Outcome]:
    from bench.reliability.faults import FAULTS

    chosen = [fault for fault in FAULTS if not args.only or any(words in fault.name for words in args.only)]
    recordings = {raw: load(bag, args.hz, raw) for raw in {fault.raw for fault in chosen}}
    outcomes = []
    for fault in tqdm(chosen, unit="fault", disable=None):
        outcomes.append(attempt(fault, recordings[fault.raw], model, 60 * args.minutes, context))
        _write(args.out, outcomes)
    return outcomes


def _write(path: Path, outcomes: list[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(torch.device("cpu"))
    path.write_text(
        json.dumps({"machine": machine, "outcomes": [each.as_dict() for each in outcomes]}, indent=1) + "\n"
    )
    path.with_suffix(".md").write_text(table(outcomes))


if __name__ == "__main__":
    sys.exit(main())
