"""Open the data that a recipe names; all that can be wrong with it is found here, before training starts."""

import dataclasses
from pathlib import Path

from streampetr_core.errors import StreampetrError
from streampetr_core.preprocess import plan_resize
from training.data.augment import PUBLISHED_SIZE, AugmentationConfig
from training.data.dataset import DataConfig, TrainingData
from training.data.infos_file import load_infos
from training.data.loading import Data
from training.data.sampler import Share, ShuffledSampler, StreamingSampler
from training.recipe import Recipe

_SCALE_REACH = 1.3  # by how much test images may lie outside of what training sees
_MIXED_SCENES = 16


def open_training_data(recipe: Recipe) -> Data:
    """Return what training sees.

    Raises:
        StreampetrError: a missing info file, missing images, no annotations, unknown classes, or images of a scale that
            tests will not show.
    """
    _check_scale(recipe)
    return _open(recipe, "train", recipe.samples)


def open_validation_data(recipe: Recipe) -> Data:
    """Return the validation split in single frames, changed by nothing but the model's fixed resize and crop."""
    scale = plan_resize(*PUBLISHED_SIZE, recipe.model).scale
    unchanged = AugmentationConfig((scale, scale), flip=False, yaw_limits=(0.0, 0.0), zoom_limits=(1.0, 1.0))
    config = DataConfig(
        sequence_pieces=1, grid_mask_probability=0.0, pixels=recipe.samples.pixels, augmentation=unchanged
    )
    return _open(recipe, "val", config)


def make_sampler(recipe: Recipe, data: Data, share: Share, first_step: int = 0) -> StreamingSampler | ShuffledSampler:
    """Return the stream of requests of one rank from a step on; raises StreampetrError for too few sequences."""
    if recipe.samples.window > 1 or recipe.training.learns == "images":
        # What the frames of a rendered scene share is costly to make, and kept for some scenes only.
        block = _MIXED_SCENES * recipe.data.synthetic.samples if recipe.data.synthetic else 0
        return ShuffledSampler(len(data), share, recipe.training.seed, first_step, block)
    return StreamingSampler(data.sequence_F, share, recipe.training.seed, first_step)


def _check_scale(recipe: Recipe) -> None:
    low, high = recipe.samples.augmentation.scale_limits
    tested = plan_resize(*PUBLISHED_SIZE, recipe.model).scale
    if not low / _SCALE_REACH <= tested <= high * _SCALE_REACH:
        raise StreampetrError(
            f"recipe '{recipe.name}': samples.augmentation.scale_limits {low:g} to {high:g} are of models of another "
            f"input size; model '{recipe.model.name}' sees images of 1600x900 at {tested:.3g} in tests, so choose "
            f"limits around it, such as [{0.87 * tested:.3g}, {1.25 * tested:.3g}]"
        )


def _open(recipe: Recipe, split: str, config: DataConfig) -> Data:
    source = recipe.data
    if source.synthetic is not None:
        return _open_synthetic(recipe, split, config)
    root, infos = Path(source.dataroot), source.train_infos if split == "train" else source.val_infos
    if not root.is_dir():
        raise StreampetrError(f"{root}: no such folder; say where the data is with --set data.dataroot=FOLDER")
    return TrainingData(load_infos(root / infos), root, recipe.model, config)


def _open_synthetic(recipe: Recipe, split: str, config: DataConfig) -> Data:
    from training.data.online import OnlineData
    from training.synth.online import OnlineScenes

    options = recipe.data.synthetic
    scenes = OnlineScenes(options.seed, split, (options.width, options.height), options.samples)
    count = options.scenes if split == "train" else options.val_scenes
    return OnlineData(scenes, count, recipe.model, dataclasses.replace(config, grid_mask_frames=1))
