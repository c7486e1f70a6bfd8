"""Reads training logs of one JSON object a line, ours and mmcv's, as curves.

Our own log: every line holds `step`, the number of the optimiser step, from 0, and `epoch`, the epochs seen after it as
a fraction (2.5 in the middle of the third), beside any numbers, as in

    {"run": "r50_704"}
    {"step": 49, "epoch": 0.02, "loss": 21.4, "loss_cls": 1.2, "lr": 1.2e-4}

The first line may be a header, which has no `step`; what is in it is left to the writer. Values other than numbers are
no curves. `iteration` is read as `step`.

mmcv's `*.log.json`: lines with `mode`, `epoch` (from 1) and `iter`, after a header without `mode`. `iter` starts anew
in every epoch where training goes by epochs, and counts on where it goes by iterations. A line of validation stands
where training stood when it was written; where both modes have a key, that of validation is named `val/<key>`.

In both, a line that takes the iterations back (a run that was resumed from a checkpoint) replaces what lies behind it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_core.errors import StreampetrError

Values = NDArray[np.float64]
Line = dict[str, Any]

_STEP_KEYS = ("step", "iteration")
_PLACE_KEYS = {*_STEP_KEYS, "iter", "epoch"}


@dataclass(frozen=True)
class Series:
    """The values (P,) of one key of a log, by rising iteration; `epochs` is NaN where the log does not tell them."""

    iterations: Values
    epochs: Values
    values: Values


@dataclass(frozen=True)
class _Point:
    """What one line says: its numbers, and where in training they belong."""

    iteration: int
    epoch: float
    values: dict[str, float]


def read_log(path: Path) -> dict[str, Series]:
    """Return the curves of a log by key.

    Raises:
        StreampetrError: no such file, a broken line (named by its number), or a log without a number.
    """
    lines = list(_read_lines(path))
    points = _mmcv_points(path, lines) if any("mode" in line for _, line in lines) else _own_points(path, lines)
    keys = dict.fromkeys(key for point in points for key in point.values)
    if not keys:
        raise StreampetrError(f"{path}: no line of this log holds a number to plot")
    kept = _without_repeats(points)
    return {key: _series(kept, key) for key in keys if any(key in point.values for point in kept)}


def _series(points: list[_Point], key: str) -> Series:
    of_key = {point.iteration: point for point in points if key in point.values}  # the last one of an iteration counts
    columns = [(point.iteration, point.epoch, point.values[key]) for point in of_key.values()]
    return Series(*np.array(columns, dtype=np.float64).T)


def _without_repeats(points: list[_Point]) -> list[_Point]:
    """Return the points that no later line takes back; their iterations do not fall."""
    kept: list[_Point] = []
    for point in reversed(points):
        if not kept or point.iteration <= kept[-1].iteration:
            kept.append(point)
    return kept[::-1]


def _read_lines(path: Path) -> Iterator[tuple[int, Line]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StreampetrError(f"{path}: cannot be read as a log: {error}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                content = json.loads(line)
            except ValueError as error:
                raise _broken(path, number, f"is no JSON object ({error})") from None
            if not isinstance(content, dict):
                raise _broken(path, number, "is no JSON object")
            yield number, content


def _own_points(path: Path, lines: list[tuple[int, Line]]) -> list[_Point]:
    points = []
    for index, (number, line) in enumerate(lines):
        step = next((line[key] for key in _STEP_KEYS if key in line), None)
        if step is None and index == 0:
            continue
        if not _is_number(step):
            raise _broken(path, number, "has no number as 'step'")
        epoch = line.get("epoch", np.nan)
        if not _is_number(epoch):
            raise _broken(path, number, f"has an 'epoch' that is no number: {epoch!r}")
        points.append(_Point(int(step), float(epoch), _numbers(line)))
    return points


def _mmcv_points(path: Path, lines: list[tuple[int, Line]]) -> list[_Point]:
    rows = [(number, line) for index, (number, line) in enumerate(lines) if index or "mode" in line]
    for number, line in rows:
        if "mode" not in line or not _is_number(line.get("epoch")) or not _is_number(line.get("iter")):
            raise _broken(path, number, "lacks 'mode', or a number as 'epoch' or 'iter'")
    training = [line for _, line in rows if line["mode"] == "train"]
    by_epoch = _starts_anew(training)
    length = _epoch_length(training, by_epoch)
    common = {key for line in training for key in line}
    points, iteration = [], 0
    for _, line in rows:
        is_training = line["mode"] == "train"
        if is_training:
            iteration = line["iter"] + (round((line["epoch"] - 1) * length) if by_epoch else 0)
        values = _numbers(line)
        if not is_training:
            values = {f"val/{key}" if key in common else key: value for key, value in values.items()}
        points.append(_Point(iteration, iteration / length, values))
    return points


def _starts_anew(training: list[Line]) -> bool:
    """Return whether `iter` starts anew in every epoch: whether it ever falls while the epoch rises."""
    return any(
        after["epoch"] > before["epoch"] and after["iter"] <= before["iter"]
        for before, after in zip(training[:-1], training[1:], strict=True)
    )


def _epoch_length(training: list[Line], by_epoch: bool) -> float:
    """Return the iterations of an epoch, as far as the lines tell: mmcv writes one every so many, not the last.

    NaN where only one epoch is there, since it may have been cut short.
    """
    if len({line["epoch"] for line in training}) < 2:
        return np.nan
    return max(line["iter"] / (1 if by_epoch else line["epoch"]) for line in training)


def _numbers(line: Line) -> dict[str, float]:
    return {key: float(value) for key, value in line.items() if _is_number(value) and key not in _PLACE_KEYS}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _broken(path: Path, number: int, what: str) -> StreampetrError:
    return StreampetrError(f"{path}, line {number}: {what}; mend or remove this line")
