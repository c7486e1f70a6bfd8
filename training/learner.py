"""What learns: the model under its losses, its optimizer and, if wanted, its running average."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from streampetr_core.backbones.resnet import BasicBlock, Bottleneck
from streampetr_core.backbones.vovnet import AggregationBlock
from streampetr_core.checkpoint import Checkpoint, load_checkpoint
from streampetr_core.decoder import DecoderLayer
from streampetr_core.detector import Detector
from streampetr_core.errors import StreampetrError
from streampetr_core.frame import Frame
from streampetr_core.memory import Memory
from streampetr_core.proposals import TokenHead
from training.freezing import freeze_stages
from training.losses.aux_head import AuxHead
from training.losses.forward import TrainingModel
from training.muon import MuonAndAdamW, is_hidden_matrix
from training.plan import Plan
from training.pretrained import load_backbone
from training.recipe import Recipe, check_same_model
from training.schedule import base_rate_of, learning_rate
from training.truth import Truth

_COSTLY = (BasicBlock, Bottleneck, AggregationBlock, DecoderLayer)  # whose activations may be computed twice
_COUNTER = "num_batches_tracked"


class Loose(nn.Module):
    """A training model that returns plain dicts: Fabric walks through outputs, and into no frozen dataclass."""

    def __init__(self, model: TrainingModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frames: Sequence[Frame], memory: Memory, truths: Sequence[Sequence[Truth]]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return losses by name and the fields of the next memory; see `TrainingModel.forward`."""
        losses, memory = self.model(frames, memory, truths)
        return losses, dict(vars(memory))


@dataclass
class Learner:
    """A model that learns, with all state that is changed in place."""

    model: TrainingModel
    wrapped: nn.Module  # the same as Fabric wraps it
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None

    @property
    def best_knowledge(self) -> TrainingModel:
        """The weights that are worth saving: the average where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    def native(self, recipe: Recipe, source: str, training: dict[str, Any]) -> Checkpoint:
        """Return a native checkpoint of the weights, auxiliary head included; see `Checkpoint` for the last two."""
        state = self.best_knowledge.native_state()
        state = {key: value.detach().cpu() for key, value in state.items() if not key.endswith(_COUNTER)}
        if recipe.training.half_weights:
            state = {key: value.half() if value.dim() > 1 else value for key, value in state.items()}
        return Checkpoint(recipe.model, state, recipe.data.licence, source, training)

    def set_rates(self, step: int, plan: Plan) -> float:
        """Set the learning rate of every group for a step; return that of the modules without a multiplier."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, group["base_rate"], plan.schedule)
        return learning_rate(step, plan.learning_rate, plan.schedule)


def build_model(recipe: Recipe) -> tuple[TrainingModel, str]:
    """Return a fresh model with the weights that the recipe starts from, and in words which those are."""
    options = recipe.training
    torch.manual_seed(options.seed)
    detector = Detector(recipe.model)
    aux_head = AuxHead(recipe.model) if options.aux_head else None
    start = "random weights"
    if options.backbone_weights:
        start = load_backbone(detector.backbone, options.backbone_weights)
    freeze_stages(detector.backbone, options.frozen_stages)
    # A model with proposals has a head of its own.
    dense_head = TokenHead(recipe.model) if options.dense_head and not recipe.model.num_proposals else None
    model = TrainingModel(
        detector,
        aux_head,
        recipe.loss,
        learns_batch_norm=options.batch_norm == "learned",
        dense_head=dense_head,
        learns=options.learns,
        images_per_sample=options.images_per_sample,
    )
    if options.initial_checkpoint:
        given = load_checkpoint(options.initial_checkpoint)
        check_same_model(given, options.initial_checkpoint, recipe)
        model.load_native_state(given.state)
        start = options.initial_checkpoint
    return model, start


def build_learner(recipe: Recipe, plan: Plan, model: TrainingModel, fabric: Fabric) -> Learner:
    """Return the learner of this rank, on its device."""
    averaged = None
    if recipe.training.ema_decay:
        average = get_ema_multi_avg_fn(recipe.training.ema_decay)
        averaged = AveragedModel(model, device=fabric.device, multi_avg_fn=average, use_buffers=True)
    if recipe.training.batch_norm == "learned" and plan.world_size > 1 and fabric.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if recipe.training.activation_checkpointing:
        recompute_activations(model)
    if plan.world_size > 1:
        model.reduce_mean = partial(fabric.all_reduce, reduce_op="mean")
    optimizer = make_optimizer(model, recipe, plan)
    wrapped, optimizer = fabric.setup(Loose(model), optimizer)
    return Learner(model, wrapped, optimizer, averaged)


def make_optimizer(model: TrainingModel, recipe: Recipe, plan: Plan) -> AdamW:
    """Return the optimizer with a group for every learning rate; decay is on all parameters, as published."""
    stated = recipe.schedule
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    names = [name.removeprefix("detector.") for name, _ in model.named_parameters()]
    for prefix in stated.multipliers:
        if not any(name == prefix or name.startswith(prefix + ".") for name in names):
            raise StreampetrError(f"recipe '{recipe.name}': schedule.multipliers names no module '{prefix}'")
    for name, parameter in zip(names, model.parameters(), strict=True):
        if parameter.requires_grad:
            rate = base_rate_of(name, plan.learning_rate, stated.multipliers)
            orthogonal = stated.optimizer == "muon" and is_hidden_matrix(name, parameter)
            groups.setdefault((rate, orthogonal), []).append(parameter)
    settings = [
        {"params": parameters, "lr": rate, "base_rate": rate, "orthogonal": orthogonal}
        for (rate, orthogonal), parameters in groups.items()
    ]
    return (MuonAndAdamW if stated.optimizer == "muon" else AdamW)(settings, weight_decay=stated.weight_decay)


def recompute_activations(model: nn.Module) -> None:
    """Keep no activations inside of costly blocks; the backward pass computes them again."""
    for module in model.modules():
        if isinstance(module, _COSTLY):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
