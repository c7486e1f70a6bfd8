"""The node end to end: images over DDS in, detections out; what it adds to decoding and the network, and how old it is.

A process of its own publishes six cameras of 1600x900 (noise of the size of street scenes) with nuScenes' exposure
offsets, from a vehicle whose speed changes. The node runs here, with given or untrained weights. Measured are its
processor time for each published set, all threads and the whole process counted, and the age of the output, from the
newest image's stamp to the publishing. Beside it stands what decoding, resizing, the network and reading off the boxes
cost alone, in the same process, on the same images, with a geometry that changes in every frame.

Examples:
  python -m bench.node
  python -m bench.node --models small_352_256q --rates 12 --transports compressed --sets 100 --json out/node.json
"""

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rclpy
import torch
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter

from bench.rig import CAMERAS, publish
from streampetr_core.benchmarks.image_path import street_like_jpegs
from streampetr_core.benchmarks.machine import describe_machine
from streampetr_core.benchmarks.scene import frames, moved
from streampetr_core.benchmarks.timing import time_in_turn
from streampetr_core.checkpoint import load_checkpoint, save_checkpoint, untrained_checkpoint
from streampetr_core.config import load_config
from streampetr_core.decode import decode_detections
from streampetr_core.image_path import ImageSetPath
from streampetr_core.jpeg import decode_image
from streampetr_core.runtime import RuntimeOptions, open_runtime
from streampetr_ros.node import StreampetrNode
from streampetr_ros.parameters import ON_ARRIVAL

_WARM_UP = 5  # sets
_PATIENCE = 300.0  # seconds for one case
_MOVING = 0.05  # metres by which the baseline's cameras move from frame to frame


@dataclass(frozen=True)
class Case:
    """One way to run the node."""

    model: str
    rate: float
    transport: str
    on_arrival: str


def main() -> None:
    """Measure every case, print a table, write JSON."""
    args = _arguments()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # One of the domains whose ports lie above those that the system hands out, so that nobody else's images come in.
    os.environ["ROS_DOMAIN_ID"] = str(215 + os.getpid() % 17)
    if args.threads:
        torch.set_num_threads(args.threads)
    report = {"machine": describe_machine(torch.device("cpu")), "runtime": f"{args.runtime}:{args.precision}"}
    print(json.dumps(report["machine"]))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            path = Path(model)
            if path.suffix != ".safetensors":
                path = Path(folder) / f"{model}.safetensors"
                save_checkpoint(untrained_checkpoint(load_config(model)), path)
            alone = {transport: _alone(path, transport, args) for transport in args.transports}
            for case in itertools.starmap(
                Case, itertools.product([path.stem], args.rates, args.transports, args.arrival)
            ):
                rows.append({**vars(case), "alone": alone[case.transport], **_run(case, path, args)})
                _print_row(rows[-1], is_first=len(rows) == 1)
    report |= {"load_1_min_at_end": round(os.getloadavg()[0], 2), "cases": rows}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["small_352_256q", "r50_704_428q"], help="weights files, or configurations"
    )
    parser.add_argument("--rates", nargs="+", type=float, default=[2.0, 12.0], help="sets a second")
    parser.add_argument("--transports", nargs="+", choices=("compressed", "raw"), default=["compressed", "raw"])
    parser.add_argument("--arrival", nargs="+", choices=ON_ARRIVAL, default=["always", "never"], help="encode_on_...")
    parser.add_argument("--resize", default="fast")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--engines", type=Path, help="a folder of `streampetr export` of the one model; int8 needs it")
    parser.add_argument("--sets", type=int, default=40, help="published sets to measure, after 5 to warm up")
    parser.add_argument("--rounds", type=int, default=9, help="of decoding and the network alone")
    parser.add_argument("--threads", type=int, help="processor threads of the network (default: as PyTorch likes)")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args()


