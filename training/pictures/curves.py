"""Which curves of which logs to draw, smoothed or not: values, without a figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from streampetr_core.errors import StreampetrError
from training.pictures.logs import Series, Values, read_log


@dataclass(frozen=True)
class Curve:
    """One line of the figure; `y` is `raw` smoothed."""

    run: str
    key: str
    x: Values
    raw: Values
    y: Values


def read_curves(paths: Sequence[Path], keys: Sequence[str], along: str, weight: float) -> list[Curve]:
    """Return the curves of all runs, key by key; a key may be a pattern such as `loss_*`.

    `along` is iteration or epoch; `weight` is that of `smooth`.

    Raises:
        StreampetrError: a key that no log has, a log that does not tell its epochs, or one that cannot be read.
    """
    runs = dict(zip(run_names(paths), map(read_log, paths), strict=True))
    known = list(dict.fromkeys(key for series in runs.values() for key in series))
    return [
        _curve(run, key, series[key], along, weight)
        for key in _matching(known, keys)
        for run, series in runs.items()
        if key in series
    ]


def smooth(values: Values, weight: float) -> Values:
    """Return the exponential mean of values (P,), each `weight` times as heavy as the one after it.

    y_t = sum_i weight^(t-i) v_i / sum_i weight^(t-i), i from 0 to t: unlike the plain recursion it is not drawn towards
    where the curve starts. Values that are not finite count for nothing and stay as they are.
    """
    smoothed = np.array(values, dtype=np.float64)
    total = mass = 0.0
    for index, value in enumerate(values):
        if np.isfinite(value):
            total, mass = weight * total + value, weight * mass + 1
            smoothed[index] = total / mass
    return smoothed


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each log: its folder, its own name, or as much of its path as tells them apart."""
    stems = [path.name.removesuffix(".json").removesuffix(".log").removesuffix(".jsonl") for path in paths]
    folders = [path.absolute().parent.name for path in paths]
    both = [f"{folder}/{stem}" for folder, stem in zip(folders, stems, strict=True)]
    candidates = (folders, stems, both, [str(path) for path in paths])
    return next((names for names in candidates if len(set(names)) == len(paths)), candidates[-1])


def _matching(known: Sequence[str], patterns: Sequence[str]) -> list[str]:
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = [key for key in known if key == pattern or fnmatchcase(key, pattern)]
        if not matches:
            raise StreampetrError(f"--keys {pattern}: no log has it; there are: {', '.join(known)}")
        chosen.update(dict.fromkeys(matches))
    return list(chosen)


def _curve(run: str, key: str, series: Series, along: str, weight: float) -> Curve:
    x = series.iterations if along == "iteration" else series.epochs
    if not np.isfinite(x).all():
        raise StreampetrError(
            f"--x epoch: run {run} does not tell the epochs of {key} (mmcv's logs do from their second epoch on); "
            "use --x iteration"
        )
    return Curve(run, key, x, series.values, smooth(series.values, weight))
