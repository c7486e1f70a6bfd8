"""What the training loop costs beside its own forward and backward pass, and how much memory a step takes.

The same model, optimizer and batches are run twice: bare (forward, backward, clip, AdamW on tensors that wait in
memory) and through `training.step.run_step` with everything that the loop does around it, logs included. Loading is
left out of both; bench/data_loading.py measures it.

Example:
  python -m bench.training_step --steps 20
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from lightning_fabric import Fabric

from training.data.batch import Batch
from training.data.loading import load
from training.data.recipe_data import make_sampler, open_training_data
from training.fabric import make_fabric
from training.learner import Learner, build_learner, build_model
from training.logs import Logs, peak_memory_mb
from training.losses.criterion import total_loss
from training.plan import Plan, derive
from training.provenance import device_name
from training.recipe import Recipe, load_recipe
from training.run_folder import RunFolder
from training.step import make_frames, run_step, seed_step

_WARM_UP = 3


def main() -> None:
    """Print both times and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="synthetic_smoke")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    recipe = load_recipe(args.recipe, args.set)
    fabric = make_fabric(recipe.training.precision)
    data = open_training_data(recipe)
    plan = derive(recipe, len(data))
    waiting = load(data, make_sampler(recipe, data, plan.share(0)), recipe.data.workers, pin=False)
    batches = [[batch.to(fabric.device) for batch in next(waiting)] for _ in range(plan.accumulation)]
    learner = build_learner(recipe, plan, build_model(recipe)[0], fabric)
    with TemporaryDirectory() as folder:
        logs = Logs(RunFolder(Path(folder)), fabric, plan, is_scaled=recipe.training.precision == "fp16")
        bare, whole = _time_in_turn(
            (
                lambda step: _bare_step(recipe, plan, fabric, learner, batches, step),
                lambda step: _whole_step(recipe, plan, fabric, learner, batches, logs, step),
            ),
            args.steps,
            fabric,
        )
    print(f"{device_name(fabric.device)}, {torch.get_num_threads()} threads; PyTorch {torch.__version__}")
    print(f"bare forward, backward, update   {1e3 * bare:8.1f} ms")
    print(f"step of the loop                 {1e3 * whole:8.1f} ms  ({whole / bare - 1:+.1%}; goal: within 5 %)")
    print(f"peak memory                      {peak_memory_mb(fabric.device):8.0f} MiB")


def _time_in_turn(steps: tuple[Callable[[int], None], ...], count: int, fabric: Fabric) -> list[float]:
    """Return the median seconds of each kind of step; kinds take turns, so that a busy machine hits all alike."""
    times: list[list[float]] = [[] for _ in steps]
    for number in range(_WARM_UP + count):
        for kind, step in enumerate(steps):
            start = time.perf_counter()
            step(number)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            times[kind].append(time.perf_counter() - start)
    return [float(np.median(values[_WARM_UP:])) for values in times]


def _bare_step(
    recipe: Recipe, plan: Plan, fabric: Fabric, learner: Learner, batches: list[list[Batch]], step: int
) -> None:
    learner.optimizer.zero_grad()
    model = learner.model
    for number, windows in enumerate(batches):
        seed_step(recipe.training.seed, step, number * plan.per_rank_batch)
        with fabric.autocast():
            memory = model.detector.fresh_memory(len(windows[0].tokens))
            frames = make_frames(windows, recipe, None)
            truths = [batch.truths for batch in windows[-recipe.training.learned_frames :]]
            losses, _ = model(frames, memory, truths)
        fabric.backward(total_loss(losses) / plan.accumulation)
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.schedule.max_norm)
    learner.optimizer.step()


def _whole_step(
    recipe: Recipe, plan: Plan, fabric: Fabric, learner: Learner, batches: list[list[Batch]], logs: Logs, step: int
) -> None:
    rate = learner.set_rates(step, plan)
    report, _ = run_step(fabric, learner, recipe, plan, itertools.cycle(batches), [None] * plan.accumulation, step)
    logs.add(report)
    if (step + 1) % recipe.training.log_every_steps == 0:
        logs.write(step + 1, rate)


if __name__ == "__main__":
    main()
