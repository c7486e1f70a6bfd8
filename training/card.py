"""A model card: what weights are, how they were learned and how good they are, as a page of Markdown.

Everything comes from files: the weights' own metadata, the log of their run, and metrics of nuscenes-devkit.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampetr_core.checkpoint import TRAINING_PREFIXES, Checkpoint
from streampetr_core.errors import StreampetrError
from training.dry_run import duration
from training.recipe import Recipe, recipe_from_dict

_CURVE_ROWS = 10

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run that led to weights: what they say of it, its log, and the file name of a figure of its loss."""

    training: dict[str, Any]  # see `Checkpoint.training`
    log: Sequence[Record] = ()
    picture: str = ""


def model_card(
    name: str, checkpoint: Checkpoint, runs: Sequence[Run], metrics: Sequence[tuple[str, dict[str, Any]]] = ()
) -> str:
    """Return the card.

    Args:
        name: of the weights file.
        checkpoint: the weights.
        runs: those that led to the weights, in order.
        metrics: names and contents of metrics_summary.json files, of detection or tracking.
    """
    parts = [f"# {name}", _table(_model_rows(checkpoint))]
    for number, run in enumerate(runs, 1):
        part = f", run {number} of {len(runs)}" if len(runs) > 1 else ""
        if run.training:
            recipe = recipe_from_dict(run.training["recipe"], name)
            parts += [f"## Training{part}", _table(_training_rows(recipe, run.training, run.log))]
        curve = [record for record in run.log if "loss" in record or "val_loss" in record]
        if curve:
            figure = [f"![loss over steps]({run.picture})"] if run.picture else []
            parts += [f"## Loss{part}", *figure, _curve_table(curve)]
    if metrics:
        parts += ["## Metrics", "Computed by nuscenes-devkit."]
    for source, summary in metrics:
        parts += [f"### {_split(summary)}{source}", f"```\n{_metrics_table(source, summary)}\n```"]
    return "\n\n".join(parts) + "\n"


def read_records(path: Path) -> list[Record]:
    """Return the lines of a run's log.jsonl; raises StreampetrError for a file that is none."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise StreampetrError(f"{path}: cannot be read as a log: {error}; give the folder of a run") from error


def read_summary(path: Path) -> dict[str, Any]:
    """Return a metrics_summary.json; raises StreampetrError for a file that is none."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StreampetrError(f"{path}: cannot be read as JSON: {error}; give a metrics_summary.json") from error
    if not isinstance(summary, dict) or not summary.keys() & {"nd_score", "amota"}:
        raise StreampetrError(f"{path}: has neither nd_score nor amota; give a metrics_summary.json of nuscenes-devkit")
    return summary


def training_seconds(log: Sequence[Record]) -> float:
    """Return the time that the steps of a log took, validation and pauses left out."""
    seconds, before = 0.0, -1
    for record in log:
        if "step_time" in record:
            seconds += record["step_time"] * (record["step"] - before)
            before = record["step"]
    return seconds


def _model_rows(checkpoint: Checkpoint) -> dict[str, str]:
    config = checkpoint.config
    count = sum(value.numel() for key, value in checkpoint.state.items() if not key.startswith(TRAINING_PREFIXES))
    return {
        "model": f"{config.name}: {config.backbone}, {config.input_height} x {config.input_width} pixels, "
        f"{config.num_learned} + {config.num_propagated} queries, {count / 1e6:.1f} million numbers",
        "classes": ", ".join(config.class_names),
        "reference frame": config.reference_frame,
        "licence": checkpoint.licence,
        "source": checkpoint.source,
    }


def _training_rows(recipe: Recipe, training: dict[str, Any], log: Sequence[Record]) -> dict[str, str]:
    schedule, options = recipe.schedule, recipe.training
    epochs = training["step"] / training["steps_per_epoch"]
    return {
        "recipe": recipe.name,
        "seed": str(options.seed),
        "data": f"{_data(recipe)}; {training['num_samples']} samples",
        "start": options.initial_checkpoint or options.backbone_weights or "random weights",
        "length": f"{training['step']} of {training['steps']} steps, {epochs:.4g} of {schedule.epochs} epochs",
        "learns": {"all": "everything", "images": "backbone, neck and what image tokens say"}.get(
            options.learns, "everything but backbone and neck"
        ),
        "batch, learning rate": f"{schedule.global_batch}, {schedule.learning_rate:g} for a batch of 16",
        "optimizer": schedule.optimizer,
        "precision": f"{options.precision}, running average {options.ema_decay or 'off'}",
        "hardware": training["hardware"],
        "time": f"{duration(training_seconds(log))} of steps" if log else "not known",
        "software": training["software"],
        "commit": training["commit"] or "not known",
    }


def _data(recipe: Recipe) -> str:
    scenes = recipe.data.synthetic
    if scenes is None:
        return Path(recipe.data.train_infos).name
    return f"{scenes.scenes} rendered scenes, {scenes.width} x {scenes.height} pixels, world seed {scenes.seed}"


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _curve_table(curve: Sequence[Record]) -> str:
    """Return some of the losses, evenly spread, the first and the last among them; and all of the validation's."""
    training = [record for record in curve if "loss" in record]
    last = len(training) - 1
    shown = {round(place * last / (_CURVE_ROWS - 1)) for place in range(_CURVE_ROWS)} if training else set()
    kept = [training[index] for index in sorted(shown)] + [record for record in curve if "val_loss" in record]
    rows = [
        f"| {record['step'] + 1} | {record['epoch']:.4g} | {_number(record, 'loss')} | {_number(record, 'val_loss')} |"
        for record in sorted(kept, key=lambda record: record["step"])
    ]
    return "\n".join(["| step | epoch | loss | validation loss |", "|---|---|---|---|", *rows])


def _number(record: Record, key: str) -> str:
    return f"{record[key]:.4g}" if key in record and math.isfinite(record[key]) else "-"


def _split(summary: dict[str, Any]) -> str:
    data = summary.get("data")
    return f"{data['version']} {data['split']}: " if data else ""


def _metrics_table(source: str, summary: dict[str, Any]) -> str:
    # The devkit takes seconds to import.
    from training.evaluation.detection import detection_table
    from training.evaluation.tracking_eval import tracking_table

    try:
        return tracking_table(summary) if "amota" in summary else detection_table(summary)
    except (KeyError, TypeError, ValueError) as error:
        raise StreampetrError(f"{source}: lacks {error}; evaluate again with `streampetr test`") from error
