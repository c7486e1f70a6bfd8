"""The training loop, from the plan to the last checkpoint; on a page, without callbacks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning_fabric import Fabric
from tqdm import tqdm

from streampetr_core.checkpoint import Checkpoint
from training.data.batch import Batch
from training.data.loading import Data, load
from training.data.recipe_data import make_sampler, open_training_data, open_validation_data
from training.learner import Learner, build_learner, build_model
from training.logs import Logs
from training.plan import Plan, derive, describe
from training.provenance import provenance
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.slots import gather_slots, scatter_slots
from training.step import Carried, run_step
from training.validation import validation_loss


@dataclass
class Run:
    """A run and how far it is."""

    recipe: Recipe
    plan: Plan
    fabric: Fabric
    learner: Learner
    folder: RunFolder
    logs: Logs
    provenance: dict[str, Any]  # what weights say of the run
    carried: list[Carried | None]  # of each micro-batch of this rank
    step: int = 0  # the next one
    best: float = math.inf  # the lowest validation loss so far


def train(
    recipe: Recipe,
    fabric: Fabric,
    out: Path,
    resume: bool = False,
    stop_after: int | None = None,
    hours: float = math.inf,
) -> None:
    """Train to the end of the schedule, and leave the results in `out`.

    It ends earlier after `stop_after` steps in all, or `hours` after its start; then it can be resumed.

    Raises:
        StreampetrError: bad input, before the first step wherever it can be known by then; or a loss that is not
            finite.
    """
    deadline = perf_counter() + 3600 * hours
    folder = RunFolder(out, fabric.is_global_zero)
    folder.check(resume)
    data = open_training_data(recipe)
    validation = open_validation_data(recipe) if recipe.training.validate_every_epochs else None
    plan = derive(recipe, len(data), fabric.world_size)
    share = plan.share(fabric.global_rank)
    make_sampler(recipe, data, share)  # finds out whether there are sequences enough before weights are read
    run, start = _prepare(recipe, plan, fabric, folder, resume)
    fabric.print(f"{describe(plan, recipe)}\nstarts from     {start}")
    folder.begin(recipe, run.step)
    sampler = make_sampler(recipe, data, share, run.step)
    batches = load(data, sampler, recipe.data.workers, pin=fabric.device.type == "cuda")
    _loop(run, batches, validation, min(plan.steps, stop_after or plan.steps), deadline)


def _prepare(recipe: Recipe, plan: Plan, fabric: Fabric, folder: RunFolder, resume: bool) -> tuple[Run, str]:
    """Return the run at its first step, and in words where that is."""
    model, start = build_model(recipe)
    state = folder.load_state(recipe, plan.num_samples, model.detector.fresh_memory()) if resume else None
    learner = build_learner(recipe, plan, model, fabric)
    logs = Logs(folder, fabric, plan, is_scaled=recipe.training.precision == "fp16")
    known = provenance(recipe, plan, fabric)
    run = Run(recipe, plan, fabric, learner, folder, logs, known, [None] * plan.accumulation)
    if state is not None:
        _restore(run, state)
        start = f"step {run.step} of {folder.path}"
    return run, start


def _loop(run: Run, batches: Iterator[tuple[Batch, ...]], validation: Data | None, stop: int, deadline: float) -> None:
    plan, options = run.plan, run.recipe.training
    is_hidden = None if run.fabric.is_global_zero else True
    with tqdm(total=plan.steps, initial=run.step, desc=run.recipe.name, unit="step", disable=is_hidden) as progress:
        while run.step < stop:
            rate = run.learner.set_rates(run.step, plan)
            report, run.carried = run_step(run.fabric, run.learner, run.recipe, plan, batches, run.carried, run.step)
            run.logs.add(report)
            run.step += 1
            progress.update()
            ends_epoch, ends_run = run.step % plan.steps_per_epoch == 0, run.step == stop
            if run.step % options.log_every_steps == 0 or ends_epoch or ends_run:
                # One clock decides for all ranks.
                ends_run |= run.fabric.broadcast(perf_counter() > deadline)
                stop = run.step if ends_run else stop
                progress.set_postfix(loss=f"{run.logs.write(run.step, rate):.4g}", refresh=False)
            if ends_epoch or ends_run:
                _end_epoch(run, validation, ends_epoch, ends_run)
            elif options.save_every_steps and run.step % options.save_every_steps == 0:
                _save(run)


def _end_epoch(run: Run, validation: Data | None, ends_epoch: bool, ends_run: bool) -> None:
    """Validate and save what is due after an epoch, or where the run stops."""
    epoch, options = run.step // run.plan.steps_per_epoch, run.recipe.training

    def is_due(every: int) -> bool:
        return bool(every) and ends_epoch and epoch % every == 0

    if validation is not None and is_due(options.validate_every_epochs):
        loss = validation_loss(run.learner.best_knowledge, validation, run.recipe, run.fabric)
        run.logs.write_validation(run.step, loss)
        if loss < run.best:
            run.best = loss
            run.folder.save_weights(_weights(run), "best")
    if is_due(options.keep_every_epochs):
        run.folder.save_weights(_weights(run), f"epoch_{epoch}")
    if ends_run or is_due(options.save_every_epochs):
        _save(run)


def _save(run: Run) -> None:
    """Leave the weights, and what resuming needs; all ranks must call it together."""
    run.folder.save_weights(_weights(run), "latest")
    run.folder.save_state(_state(run))


def _weights(run: Run) -> Checkpoint:
    known = run.provenance | {"step": run.step}
    return run.learner.native(run.recipe, f"recipe {run.recipe.name}, step {run.step} of {run.plan.steps}", known)


def _state(run: Run) -> dict[str, Any]:
    """Return all that the next step depends on; all ranks must call it together."""
    learner = run.learner
    return {
        "recipe": run.recipe.to_dict(),
        "num_samples": run.plan.num_samples,
        "step": run.step,
        "best": run.best,
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "averaged": None if learner.averaged is None else learner.averaged.state_dict(),
        "precision": run.fabric.strategy.precision.state_dict(),
        "slots": gather_slots(run.carried, run.fabric),
    }


def _restore(run: Run, state: dict[str, Any]) -> None:
    learner, device = run.learner, run.fabric.device
    learner.model.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(state["optimizer"])
    if learner.averaged is not None:
        learner.averaged.load_state_dict(state["averaged"])
    if state["precision"]:
        run.fabric.strategy.precision.load_state_dict(state["precision"])
    run.carried = scatter_slots(state["slots"], run.plan.share(run.fabric.global_rank), device)
    run.step, run.best = state["step"], state["best"]
