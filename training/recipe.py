"""A recipe: model, data, losses and schedule of one training run as one frozen value, read from YAML.

A recipe names its `base` and states what differs; sections merge key by key. Unknown keys and values of the wrong type
are errors that name the file, the key and the remedy.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from streampetr_core.backbones.resnet import NUM_STAGES
from streampetr_core.checkpoint import Checkpoint
from streampetr_core.config import ModelConfig, config_from_dict, find_config, load_config, read_with_bases
from streampetr_core.convert import NUSCENES_LICENCE
from streampetr_core.errors import StreampetrError
from training.data.dataset import DataConfig
from training.losses.config import LossConfig

PRECISIONS = ("fp32", "bf16", "fp16")
BATCH_NORMS = ("stored", "learned")
OPTIMIZERS = ("adamw", "muon")
LEARNING_PARTS = ("all", "images", "decoder")


@dataclass(frozen=True)
class SyntheticScenes:
    """Scenes that are rendered while training asks for them; nothing is stored."""

    seed: int = 0
    scenes: int = 400  # of training; an epoch shows each once
    val_scenes: int = 20
    samples: int = 40  # keyframes in a scene, two a second
    width: int = 704  # of the rendered pictures, pixels
    height: int = 396


@dataclass(frozen=True)
class DataSource:
    """Where samples come from: info files and images under `dataroot`, or scenes rendered on the fly."""

    dataroot: str = "data/nuscenes"
    train_infos: str = "infos/infos_v1.0-trainval_train.npz"  # relative to dataroot, or absolute
    val_infos: str = "infos/infos_v1.0-trainval_val.npz"
    licence: str = NUSCENES_LICENCE  # of the weights that are learned from the data
    workers: int = 4  # processes that load samples, of each rank
    synthetic: SyntheticScenes | None = None


@dataclass(frozen=True)
class ScheduleConfig:
    """How long and how fast; stated once, for any number of ranks (see `training.plan`)."""

    epochs: int
    global_batch: int = 16
    optimizer: str = "adamw"  # as published; 'muon' needs fewer samples where training begins from nothing
    learning_rate: float = 4.0e-4  # of a global batch of 16; the rate of other batches follows in proportion
    multipliers: dict[str, float] = field(default_factory=dict)  # of the learning rate, by module: backbone, neck, ...
    warmup_steps: int = 500
    warmup_start: float = 1.0 / 3.0
    final_share: float = 1.0e-3
    weight_decay: float = 0.01
    max_norm: float = 35.0  # the gradient of a step is scaled down to this length
    max_per_rank_batch: int = 2  # samples that a rank computes at once; more are accumulated


@dataclass(frozen=True)
class TrainingConfig:
    """How the loop runs."""

    seed: int = 0
    precision: str = "fp16"  # of backbone and neck; everything else is float32
    backbone_weights: str = ""  # a local file of pretrained weights; empty: start from random ones
    initial_checkpoint: str = ""  # a native file of the whole model to start from
    aux_head: bool = True
    dense_head: bool = False  # every image token tells class, depth, size and heading of what it sees
    learns: str = "all"  # 'images': backbone and neck alone, by the two heads above; 'decoder': all but these
    frozen_stages: int = 0  # of a ResNet: so many, and what is before them, keep what they know; 0: all learns
    images_per_sample: int = 0  # with learns 'images': so many of a sample's, mostly those that show much; 0: all
    learned_frames: int = 1  # so many last frames of a window are learned from
    batch_norm: str = "stored"  # 'learned': statistics, scales and shifts learn too, over all ranks
    activation_checkpointing: bool = False
    ema_decay: float = 0.0  # of the averaged weights that are saved and validated; 0: no average
    half_weights: bool = False  # matrices of the weights files in half precision; what --resume needs stays whole
    log_every_steps: int = 50
    save_every_epochs: int = 1  # latest.safetensors, and what --resume needs
    save_every_steps: int = 0  # the same between the ends of epochs; 0: never
    keep_every_epochs: int = 0  # epoch_<n>.safetensors stay; 0: none
    validate_every_epochs: int = 0  # loss of the validation split, which chooses best.safetensors; 0: never


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run follows from, but for the files it reads."""

    name: str
    model: ModelConfig
    schedule: ScheduleConfig
    data: DataSource = field(default_factory=DataSource)
    samples: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Check what no later stage could report as clearly."""
        for key, value, choices in (
            ("training.precision", self.training.precision, PRECISIONS),
            ("training.batch_norm", self.training.batch_norm, BATCH_NORMS),
            ("training.learns", self.training.learns, LEARNING_PARTS),
            ("schedule.optimizer", self.schedule.optimizer, OPTIMIZERS),
        ):
            if value not in choices:
                raise StreampetrError(f"recipe '{self.name}': {key} must be {' or '.join(choices)}")
        if self.training.learns == "images" and not (self.training.aux_head or self.training.dense_head):
            raise StreampetrError(f"recipe '{self.name}': training.learns images needs aux_head or dense_head")
        if self.model.num_proposals and not self.training.dense_head:
            raise StreampetrError(
                f"recipe '{self.name}': the proposals of its model learn by training.dense_head; set it to true"
            )
        if self.training.images_per_sample and self.training.learns != "images":
            raise StreampetrError(f"recipe '{self.name}': training.images_per_sample needs training.learns images")
        if self.training.frozen_stages and not self.model.backbone.startswith("resnet"):
            raise StreampetrError(
                f"recipe '{self.name}': training.frozen_stages is for a ResNet, not for {self.model.backbone}"
            )
        if not 0 <= self.training.frozen_stages <= NUM_STAGES:
            raise StreampetrError(f"recipe '{self.name}': training.frozen_stages must be 0 to {NUM_STAGES}")
        if not 1 <= self.training.learned_frames <= self.samples.window:
            raise StreampetrError(f"recipe '{self.name}': training.learned_frames must be 1 to samples.window")
        if self.data.synthetic and self.samples.window > 1:
            raise StreampetrError(f"recipe '{self.name}': data.synthetic gives streams; samples.window must be 1")
        if self.training.batch_norm == "learned" and self.training.activation_checkpointing:
            raise StreampetrError(
                f"recipe '{self.name}': activation_checkpointing would count every batch twice in learned batch norm "
                "statistics; switch one of them off"
            )
        for section in (self.schedule, self.training):
            for key in ("epochs", "global_batch", "max_per_rank_batch", "log_every_steps", "save_every_epochs"):
                if getattr(section, key, 1) < 1:
                    raise StreampetrError(f"recipe '{self.name}': {key} must be 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `recipe_from_dict` turns into an equal recipe."""
        return _plain(dataclasses.asdict(self)) | {"model": self.model.to_dict()}


