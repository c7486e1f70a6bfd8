"""Recipes: reading, deltas, changes, errors; and what the shipped ones say."""

import dataclasses

import pytest
import yaml

from streampetr_core.config import shipped_config_paths
from streampetr_core.errors import StreampetrError
from training.recipe import load_recipe, recipe_from_dict

NAMES = [path.stem for path in shipped_config_paths("recipes")]
PUBLISHED = {  # model, epochs, global batch, share of the backbone's learning rate
    "r50_704_900q_24e": ("r50_704_900q", 24, 16, 0.25),
    "r50_704_900q_90e": ("r50_704_900q", 90, 16, 0.25),
    "r50_704_428q_nui_24e": ("r50_704_428q", 24, 16, 0.1),
    "r50_704_428q_nui_60e": ("r50_704_428q", 60, 16, 0.1),
    "v2_99_800_900q_24e": ("v2_99_800_900q", 24, 16, 0.1),
    "sliding_8key_2grad_24e": ("r50_704_900q", 24, 8, 0.25),
}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recipes_are_read_and_survive_their_own_values(name):
    recipe = load_recipe(name)
    assert recipe_from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict())), "again") == recipe


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_say_what_was_published(name):
    recipe = load_recipe(name)
    schedule = recipe.schedule
    stated = (recipe.model.name, schedule.epochs, schedule.global_batch, schedule.multipliers["backbone"])
    assert stated == PUBLISHED[name]
    assert (schedule.learning_rate, schedule.weight_decay, schedule.max_norm) == (4e-4, 0.01, 35.0)
    assert recipe.training.precision == "fp16"
    limits = recipe.samples.augmentation.scale_limits
    assert limits == ((0.47, 0.625) if recipe.model.backbone == "vovnet99" else (0.38, 0.55))


def test_all_recipes_ship():
    assert set(NAMES) == {
        *PUBLISHED,
        "mini_one_gpu",
        "synthetic_smoke",
        "synthetic_demo",
        "synthetic_demo_images",
    }


@pytest.fixture
def write(tmp_path):
    def write(content, name="own.yaml"):
        path = tmp_path / name
        path.write_text(content)
        return path

    return write


GOOD = "model: r50_704_428q\nschedule: {epochs: 2, multipliers: {backbone: 0.5}}\n"


def test_a_recipe_is_a_delta_of_its_base(write):
    write(GOOD, "base.yaml")
    recipe = load_recipe(write("base: base.yaml\nschedule: {global_batch: 8}\nsamples: {augmentation: {flip: false}}"))
    assert (recipe.name, recipe.schedule.epochs, recipe.schedule.global_batch) == ("own", 2, 8)
    assert recipe.schedule.multipliers == {"backbone": 0.5}
    assert not recipe.samples.augmentation.flip


def test_a_model_may_be_a_delta_too(write):
    recipe = load_recipe(write("model: {base: r50_704_428q, num_layers: 2}\nschedule: {epochs: 1}"))
    assert (recipe.model.num_layers, recipe.model.num_learned, recipe.model.name) == (2, 300, "own")


def test_single_values_can_be_changed(write):
    path = write(GOOD)
    recipe = load_recipe(path, ["schedule.epochs=3", "samples.sequence_pieces=all", "data.dataroot=/data"])
    assert (recipe.schedule.epochs, recipe.samples.sequence_pieces, recipe.data.dataroot) == (3, "all", "/data")
    synthetic = load_recipe(path, ["data.synthetic.scenes=7"])
    assert dataclasses.asdict(synthetic.data.synthetic)["scenes"] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule: {epochs: 2}", "own.yaml: missing keys model"),
        (
            "model: r50_704_428q\nschedule: {epoch: 2}",
            "unknown keys epoch in 'schedule'; known are epochs, global_batch",
        ),
        ("model: r50_704_428q\nschedule: {}", "missing keys epochs in 'schedule'"),
        (GOOD + "lr: 1", "unknown keys lr; known are name, model, schedule"),
        (
            "model: r50_704_428q\nschedule: {epochs: 2, learning_rate: 4e-4}",
            "'schedule.learning_rate' is '4e-4'.*4.0e-4",
        ),
        ("model: r50_704_428q\nschedule: {epochs: true}", "'schedule.epochs' is True, which is no int"),
        (GOOD + "samples: {augmentation: {yaw_limits: [1]}}", r"'samples.augmentation.yaw_limits' is \[1\]"),
        (GOOD + "samples: {pixels: quick}", "pixels must be exact or fast"),
        (GOOD + "training: {precision: fp8}", "training.precision must be fp32 or bf16 or fp16"),
        (GOOD + "training: {frozen_stages: 5}", "training.frozen_stages must be 0 to 4"),
        (
            "model: v2_99_800_900q\nschedule: {epochs: 2}\ntraining: {frozen_stages: 1}",
            "frozen_stages is for a ResNet, not for vovnet99",
        ),
        (GOOD + "training: {learned_frames: 2}", "learned_frames must be 1 to samples.window"),
        (GOOD + "training: {batch_norm: learned, activation_checkpointing: true}", "switch one of them off"),
        (GOOD + "data: {synthetic: {}}\nsamples: {window: 2}", "samples.window must be 1"),
        ("model: r50_704_428q\nschedule: {epochs: 0}", "epochs must be 1 or more"),
        ("model: {base: r50_704_428q, layers: 2}\nschedule: {epochs: 1}", "own.yaml, model: unknown model keys layers"),
        ("- 1", "a recipe is a YAML mapping"),
        ("base: own.yaml", "names itself as its base"),
        ("a: [", "not a readable YAML file"),
    ],
)
def test_bad_recipes_are_named(write, text, message):
    with pytest.raises(StreampetrError, match=message):
        load_recipe(write(text))


def test_unknown_recipes_and_changes_are_named(write):
    with pytest.raises(StreampetrError, match="no recipe 'r101'; there are .*r50_704_900q_24e"):
        load_recipe("r101")
    with pytest.raises(StreampetrError, match="none.yaml: no such recipe file"):
        load_recipe("none.yaml")
    with pytest.raises(StreampetrError, match="--set epochs: write SECTION.KEY=VALUE"):
        load_recipe(write(GOOD), ["epochs"])


def test_proposals_that_would_learn_nothing_are_refused():
    with pytest.raises(StreampetrError, match="proposals of its model learn by training.dense_head; set it to true"):
        load_recipe("synthetic_demo", ["training.dense_head=false"])
