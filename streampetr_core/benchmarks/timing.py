"""Timing variants in turn, so that whatever else the machine does hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Times:
    """Milliseconds of every round of one variant."""

    cpu: tuple[float, ...]  # of all threads of the process
    wall: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """Return median, smallest and quartiles of both clocks."""
        values = {}
        for name, times in vars(self).items():
            low, median, high = np.percentile(times, (25, 50, 75))
            values |= {
                f"{name}_ms": float(median),
                f"{name}_ms_min": min(times),
                f"{name}_ms_quartiles": [float(low), float(high)],
            }
        return {key: np.round(value, 3).tolist() for key, value in values.items()}


def time_in_turn(variants: Mapping[str, Callable[[], object]], rounds: int, warm_ups: int = 2) -> dict[str, Times]:
    """Call each variant once a round, in order; rounds before the `warm_ups`-th are not counted."""
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    wall: dict[str, list[float]] = {name: [] for name in variants}
    for number in tqdm(range(-warm_ups, rounds), desc="rounds", unit="round", disable=None):
        for name, call in variants.items():
            synchronise()
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            call()
            synchronise()
            if number >= 0:
                cpu[name].append(1e3 * (time.process_time() - cpu_start))
                wall[name].append(1e3 * (time.perf_counter() - wall_start))
    return {name: Times(tuple(cpu[name]), tuple(wall[name])) for name in variants}


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
