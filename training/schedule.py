"""The learning rate of every step: linear warm-up, then a cosine; pure functions of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How the learning rate runs; the published schedules' values are the defaults."""

    steps: int  # optimizer steps of the whole training
    warmup_steps: int = 500
    warmup_start: float = 1.0 / 3.0  # share of the regular rate at step 0
    final_share: float = 1e-3  # share of the base rate that the cosine ends at


def learning_rate(step: int, base_rate: float, schedule: Schedule) -> float:
    """Return the learning rate of step 0, 1, ... of a parameter group with this base rate."""
    lowest = base_rate * schedule.final_share
    rate = lowest + 0.5 * (base_rate - lowest) * (1.0 + math.cos(math.pi * step / schedule.steps))
    if step < schedule.warmup_steps:
        rate *= 1.0 - (1.0 - step / schedule.warmup_steps) * (1.0 - schedule.warmup_start)
    return rate


def base_rate_of(parameter: str, base_rate: float, multipliers: Mapping[str, float]) -> float:
    """Return the base rate of a parameter: the first name in `multipliers` that begins its name scales `base_rate`."""
    for prefix, factor in multipliers.items():
        if parameter == prefix or parameter.startswith(prefix + "."):
            return base_rate * factor
    return base_rate
