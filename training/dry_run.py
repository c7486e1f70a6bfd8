"""What a run would be, in words: the schedule, and memory and time measured over a few real steps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_fabric import Fabric
from torch import nn
from tqdm import tqdm

from training.data.batch import Batch
from training.data.loading import load
from training.data.recipe_data import make_sampler, open_training_data
from training.learner import Learner, build_learner, build_model
from training.logs import peak_memory_mb
from training.plan import Plan, derive, describe
from training.recipe import Recipe
from training.step import run_step

_WARM_UP, _MEASURED = 2, 4
_BYTES_PER_PARAMETER = 16  # weight, gradient and AdamW's two averages, float32
_MEGA = 2**20


@dataclass(frozen=True)
class Measured:
    """What a few steps took."""

    step_time: float  # seconds, waiting for data included
    data_wait: float
    peak_mb: float


def dry_run(recipe: Recipe, fabric: Fabric) -> str:
    """Return the plan, the memory and the time of the run; writes no file. Raises StreampetrError as training would."""
    data = open_training_data(recipe)
    plan = derive(recipe, len(data), fabric.world_size)
    sampler = make_sampler(recipe, data, plan.share(fabric.global_rank))
    model, start = build_model(recipe)
    learner = build_learner(recipe, plan, model, fabric)
    batches = load(data, sampler, recipe.data.workers, pin=fabric.device.type == "cuda")
    measured = _measure(recipe, plan, fabric, learner, batches)
    return "\n".join((describe(plan, recipe), f"starts from     {start}", _parameters(model), _told(measured, plan)))


def _measure(
    recipe: Recipe, plan: Plan, fabric: Fabric, learner: Learner, batches: Iterator[tuple[Batch, ...]]
) -> Measured:
    carried, waits, times = [None] * plan.accumulation, [], []
    for step in tqdm(range(_WARM_UP + _MEASURED), desc="measuring", unit="step", leave=False, disable=None):
        start = time.perf_counter()
        learner.set_rates(step, plan)
        report, carried = run_step(fabric, learner, recipe, plan, batches, carried, step)
        float(report.gradient_norm)  # waits for the device
        times.append(time.perf_counter() - start)
        waits.append(report.data_wait)
    mean = [sum(values[_WARM_UP:]) / _MEASURED for values in (times, waits)]
    return Measured(mean[0], mean[1], peak_memory_mb(fabric.device))


def _told(measured: Measured, plan: Plan) -> str:
    epoch = measured.step_time * plan.steps_per_epoch
    return (
        f"peak memory     {measured.peak_mb:.0f} MiB of a rank, measured\n"
        f"step            {measured.step_time:.3f} s, of which {measured.data_wait:.3f} s waiting for data "
        f"(mean of {_MEASURED} steps)\n"
        f"time            {duration(epoch)} an epoch, {duration(measured.step_time * plan.steps)} in all"
    )


def _parameters(model: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return (
        f"parameters      {count / 1e6:.1f} million, {learning / 1e6:.1f} million learn; weights, gradients and AdamW "
        f"take {learning * _BYTES_PER_PARAMETER / _MEGA:.0f} MiB"
    )


def duration(seconds: float) -> str:
    """Return seconds in words, as hours and minutes or as minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
