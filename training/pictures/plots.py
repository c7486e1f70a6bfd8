"""Figures of curves and of metrics."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from streampetr_core.errors import StreampetrError
from training.pictures.curves import Curve
from training.pictures.metrics import Metrics

# Distinct also to most colour-blind eyes (Okabe and Ito, 2008); more lines than colours go on with other dashes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")
_DISTANCE_COLOURS = ("#0b2a5b", "#2171b5", "#35a89a", "#f2b134")  # the strictest match is the darkest
_ERRORS = {
    "trans_err": "ATE\n(m)",
    "scale_err": "ASE\n(1 - IoU)",
    "orient_err": "AOE\n(rad)",
    "vel_err": "AVE\n(m/s)",
    "attr_err": "AAE\n(1 - acc.)",
}


def plot_curves(curves: Sequence[Curve], along: str, title: str, separate: bool, logarithmic: bool) -> Figure:
    """Return a figure with all curves, or with a panel for each key (`separate`).

    Where a curve is smoothed its raw values show faintly behind it.
    """
    keys = list(dict.fromkeys(curve.key for curve in curves))
    runs = list(dict.fromkeys(curve.run for curve in curves))
    panels = [[curve for curve in curves if curve.key == key] for key in keys] if separate else [list(curves)]
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(10 if columns == 1 else 14, 1 + 4.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, of_panel in zip(axes, panels, strict=False):
        names = [_name(curve, runs, [] if separate else keys) for curve in of_panel]
        _plot_panel(panel, of_panel, names)
        panel.set_xlabel(along)
        panel.set_ylabel(of_panel[0].key if separate or len(keys) == 1 else "value")
        if logarithmic:
            panel.set_yscale("log")
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    figure.suptitle(title, fontsize=13)
    return figure


def plot_average_precision(metrics: Metrics, title: str) -> Figure:
    """Return a figure with the AP of each class at each distance, their mean, and a table of the errors."""
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    bars, table = figure.subplots(1, 2, width_ratios=(1.5, 1), sharey=True)
    classes = sorted(metrics.classes, key=lambda item: item.mean_average_precision)
    places = np.arange(len(classes))
    distances = [curve.distance for curve in classes[0].curves]
    height = 0.8 / len(distances)
    for index, (distance, colour) in enumerate(zip(distances, _distance_colours(len(distances)), strict=True)):
        values = [item.curves[index].average_precision for item in classes]
        offset = 0.4 - height * (index + 0.5)
        bars.barh(places + offset, values, height, color=colour, label=f"within {distance:g} m")
    means = [item.mean_average_precision for item in classes]
    bars.plot(means, places, "D", color="#D55E00", markeredgecolor="white", markersize=8, label="mean", zorder=3)
    for place, item in zip(places, classes, strict=True):
        bars.text(1.02, place, f"{item.mean_average_precision:.3f}", va="center", color="#D55E00", weight="bold")
    bars.set(xlim=(0, 1.12), xlabel="average precision (AP)", yticks=places, xticks=np.linspace(0, 1, 6))
    bars.set_yticklabels([item.name.replace("_", " ") for item in classes])
    bars.grid(axis="x", alpha=0.3)
    bars.set_axisbelow(True)
    figure.legend(*bars.get_legend_handles_labels(), loc="outside lower left", ncols=5, frameon=False)
    _plot_errors(table, metrics, [item.errors for item in classes])
    summary = f"mAP {metrics.mean_average_precision:.4f}   NDS {metrics.detection_score:.4f}"
    figure.suptitle(f"{title}\n{summary}", fontsize=13)
    return figure


def plot_precision_recall(metrics: Metrics, title: str) -> Figure:
    """Return a figure with precision over recall, a panel for each class, a line for each distance."""
    columns = 5
    rows = -(-len(metrics.classes) // columns)
    figure = Figure(figsize=(3.1 * columns, 0.9 + 3.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, item in zip(axes, metrics.classes, strict=False):
        # The evaluation leaves out what lies below one tenth of either.
        panel.axvspan(0, 0.1, color="#eeeeee")
        panel.axhspan(0, 0.1, color="#eeeeee")
        for index, (curve, colour) in enumerate(zip(item.curves, _distance_colours(len(item.curves)), strict=True)):
            # Curves often lie on each other: the laxer ones are wider and lie below.
            panel.plot(
                curve.recall,
                curve.precision,
                color=colour,
                linewidth=1.4 + 1.3 * index,
                zorder=3 - 0.1 * index,
                label=f"within {curve.distance:g} m",
            )
        panel.set_title(f"{item.name.replace('_', ' ')}   AP {item.mean_average_precision:.3f}", fontsize=10)
        panel.set(xlim=(0, 1.01), ylim=(0, 1.03))
        panel.grid(alpha=0.3)
    for panel in axes[len(metrics.classes) :]:
        panel.set_visible(False)
    figure.supxlabel("recall")
    figure.supylabel("precision")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=len(labels), frameon=False)
    figure.suptitle(f"{title}: precision over recall (grey: left out of the AP)", fontsize=13)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the ending of `path` says in which format.

    Raises:
        StreampetrError: a format that matplotlib does not know, or a file that cannot be written.
    """
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise StreampetrError(f"--out {path}: no figure ends like this; choose among {', '.join(sorted(known))}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise StreampetrError(f"--out {path}: cannot be written: {error.strerror}") from None


def _plot_panel(panel: Axes, curves: Sequence[Curve], names: Sequence[str]) -> None:
    for index, (curve, name) in enumerate(zip(curves, names, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        dashes = _DASHES[index // len(_COLOURS) % len(_DASHES)]
        marker = "o" if len(curve.x) < 20 else None
        if not np.array_equal(curve.raw, curve.y, equal_nan=True):
            panel.plot(curve.x, curve.raw, color=colour, alpha=0.2, linewidth=0.8)
        panel.plot(curve.x, curve.y, dashes, color=colour, linewidth=1.6, marker=marker, markersize=4, label=name)
    panel.grid(alpha=0.3)
    panel.margins(x=0.01)
    panel.legend(frameon=False, fontsize=9)


def _name(curve: Curve, runs: Sequence[str], keys: Sequence[str]) -> str:
    if not keys:
        return curve.run
    return curve.key if len(runs) == 1 else f"{curve.run}: {curve.key}"


def _distance_colours(count: int) -> list[str]:
    return [_DISTANCE_COLOURS[index % len(_DISTANCE_COLOURS)] for index in range(count)]


def _plot_errors(table: Axes, metrics: Metrics, errors: Sequence[dict[str, float]]) -> None:
    """Write the errors of each class as a table, shaded from good (light) to bad; the means stand on top."""
    shades = np.array([[row[name] for name in _ERRORS] for row in errors])
    table.imshow(np.clip(shades, 0, 1), cmap="Oranges", vmin=0, vmax=1.6, aspect="auto", origin="lower")
    for row, values in enumerate(shades):
        for column, value in enumerate(values):
            table.text(column, row, "-" if np.isnan(value) else f"{value:.2f}", ha="center", va="center")
    labels = [f"{label}\nmean {metrics.errors[name]:.2f}" for name, label in _ERRORS.items()]
    table.set_xticks(range(len(labels)), labels)
    table.xaxis.tick_top()
    table.tick_params(length=0, labelleft=False)
    table.spines[:].set_visible(False)
    table.set_xlabel("errors of true positives: lower is better")
