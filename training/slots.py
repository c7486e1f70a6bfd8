"""The memory of all slots of the global batch as one table, so that a run can go on with another number of ranks."""

from collections.abc import Mapping, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from streampetr_core.memory import Memory
from training.data.batch import Moment
from training.data.sampler import Share
from training.step import Carried


def gather_slots(carried: Sequence[Carried], fabric: Fabric) -> dict[str, Tensor]:
    """Return every field of memory and moment with one row for each slot; all ranks must call it together."""
    rows = [{**vars(item.memory), **vars(item.moment)} for item in carried]
    own = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    if fabric.world_size == 1:
        return {name: value.cpu() for name, value in own.items()}
    # Ranks follow each other in the global batch, and so do the micro-batches of a rank.
    return {name: fabric.all_gather(value).flatten(0, 1).cpu() for name, value in own.items()}


def scatter_slots(rows: Mapping[str, Tensor], share: Share, device: torch.device) -> list[Carried]:
    """Return what the slots of this rank carry, micro-batch by micro-batch."""
    carried = []
    for slots in share.micro_batches():
        part = {name: value[slots.start : slots.stop].to(device) for name, value in rows.items()}
        memory = Memory(**{name: part[name] for name in Memory.__dataclass_fields__})
        moment = Moment(**{name: part[name] for name in Moment.__dataclass_fields__})
        carried.append(Carried(memory, moment))
    return carried