def _alone(model: Path, transport: str, args: argparse.Namespace) -> dict[str, object]:
    """Return the times of decoding, resizing, the network and reading off boxes."""
    checkpoint = load_checkpoint(model)
    runtime = open_runtime(checkpoint, RuntimeOptions(args.runtime, args.precision, engines=args.engines))
    path = ImageSetPath(runtime.config, args.resize)
    jpegs = street_like_jpegs()
    pixels = [decode_image(data, "bench") for data in jpegs]
    scene = replace(frames(runtime.config, 2)[1], images_BN3HW=None)
    state = {"memory": runtime.fresh_memory(), "count": 0}

    def once() -> None:
        images_N3HW, _ = path.from_encoded(jpegs, CAMERAS) if transport == "compressed" else path.from_pixels(pixels)
        state["count"] += 1
        frame = moved(scene, _MOVING * state["count"])
        predictions, state["memory"] = runtime.detect(runtime.encode(images_N3HW), frame, state["memory"])
        decode_detections(predictions, runtime.config)

    summary = time_in_turn({"alone": once}, args.rounds)["alone"].summary()
    path.close()
    return {"runs": runtime.description, **summary}


def _run(case: Case, model: Path, args: argparse.Namespace) -> dict[str, object]:
    """Run the node in this process and the cameras in another; return what was measured."""
    values = {
        "model": str(model),
        "transport": case.transport,
        "reliability": "reliable",
        "encode_on_arrival": case.on_arrival,
        "resize": args.resize,
        "runtime": args.runtime,
        "precision": args.precision,
        "engines": str(args.engines or ""),
        "cameras": list(CAMERAS),
        "score_threshold": 0.0,
    }
    rclpy.init()
    node = StreampetrNode(parameter_overrides=[Parameter(name, value=value) for name, value in values.items()])
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinning.start()
    processes = multiprocessing.get_context("spawn")
    stop = processes.Event()
    rig = processes.Process(target=publish, args=(case.rate, case.transport, stop), daemon=True)
    try:
        node.trigger_configure()
        node.trigger_activate()
        rig.start()
        return _measure(node, args.sets)
    finally:
        stop.set()
        rig.join(timeout=30)
        node.trigger_deactivate()
        executor.shutdown()
        spinning.join()
        node.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


def _measure(node: StreampetrNode, sets: int) -> dict[str, object]:
    """Wait for the sets to warm up, then measure over the next ones."""
    monitor = node.monitor
    _wait(lambda: monitor.published >= _WARM_UP)
    start, cpu, first = time.monotonic(), time.process_time(), monitor.published
    dropped = sum(monitor.set_drops.values())
    _wait(lambda: monitor.published >= first + sets)
    now, seconds, published = time.monotonic(), time.process_time() - cpu, monitor.published - first
    recent = node.latencies.recent(now, now - start)
    return {
        "published": published,
        "dropped": sum(monitor.set_drops.values()) - dropped,
        "encoded_in_vain": node.preparation.encoded_in_vain,
        "cpu_ms_per_set": round(1e3 * seconds / published, 1),
        "cores": round(seconds / (now - start), 2),
        "latency_ms": {
            stage: np.percentile(1e3 * np.array(v), (25, 50, 75, 95)).round(2).tolist() for stage, v in recent.items()
        },
    }


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the node published too few sets; its log says why")
        time.sleep(0.01)


def _print_row(row: dict, is_first: bool) -> None:
    if is_first:
        print(
            f"{'model':<16}{'Hz':>4} {'transport':<11}{'arrival':<8}{'sets':>5}{'drop':>5}"
            f"{'CPU ms/set':>11}{'alone':>8}{'adds':>7}{'cores':>6}  age ms, median (95 %)"
        )
    added = row["cpu_ms_per_set"] - row["alone"]["cpu_ms"]
    _, age, _, high = row["latency_ms"]["age"]
    print(
        f"{row['model']:<16}{row['rate']:>4g} {row['transport']:<11}{row['on_arrival']:<8}{row['published']:>5}"
        f"{row['dropped']:>5}{row['cpu_ms_per_set']:>11.1f}{row['alone']['cpu_ms']:>8.1f}{added:>7.1f}"
        f"{row['cores']:>6.2f}  {age:.0f} ({high:.0f}); wall alone {row['alone']['wall_ms']:.0f}"
    )


if __name__ == "__main__":
    main()
