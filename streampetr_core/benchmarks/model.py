"""The model alone: images that are already normalised tensors in, predictions and memory out, frame by frame."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch.utils.flop_counter import FlopCounterMode

from streampetr_core.benchmarks.official_style import OfficialStyle
from streampetr_core.benchmarks.scene import frames, moved
from streampetr_core.benchmarks.timing import synchronise, time_in_turn
from streampetr_core.benchmarks.work import work_of_a_frame
from streampetr_core.checkpoint import Checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.heads import Predictions
from streampetr_core.runtime import Runtime, RuntimeOptions, open_runtime

_NUM_FRAMES = 4
OFFICIAL = "official-style fp32"


@dataclass(frozen=True)
class ModelBench:
    """What is measured, and how often."""

    variants: tuple[str, ...]  # BACKEND:PRECISION
    rounds: int
    device: torch.device
    batch: int = 1
    engines: Path | None = None
    moving_calibration: bool = False  # as with exposure-time geometry on a moving vehicle: nothing to keep


def bench_model(checkpoint: Checkpoint, bench: ModelBench) -> dict[str, Any]:
    """Return times, ratios to the official style and errors of every variant; those that cannot run say why."""
    scene = [_on_device(frame, bench.device) for frame in frames(checkpoint.config, _NUM_FRAMES, bench.batch)]
    official = OfficialStyle(checkpoint, bench.device)
    runtimes: dict[str, Runtime] = {OFFICIAL: official}
    failures = {}
    for variant in bench.variants:
        backend, _, precision = variant.partition(":")
        options = RuntimeOptions(backend, precision or "fp32", str(bench.device), bench.engines)
        try:
            runtimes[variant] = open_runtime(checkpoint, options)
        except StreampetrError as error:
            failures[variant] = str(error)
    expected = _predictions(official, scene)
    errors = {name: _errors(_predictions(runtime, scene), expected) for name, runtime in runtimes.items()}
    players = {name: _player(runtime, scene, bench.moving_calibration) for name, runtime in runtimes.items()}
    times = time_in_turn(players, bench.rounds)
    yardstick = times[OFFICIAL].summary()
    rows = {}
    for name, runtime in runtimes.items():
        summary = times[name].summary()
        ratios = {
            f"{clock}_ratio": round(yardstick[f"{clock}_ms"] / summary[f"{clock}_ms"], 2) for clock in ("cpu", "wall")
        }
        rows[name] = {"runs": runtime.description, **summary, **ratios, **errors[name]}
    return {
        "timed": "images as normalised float32 tensors in, predictions and memory out; all six cameras",
        "model": checkpoint.config.name,
        "weights": checkpoint.source,
        "batch": bench.batch,
        "calibration": "new in every frame" if bench.moving_calibration else "constant, so its geometry is kept",
        "gflop_official_style": round(_gflop(official, scene), 1),
        "least_work": asdict(work_of_a_frame(checkpoint, frames(checkpoint.config, 1, bench.batch)[0])),
        "variants": rows,
        "could_not_run": failures,
    }


def _on_device(frame: Frame, device: torch.device) -> Frame:
    """Images wait where the model runs; what is small comes from the host, as it does on a robot."""
    return replace(frame, images_BN3HW=frame.images_BN3HW.to(device))


def _predictions(runtime: Runtime, scene: Sequence[Frame]) -> list[Predictions]:
    memory, results = _fresh(runtime, scene), []
    for frame in scene:
        predictions, memory = runtime.step(frame, memory)
        results.append(predictions)
    return results


def _fresh(runtime: Runtime, scene: Sequence[Frame]) -> Any:
    memory = runtime.fresh_memory()
    batch = len(scene[0].dt_B)
    return type(memory)(**{name: value.repeat(batch, *[1] * (value.dim() - 1)) for name, value in vars(memory).items()})


def _errors(ours: Sequence[Predictions], official: Sequence[Predictions]) -> dict[str, float]:
    """Return largest and mean differences in the first frame: class probability, and centre in metres.

    Later frames depend on the order of equal scores. So do proposals: of what is left, each query is compared with the
    one that is nearest.
    """
    first, expected = ours[0], official[0]
    scores_BQS, expected_BQS = (x.class_logits[-1].sigmoid().cpu() for x in (first, expected))
    away_BQQ = torch.cdist(
        expected.centre_BQ3.cpu(), first.centre_BQ3.cpu(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    partner_BQ1 = torch.stack([torch.from_numpy(linear_sum_assignment(away_QQ)[1]) for away_QQ in away_BQQ])[..., None]
    probability = (scores_BQS.take_along_dim(partner_BQ1, dim=1) - expected_BQS).abs()
    centre = away_BQQ.take_along_dim(partner_BQ1, dim=2)
    return {
        "max_error_probability": round(float(probability.max()), 7),
        "mean_error_probability": round(float(probability.mean()), 7),
        "max_error_centre_m": round(float(centre.max()), 6),
        "mean_error_centre_m": round(float(centre.mean()), 6),
    }


def _player(runtime: Runtime, scene: Sequence[Frame], moving: bool) -> Callable[[], None]:
    """Return a function that runs the next frame of the scene, over and over."""
    state = {"memory": _fresh(runtime, scene), "next": 0}

    def play() -> None:
        frame = scene[state["next"] % len(scene)]
        if moving:
            frame = moved(frame, 1e-3 * state["next"])
        _, state["memory"] = runtime.step(frame, state["memory"])
        state["next"] += 1

    return play


def _gflop(official: OfficialStyle, scene: Sequence[Frame]) -> float:
    """Return the floating point operations of one frame, in billions; a multiplication with an addition is two."""
    memory = _fresh(official, scene)
    with FlopCounterMode(display=False) as counter:
        official.step(scene[0], memory)
        synchronise()
    return counter.get_total_flops() / 1e9