def load_recipe(name_or_path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe: a YAML file, or the name of one that ships with the package.

    `changes` are texts like 'schedule.epochs=2' that replace single values.
    """
    path = find_config(name_or_path, "recipes")
    values = functools.reduce(_merged, read_with_bases(path, "recipes"))
    for change in changes:
        values = _merged(values, _parsed_change(change))
    return recipe_from_dict({**values, "name": path.stem}, str(path))


def recipe_from_dict(values: Mapping[str, Any], source: str) -> Recipe:
    """Build a recipe from plain values; raises StreampetrError that names `source` and the key."""
    values = dict(values)
    if "model" in values:
        values["model"] = _model(values["model"], source)
    return _built(Recipe, values, "", source)


def check_same_model(checkpoint: Checkpoint, path: str | Path, recipe: Recipe) -> None:
    """Raise StreampetrError that lists what differs unless a checkpoint holds the model of a recipe."""
    wanted, has = recipe.model.to_dict(), checkpoint.config.to_dict()
    other = [
        f"{key} {has[key]} instead of {wanted[key]}" for key in wanted if key != "name" and has[key] != wanted[key]
    ]
    if other:
        raise StreampetrError(
            f"{path}: holds a model of another configuration than recipe '{recipe.name}' ({'; '.join(other)}); choose "
            "the recipe that it was trained with, such as recipe.yaml in the folder of its run"
        )


def _model(value: Any, source: str) -> ModelConfig:
    """Return the model that a name, or a mapping with an optional `base`, stands for."""
    if isinstance(value, str):
        return load_config(value)
    if not isinstance(value, Mapping):
        raise StreampetrError(f"{source}: model must be the name of a model configuration or a mapping, not {value!r}")
    own = dict(value)
    base = own.pop("base", None)
    inherited = {} if base is None else load_config(base).to_dict()
    return config_from_dict({**inherited, "name": Path(source).stem, **own}, f"{source}, model")


def _merged(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `delta`, section by section; a model is replaced as a whole."""
    merged = dict(base)
    for key, value in delta.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merged(base[key], value) if both else value
    return merged


def _parsed_change(change: str) -> dict[str, Any]:
    key, separator, text = change.partition("=")
    if not separator or not key:
        raise StreampetrError(f"--set {change}: write SECTION.KEY=VALUE, as in schedule.epochs=2")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise StreampetrError(f"--set {change}: the value is no YAML: {error}") from error
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _built(cls: type, values: Any, where: str, source: str) -> Any:
    """Return a dataclass from a mapping of its fields."""
    if not isinstance(values, Mapping):
        raise StreampetrError(f"{source}: '{where}' is {values!r}, which is no mapping of keys to values")
    hints = typing.get_type_hints(cls)
    unknown = sorted(str(key) for key in set(values) - set(hints))
    section = f" in '{where}'" if where else ""
    if unknown:
        raise StreampetrError(f"{source}: unknown keys {', '.join(unknown)}{section}; known are {', '.join(hints)}")
    required = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise StreampetrError(f"{source}: missing keys {', '.join(missing)}{section}")
    prefix = f"{where}." if where else ""
    return cls(**{key: _typed(value, hints[key], prefix + key, source) for key, value in values.items()})


def _typed(value: Any, kind: Any, where: str, source: str) -> Any:
    """Return `value` as the type of its field; tuples come from lists, floats from integers too."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        fitting = [one for one in arguments if _fits(value, one)]
        if fitting:
            return _typed(value, fitting[0], where, source)
    elif dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _built(kind, value, where, source)
    elif origin is tuple and isinstance(value, (list, tuple)):
        is_open = arguments[-1] is Ellipsis
        if is_open or len(arguments) == len(value):
            kinds = [arguments[0]] * len(value) if is_open else arguments
            return tuple(_typed(item, one, where, source) for item, one in zip(value, kinds, strict=True))
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): _typed(item, arguments[1], f"{where}.{key}", source) for key, item in value.items()}
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise StreampetrError(f"{source}: '{where}' is {value!r}, which is no {_kind_name(kind)}{_remedy(value, kind)}")


def _fits(value: Any, kind: Any) -> bool:
    if dataclasses.is_dataclass(kind):
        return isinstance(value, (Mapping, kind))
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _kind_name(kind: Any) -> str:
    return kind.__name__ if typing.get_origin(kind) is None and isinstance(kind, type) else str(kind)


def _remedy(value: Any, kind: Any) -> str:
    is_yaml_trap = kind is float and isinstance(value, str)
    return "; YAML wants a point and a sign in powers of ten, as in 4.0e-4" if is_yaml_trap else ""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
