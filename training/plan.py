"""From what a recipe states once to what one run does on its ranks; pure functions."""

from dataclasses import dataclass

from streampetr_core.errors import StreampetrError
from training.data.sampler import Share
from training.recipe import Recipe
from training.schedule import Schedule

_REFERENCE_BATCH = 16  # of the published learning rate


@dataclass(frozen=True)
class Plan:
    """What follows from a recipe, a number of training samples and a number of ranks."""

    num_samples: int
    world_size: int
    per_rank_batch: int  # samples that a rank computes at once
    accumulation: int  # micro-batches of a rank that make one step
    global_batch: int
    steps_per_epoch: int
    schedule: Schedule
    learning_rate: float

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.schedule.steps

    def share(self, rank: int) -> Share:
        """Return the slots of the global batch that a rank computes."""
        return Share(self.global_batch, rank, self.world_size, self.accumulation)


def derive(recipe: Recipe, num_samples: int, world_size: int = 1, max_per_rank_batch: int | None = None) -> Plan:
    """Return the plan of a run; the global batch, and with it every sample seen, is the same for all `world_size`.

    A rank's part of the global batch is split into the fewest micro-batches of at most `max_per_rank_batch` samples
    (default: the recipe's). Samples that do not fill a global batch do not count into an epoch, as in the published
    training.

    Raises:
        StreampetrError: fewer samples than the global batch, or one that the ranks cannot share evenly.
    """
    stated = recipe.schedule
    batch, limit = stated.global_batch, max_per_rank_batch or stated.max_per_rank_batch
    if num_samples < batch:
        raise StreampetrError(f"{num_samples} samples are too few for a global batch of {batch}; lower it")
    if batch % world_size:
        raise StreampetrError(
            f"a global batch of {batch} cannot be shared evenly by {world_size} ranks; choose a divisor of it, "
            "or change schedule.global_batch (the learning rate follows)"
        )
    per_rank = batch // world_size
    accumulation = next(
        count for count in range(1, per_rank + 1) if per_rank % count == 0 and per_rank <= count * limit
    )
    steps_per_epoch = num_samples // batch
    schedule = Schedule(stated.epochs * steps_per_epoch, stated.warmup_steps, stated.warmup_start, stated.final_share)
    rate = stated.learning_rate * batch / _REFERENCE_BATCH
    return Plan(num_samples, world_size, per_rank // accumulation, accumulation, batch, steps_per_epoch, schedule, rate)


def describe(plan: Plan, recipe: Recipe) -> str:
    """Return the plan in words, line by line."""
    stated = recipe.schedule
    groups = ", ".join(f"{name} {plan.learning_rate * factor:.3g}" for name, factor in stated.multipliers.items())
    return "\n".join(
        (
            f"recipe          {recipe.name}, model {recipe.model.name}",
            f"samples         {plan.num_samples}",
            f"epochs          {stated.epochs} of {plan.steps_per_epoch} steps: {plan.steps} steps, "
            f"{plan.steps * plan.global_batch} samples seen",
            f"global batch    {plan.global_batch} = {plan.world_size} ranks x {plan.accumulation} micro-batches "
            f"x {plan.per_rank_batch} samples",
            f"learning rate   {plan.learning_rate:.3g}"
            + (f" ({groups})" if groups else "")
            + f", warm-up of {plan.schedule.warmup_steps} steps, cosine to {stated.final_share:g} of it",
            f"precision       {recipe.training.precision} in backbone and neck, fp32 behind",
        )
    )
