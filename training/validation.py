"""The loss of the validation split: how well the weights do on scenes that they never learned from."""

import torch
from lightning_fabric import Fabric
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from training.data.loading import Data, load
from training.data.sampler import Request
from training.data.sequences import split_among_ranks
from training.losses.criterion import alone, total_loss
from training.losses.forward import TrainingModel
from training.recipe import Recipe
from training.step import Carried, make_frames, seed_step


@torch.no_grad()
def validation_loss(model: TrainingModel, data: Data, recipe: Recipe, fabric: Fabric) -> float:
    """Return the mean loss of all frames; every rank takes whole scenes, and all must call it together."""
    indices = split_among_ranks(data.sequence_F, fabric.world_size)[fabric.global_rank].tolist()
    requests = [[Request(index, (recipe.training.seed, index))] for index in indices]
    reduce_mean, model.reduce_mean = model.reduce_mean, alone
    model.eval()
    total = torch.zeros(2, dtype=torch.float64)
    try:
        carried = None
        progress = tqdm(total=len(requests), desc="validation", unit="frame", leave=False, disable=_quiet(fabric))
        for windows in load(data, requests, recipe.data.workers, pin=False) if requests else ():
            seed_step(recipe.training.seed, 0, 0)
            windows = [batch.to(fabric.device) for batch in windows]
            memory = model.detector.fresh_memory(1) if carried is None else carried.memory
            with fabric.autocast():
                losses, memory = model(make_frames(windows, recipe, carried), memory, [windows[-1].truths])
            carried = Carried(memory, windows[-1].moment)
            total += torch.tensor([total_loss(losses).item(), 1.0])
            progress.update()
        progress.close()
    finally:
        model.reduce_mean = reduce_mean
        model.train()
    total = fabric.all_reduce(total.to(fabric.device), reduce_op="sum").tolist()
    if not total[1]:
        raise StreampetrError("the validation split has no frames; leave validate_every_epochs at 0")
    return total[0] / total[1]


def _quiet(fabric: Fabric) -> bool | None:
    """Show progress on rank 0 alone, and there on terminals alone."""
    return None if fabric.is_global_zero else True
