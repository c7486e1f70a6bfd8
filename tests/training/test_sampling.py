"""Sequences, samplers, grid masks and learning rates against those that the official code recorded."""

import re
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streampetr_core.errors import StreampetrError
from tests.training import golden
from training.data.gridmask import apply_grid_mask, draw_grid_mask, grid_mask_array
from training.data.sampler import Share, ShuffledSampler, StreamingSampler, shuffles
from training.data.sequences import sequence_ids, split_among_ranks
from training.schedule import Schedule, base_rate_of, learning_rate

DATASET = golden.load_json("dataset")
MASKS = golden.load_arrays("gridmask")
STARTS = [True, False, False, False, False, True, False, False, False, True, False, False]


@pytest.mark.parametrize("pieces", [1, 2, "all"])
def test_sequences_are_the_official_ones(pieces):
    assert sequence_ids(STARTS, pieces).tolist() == DATASET["splits"][str(pieces)]["flag"]


def test_the_first_frame_starts_a_sequence_even_if_its_scene_began_earlier():
    assert sequence_ids([False, False, True], 1).tolist() == [0, 0, 1]


def test_a_scene_that_is_too_short_makes_fewer_pieces():
    assert sequence_ids([True, False, True], 4).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", [name for name in DATASET["sampler"]["batches"] if name.startswith("bs")])
def test_batches_are_the_official_ones(name):
    batch, world, rank, seed = map(int, re.findall(r"\d+", name))
    sampler = StreamingSampler(DATASET["sampler"]["flag"], Share(batch * world, rank, world), seed)
    batches = [[request.index for request in batch] for batch in islice(sampler, 25)]
    assert batches == DATASET["sampler"]["batches"][name]


def test_the_row_of_shuffles_is_the_official_one():
    recorded = DATASET["sampler"]["batches"]["randperm_seed0_groups"]
    assert list(islice(shuffles(6, 0), 240)) == [group for shuffle in recorded for group in shuffle]


def steps(sampler_of, share, count, first_step=0):
    """What all micro-batches of the first `count` steps show, slot by slot."""
    shown = {}
    for rank in range(share.world_size):
        own = Share(share.global_batch, rank, share.world_size, share.accumulation)
        sampler = sampler_of(own, first_step)
        micro_batches = islice(sampler, count * share.accumulation)
        for number, requests in enumerate(micro_batches):
            slots = own.micro_batches()[number % share.accumulation]
            step = first_step + number // share.accumulation
            shown |= {(step, slot): request for slot, request in zip(slots, requests, strict=True)}
    return shown


SAMPLERS = {
    "streaming": lambda share, first_step: StreamingSampler(DATASET["sampler"]["flag"], share, 3, first_step),
    "shuffled": lambda share, first_step: ShuffledSampler(12, share, 3, first_step),
}


@pytest.mark.parametrize("name", SAMPLERS)
@given(first_step=st.integers(0, 60), layout=st.sampled_from([(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4)]))
def test_any_layout_from_any_step_shows_the_same_samples_with_the_same_draws(name, first_step, layout):
    world, accumulation = layout
    whole = steps(SAMPLERS[name], Share(4), 70)
    resumed = steps(SAMPLERS[name], Share(4, 0, world, accumulation), 10, first_step)
    assert resumed == {key: whole[key] for key in resumed}
    assert len(resumed) == 40


def test_every_request_has_draws_of_its_own():
    seeds = [request.seed for request in steps(SAMPLERS["streaming"], Share(4), 20).values()]
    assert len(set(seeds)) == len(seeds) == 80


def test_shuffled_slots_together_see_every_frame_once_in_a_round():
    seen = [request.index for request in steps(SAMPLERS["shuffled"], Share(4), 3).values()]
    assert sorted(seen) == list(range(12))


def test_too_few_sequences_are_refused_with_the_remedy():
    with pytest.raises(StreampetrError, match=r"3 sequences are too few for a global batch of 4.*sequence_pieces"):
        StreamingSampler([0, 0, 1, 2], Share(4), 0)
    with pytest.raises(StreampetrError, match="3 frames are too few"):
        ShuffledSampler(3, Share(4), 0)
    with pytest.raises(StreampetrError, match="16 cannot be shared evenly by 3 processes"):
        Share(16, 0, 3)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    world=st.integers(1, 5),
)
def test_evaluation_cuts_no_sequence_and_sees_every_frame_once(lengths, world):
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    shares = split_among_ranks(sequence, world)
    assert len(shares) == world
    assert np.concatenate(shares).tolist() == list(range(len(sequence)))
    owners = [set(sequence[share].tolist()) for share in shares]
    assert sum(map(len, owners)) == len(lengths)
    assert max(map(len, shares)) <= len(sequence) / world + max(lengths)


@pytest.mark.parametrize("name", MASKS)
def test_grid_masks_are_the_official_ones(name):
    _, size, seed = name.split("_")
    height, width = map(int, size.split("x"))
    mask = draw_grid_mask(np.random.RandomState(int(seed.removeprefix("seed"))), height)
    kept = np.ones((height, width), bool) if mask is None else grid_mask_array(mask, height, width)
    np.testing.assert_array_equal(kept, np.unpackbits(MASKS[name], axis=1)[:, :width].astype(bool))


def test_a_grid_mask_blacks_out_holes_in_all_images_alike():
    mask = draw_grid_mask(np.random.RandomState(0), 64)
    images = torch.rand(2, 3, 3, 64, 96) + 1.0
    masked = apply_grid_mask(images, mask)
    kept = torch.from_numpy(grid_mask_array(mask, 64, 96))
    assert 0 < kept.float().mean() < 1
    assert torch.equal(masked != 0, kept.expand_as(images))
    assert torch.equal(masked[..., kept], images[..., kept])
    assert apply_grid_mask(images, None) is images


def test_the_probability_of_a_grid_mask_is_honoured():
    rng = np.random.RandomState(0)
    drawn = [draw_grid_mask(rng, 256) is not None for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.7, abs=0.03)
    assert all(draw_grid_mask(rng, 256, probability=0.0) is None for _ in range(50))


@pytest.mark.parametrize("layout", DATASET["lr"])
def test_learning_rates_are_the_official_ones(layout):
    recorded = DATASET["lr"][layout]
    multipliers = {"img_backbone": recorded["optimizer"]["paramwise_cfg"]["custom_keys"]["img_backbone"]["lr_mult"]}
    schedule = Schedule(recorded["max_iters"])
    for step, head, backbone in recorded["table_iter_headlr_backbonelr"]:
        for name, rate in (("pts_bbox_head.query_embedding.0.weight", head), ("img_backbone.conv1.weight", backbone)):
            base = base_rate_of(name, recorded["optimizer"]["lr"], multipliers)
            assert learning_rate(step, base, schedule) == pytest.approx(rate, rel=1e-12)


def test_a_multiplier_covers_a_module_and_not_what_merely_begins_like_it():
    assert base_rate_of("backbone.conv1.weight", 1.0, {"backbone": 0.1}) == 0.1
    assert base_rate_of("backbone_neck.weight", 1.0, {"backbone": 0.1}) == 1.0
