"""Muon: directions of equal weight, steps of AdamW's length, the same in several processes as in one."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.training import tiny, tiny_set
from training.learner import make_optimizer
from training.muon import MuonAndAdamW, is_hidden_matrix, orthogonalised
from training.plan import derive


def random_matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Return a matrix whose singular values differ a hundredfold."""
    random = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=random))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=random))
    rank = min(rows, columns)
    return left[:, :rank] @ torch.logspace(-2, 0, rank).diag() @ right[:, :rank].T


@pytest.mark.parametrize("shape", [(8, 8), (6, 30), (30, 6)])
def test_all_directions_of_an_orthogonalised_matrix_count_about_alike(shape):
    matrix = random_matrix(*shape)
    made = orthogonalised(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6 and values.max() < 1.3
    # The directions themselves stay: the part of `matrix` along each of them is positive.
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert (torch.diagonal(left.T @ made @ right.T) > 0.6).all()


def test_steps_are_as_long_as_those_of_adamw_and_matrices_decay():
    weight = torch.nn.Parameter(random_matrix(16, 16))
    before = weight.detach().clone()
    optimizer = MuonAndAdamW([{"params": [weight], "lr": 1e-2, "weight_decay": 0.0, "orthogonal": True}])
    weight.grad = random_matrix(16, 16, seed=1)
    optimizer.step()
    step = (weight.detach() - before).square().mean().sqrt().item()
    assert step == pytest.approx(0.2 * 1e-2, rel=0.2)
    decaying = MuonAndAdamW([{"params": [weight], "lr": 0.5, "weight_decay": 0.1, "orthogonal": True}])
    before, weight.grad = weight.detach().clone(), torch.zeros_like(weight)
    decaying.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.5 * 0.1))


def test_only_hidden_matrices_of_a_model_step_by_muon():
    model = tiny.model()
    hidden = {n for n, p in model.detector.named_parameters() if is_hidden_matrix(n, p)}
    assert {"backbone.layer1.0.conv1.weight", "decoder.layers.0.ffn_in.weight", "neck.output.weight"} <= hidden
    assert hidden.isdisjoint({"backbone.conv1.weight", "queries.reference_points", "heads.boxes.4.weight"})
    assert not any(name.endswith("bias") or "norm" in name for name in hidden)


def test_the_recipe_chooses_and_every_parameter_learns_in_one_group(tmp_path):
    recipe = tiny_set.recipe(tmp_path, schedule={"optimizer": "muon", "multipliers": {"backbone": 0.5}})
    model = tiny.model()
    optimizer = make_optimizer(model, recipe, derive(recipe, 20))
    assert isinstance(optimizer, MuonAndAdamW)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == sum(p.requires_grad for p in model.parameters())
    rates = {(group["lr"], group["orthogonal"]) for group in optimizer.param_groups}
    rate = max(rates)[0]
    assert rates == {(rate, True), (rate, False), (rate / 2, True), (rate / 2, False)}
    published = dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, optimizer="adamw"))
    assert type(make_optimizer(model, published, derive(published, 20))) is torch.optim.AdamW


def _steps(rank: int, world: int, path: str, results) -> None:
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
    weights = [torch.nn.Parameter(random_matrix(*shape)) for shape in ((4, 4), (6, 3), (2, 8))]
    optimizer = MuonAndAdamW([{"params": weights, "lr": 0.1, "orthogonal": True}])
    for number in range(3):
        for index, weight in enumerate(weights):
            weight.grad = random_matrix(*weight.shape, seed=10 * number + index)
        optimizer.step()
    results[rank] = [weight.detach().tolist() for weight in weights]
    if world > 1:
        dist.destroy_process_group()


def test_processes_that_share_the_work_take_the_same_steps_as_one(tmp_path):
    alone: dict = {}
    _steps(0, 1, "", alone)
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(_steps, (2, str(tmp_path / "meeting"), shared), nprocs=2)
        for rank in range(2):
            for ours, expected in zip(shared[rank], alone[0], strict=True):
                torch.testing.assert_close(torch.tensor(ours), torch.tensor(expected), rtol=0, atol=1e-6)
