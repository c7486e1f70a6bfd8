"""What follows from a recipe: plans, samples seen by any number of ranks, learning rates."""

import math
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampetr_core.errors import StreampetrError
from training.data.sampler import StreamingSampler
from training.data.sequences import sequence_ids
from training.plan import derive, describe
from training.recipe import load_recipe

RECIPE = load_recipe("r50_704_900q_24e")


@pytest.mark.parametrize(("batch", "rate"), [(16, 4e-4), (8, 2e-4), (4, 1e-4), (32, 8e-4)])
def test_the_learning_rate_follows_the_global_batch(batch, rate):
    recipe = load_recipe("r50_704_900q_24e", [f"schedule.global_batch={batch}"])
    assert derive(recipe, 28130).learning_rate == pytest.approx(rate, rel=1e-12)


def test_the_published_plan_on_eight_gpus():
    plan = derive(RECIPE, 28130, 8)
    assert (plan.per_rank_batch, plan.accumulation, plan.steps_per_epoch, plan.steps) == (2, 1, 1758, 24 * 1758)
    assert "24 of 1758 steps: 42192 steps, 675072 samples seen" in describe(plan, RECIPE)


def test_the_sliding_window_plan_on_eight_gpus():
    plan = derive(load_recipe("sliding_8key_2grad_24e"), 28130, 8)
    assert (plan.per_rank_batch, plan.global_batch, plan.learning_rate) == (1, 8, pytest.approx(2e-4))


@given(world=st.sampled_from([1, 2, 4, 8, 16]), limit=st.integers(1, 16), samples=st.integers(16, 40000))
def test_any_layout_makes_up_the_global_batch_and_the_same_steps(world, limit, samples):
    plan = derive(RECIPE, samples, world, limit)
    assert plan.per_rank_batch * plan.accumulation * world == plan.global_batch == 16
    assert plan.per_rank_batch <= limit
    assert (plan.steps, plan.learning_rate, plan.schedule) == (
        derive(RECIPE, samples).steps,
        derive(RECIPE, samples).learning_rate,
        derive(RECIPE, samples).schedule,
    )


def test_one_two_and_four_ranks_see_the_same_samples():
    """Two epochs of 24 scenes of eight frames: counted as the samplers of all ranks hand them out."""
    recipe = load_recipe("r50_704_900q_24e", ["schedule.epochs=2", "schedule.max_per_rank_batch=2"])
    sequence = sequence_ids([number % 8 == 0 for number in range(24 * 8)], 2)
    seen = {}
    for world in (1, 2, 4):
        plan = derive(recipe, len(sequence), world)
        samplers = [StreamingSampler(sequence, plan.share(rank), 0) for rank in range(world)]
        micro_batches = [islice(sampler, plan.steps * plan.accumulation) for sampler in samplers]
        seen[world] = sorted(
            (request.index, request.seed) for rank in micro_batches for requests in rank for request in requests
        )
    assert len(seen[1]) == 2 * 24 * 8
    assert seen[1] == seen[2] == seen[4]
    counts = Counter(index for index, _ in seen[1])
    assert counts == dict.fromkeys(range(24 * 8), 2)


def test_impossible_plans_are_refused():
    with pytest.raises(StreampetrError, match="global batch of 16 cannot be shared evenly by 3 ranks"):
        derive(RECIPE, 28130, 3)
    with pytest.raises(StreampetrError, match="15 samples are too few for a global batch of 16"):
        derive(RECIPE, 15)


def test_the_schedule_ends_low():
    plan = derive(RECIPE, 28130, 8)
    assert math.isclose(plan.schedule.final_share, 1e-3)
    assert plan.schedule.warmup_steps == 500
