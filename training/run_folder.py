"""The folder of one run: recipe, log, weights and what resuming needs.

recipe.yaml          the recipe, complete
log.jsonl            one JSON object a line
latest.safetensors   native weights, also best.safetensors and epoch_<n>.safetensors
resume.pt            raw weights, optimizer, memory of every slot, step: written last, so it always fits
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from streampetr_core.checkpoint import Checkpoint, save_checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.memory import Memory
from training.recipe import Recipe

_RESUME, _RECIPE, _LOG = "resume.pt", "recipe.yaml", "log.jsonl"
# What may differ when a run goes on: it changes neither the samples nor what is learned from them.
_FREE = {
    "model": ("name",),
    "data": ("dataroot", "train_infos", "val_infos", "workers", "licence"),
    "schedule": ("max_per_rank_batch",),
    "training": (
        "precision",
        "backbone_weights",
        "initial_checkpoint",
        "activation_checkpointing",
        "log_every_steps",
        "save_every_epochs",
        "save_every_steps",
        "keep_every_epochs",
        "validate_every_epochs",
    ),
}


class RunFolder:
    """Reads and writes the files of a run; only rank 0 writes."""

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path = path
        self._is_writer = is_writer

    def check(self, resume: bool) -> None:
        """Raise StreampetrError where a run would be overwritten, or where there is none to resume."""
        has_run = (self.path / _RESUME).is_file()
        if resume and not has_run:
            raise StreampetrError(f"{self.path}: holds no run to resume ({_RESUME} is missing); leave --resume out")
        if has_run and not resume:
            raise StreampetrError(f"{self.path}: holds a run already; go on with --resume, or choose another folder")

    def begin(self, recipe: Recipe, next_step: int) -> None:
        """Write the recipe; drop log lines from `next_step` on, which a resumed run writes again."""
        if not self._is_writer:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
        (self.path / _RECIPE).write_text(text, encoding="utf-8")
        log = self.path / _LOG
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        kept = [line for line in lines if _is_before(line, next_step)]
        log.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to the log."""
        if self._is_writer:
            with (self.path / _LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def save_weights(self, checkpoint: Checkpoint, name: str) -> None:
        """Write native weights."""
        if self._is_writer:
            save_checkpoint(checkpoint, self.path / f"{name}.safetensors")

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write what resuming needs; the former state is replaced only by a complete one."""
        if not self._is_writer:
            return
        partial = self.path / (_RESUME + ".partial")
        try:
            torch.save(dict(state), partial)
            partial.replace(self.path / _RESUME)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise StreampetrError(f"{self.path / _RESUME}: cannot be written: {error}") from error

    def load_state(self, recipe: Recipe, num_samples: int, memory: Memory) -> dict[str, Any]:
        """Return the state to resume from, on the CPU; `memory` is one of the recipe's model.

        Raises:
            StreampetrError: a damaged file, a run of another recipe or version, or data of another size.
        """
        path = self.path / _RESUME
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # bytes of another kind make the unpickler stumble in any way
            raise StreampetrError(f"{path}: not a readable state of training ({type(error).__name__})") from error
        other = _differences(state["recipe"], recipe.to_dict())
        if other:
            raise StreampetrError(f"{path}: the run has other values of {', '.join(other)}; resume with its own recipe")
        slots = state["slots"]
        other = [name for name, x in vars(memory).items() if name not in slots or slots[name].shape[1:] != x.shape[1:]]
        if other:
            raise StreampetrError(
                f"{path}: the run's memory has no such {', '.join(other)}, it was begun by an earlier version; begin a "
                "new run from its weights (--set training.initial_checkpoint=.../latest.safetensors)"
            )
        if state["num_samples"] != num_samples:
            raise StreampetrError(
                f"{path}: the run has {state['num_samples']} training samples, the data now {num_samples}; "
                "resume with its own data"
            )
        return state


def _is_before(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] < step
    except (ValueError, KeyError, TypeError):  # cut off when the run was killed
        return False


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the keys, section by section, whose values differ and matter."""
    found = []
    for section in sorted(first.keys() | second.keys()):
        a, b = first.get(section), second.get(section)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            keys = sorted((a.keys() | b.keys()) - set(_FREE.get(section, ())))
            found += [f"{section}.{key}" for key in keys if a.get(key) != b.get(key)]
        elif a != b and section != "name":
            found.append(section)
    return found
