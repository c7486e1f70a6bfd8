"""One optimizer step: the micro-batches of a rank, the memory of its slots, one update."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.memory import Memory
from training.data.batch import Batch, Moment
from training.learner import Learner
from training.losses.criterion import total_loss
from training.plan import Plan
from training.recipe import Recipe


@dataclass(frozen=True)
class Carried:
    """What the slots of one micro-batch remember, and since when."""

    memory: Memory
    moment: Moment


@dataclass(frozen=True)
class StepReport:
    """What one step found out; tensors stay on the device, so that nobody waits for them."""

    losses: dict[str, Tensor]  # means over the micro-batches of this rank
    gradient_norm: Tensor  # before clipping
    data_wait: float  # seconds


def seed_step(seed: int, step: int, slot: int) -> None:
    """Let dropout and noise of a micro-batch follow from step and first slot alone, so that no state needs saving."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, slot)).generate_state(1, np.uint64)[0]))


def make_frames(windows: Sequence[Batch], recipe: Recipe, carried: Carried | None) -> list[Frame]:
    """Return the detector's input of consecutive batches."""
    before = [None if carried is None else carried.moment, *(batch.moment for batch in windows)]
    return [batch.frame(recipe.model, previous) for batch, previous in zip(windows, before, strict=False)]


def run_step(
    fabric: Fabric,
    learner: Learner,
    recipe: Recipe,
    plan: Plan,
    batches: Iterator[tuple[Batch, ...]],
    carried: Sequence[Carried | None],
    step: int,
) -> tuple[StepReport, list[Carried]]:
    """Learn from the next micro-batches; return the report and what their slots carry on."""
    micro_batches = plan.share(fabric.global_rank).micro_batches()
    learner.optimizer.zero_grad()
    means: dict[str, Tensor] = {}
    kept, data_wait = [], 0.0
    for number, own in enumerate(carried):
        start = perf_counter()
        windows = [batch.to(fabric.device) for batch in next(batches)]
        data_wait += perf_counter() - start
        seed_step(recipe.training.seed, step, micro_batches[number].start)
        with fabric.no_backward_sync(learner.wrapped, enabled=number < plan.accumulation - 1):
            losses, memory = _forward(learner, recipe, windows, own)
            fabric.backward(checked_total(losses, fabric) / plan.accumulation)
        kept.append(Carried(memory, windows[-1].moment))
        for name, loss in losses.items():
            means[name] = means.get(name, 0.0) + loss.detach() / plan.accumulation
    norm = fabric.clip_gradients(
        learner.wrapped, learner.optimizer, max_norm=recipe.schedule.max_norm, error_if_nonfinite=False
    )
    learner.optimizer.step()
    if learner.averaged is not None:
        learner.averaged.update_parameters(learner.model)
    return StepReport(means, norm, data_wait), kept


def _forward(
    learner: Learner, recipe: Recipe, windows: Sequence[Batch], carried: Carried | None
) -> tuple[dict[str, Tensor], Memory]:
    frames = make_frames(windows, recipe, carried)
    truths = [batch.truths for batch in windows[-recipe.training.learned_frames :]]
    detector = learner.model.detector
    memory = detector.fresh_memory(len(windows[0].tokens)) if carried is None else carried.memory
    losses, fields = learner.wrapped(frames, memory, truths)
    return losses, Memory(**fields)


def checked_total(losses: dict[str, Tensor], fabric: Fabric) -> Tensor:
    """Return the sum; where a loss is not finite on any rank, all ranks stop, so that none waits for ever."""
    total, problem = None, None
    try:
        total = total_loss(losses)
    except StreampetrError as error:
        problem = error
    if fabric.world_size > 1:
        failed = fabric.all_reduce(torch.tensor(float(problem is not None), device=fabric.device), reduce_op="sum")
        if failed.item() and problem is None:
            problem = StreampetrError("a loss of another process is not finite; the message of that process names it")
    if problem is not None:
        raise problem
    return total
