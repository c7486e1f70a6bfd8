"""What defines a model: one frozen value, read from YAML; a variant names its base and states what differs."""

import dataclasses
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from streampetr_core.errors import StreampetrError

NUSCENES_CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
BACKBONES = ("resnet18", "resnet18_half", "resnet50", "vovnet99")
CHANNEL_ORDERS = ("rgb", "bgr")
FEATURE_STRIDE = 16  # pixels of the input between two cells of the map that the neck gives
_WORDS = {"models": "model configuration", "recipes": "recipe"}  # what the files in a folder of config/ are
_NUMBERS_IN = {"pixel_mean": 3, "pixel_std": 3, "detection_range": 6, "position_range": 6}
_LOWEST = {
    "num_propagated": 0,
    "num_proposals": 0,
    "num_depth_bins": 35,  # the published cone of a token takes the 35th bin
}  # others: 1


@dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes the network and its inputs; lengths in metres, times in seconds, images in pixels.

    The published models' values are the defaults where all of them agree.
    """

    name: str
    backbone: str
    input_height: int
    input_width: int
    pixel_mean: tuple[float, ...]  # of channels in `channel_order`, grey levels 0..255
    pixel_std: tuple[float, ...]
    channel_order: str
    num_learned: int  # Q: queries of this frame alone
    num_propagated: int  # P: queries taken from the newest memory entries
    memory_length: int  # M
    num_admitted: int  # K: queries that enter the memory each frame
    channels: int = 256  # C
    num_layers: int = 6
    num_heads: int = 8
    ffn_channels: int = 2048
    position_hidden_channels: int = 1024
    feature_stride: int = FEATURE_STRIDE
    num_depth_bins: int = 64
    first_depth: float = 1.0
    dropout: float = 0.1
    num_proposals: int = 0  # so many of `num_learned` begin where the images show an object; published: none
    placed_queries: bool = False  # queries begin with their place as content; the published ones begin with nothing
    detection_range: tuple[float, ...] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)  # x, y, z low, then high, in ref
    position_range: tuple[float, ...] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    max_detections: int = 300
    memory_interval: float = 0.5  # the time between memory entries that the weights were trained with
    reference_frame: str = "nuScenes LIDAR_TOP: x right, y forward, z up"
    class_names: tuple[str, ...] = NUSCENES_CLASSES

    def __post_init__(self) -> None:
        """Check what no later stage could report as clearly."""
        if self.backbone not in BACKBONES:
            raise StreampetrError(
                f"model '{self.name}': no backbone '{self.backbone}'; there are {', '.join(BACKBONES)}"
            )
        if self.channel_order not in CHANNEL_ORDERS:
            raise StreampetrError(f"model '{self.name}': channel_order must be rgb or bgr, not '{self.channel_order}'")
        if self.feature_stride != FEATURE_STRIDE:
            wanted = f"must be {FEATURE_STRIDE}, not {self.feature_stride}: the neck gives no other map"
            raise StreampetrError(f"model '{self.name}': feature_stride {wanted}")
        coarsest_stride = 2 * self.feature_stride
        if self.input_height % coarsest_stride or self.input_width % coarsest_stride:
            size = f"{self.input_width}x{self.input_height}"
            raise StreampetrError(f"model '{self.name}': input size {size} must be divisible by {coarsest_stride}")
        if not self.num_propagated <= self.memory_length >= self.num_admitted:
            raise StreampetrError(f"model '{self.name}': memory_length must hold num_propagated and num_admitted")
        if self.num_admitted > self.num_queries:
            raise StreampetrError(f"model '{self.name}': num_admitted exceeds the {self.num_queries} queries")
        if self.channels % (2 * self.num_heads):
            raise StreampetrError(f"model '{self.name}': channels must be divisible by twice num_heads")
        for key, count in _NUMBERS_IN.items():
            if len(getattr(self, key)) != count:
                raise StreampetrError(f"model '{self.name}': {key} takes {count} numbers")
        for field in dataclasses.fields(self):
            lowest = _LOWEST.get(field.name, 1)
            if field.type is int and getattr(self, field.name) < lowest:
                raise StreampetrError(f"model '{self.name}': {field.name} must be {lowest} or more")
        most = min(self.num_learned - 1, math.prod(self.feature_size))
        if self.num_proposals > most:
            raise StreampetrError(
                f"model '{self.name}': num_proposals must be at most {most}: one query stays learned, and a single "
                "camera must have so many image tokens"
            )

    @property
    def num_queries(self) -> int:
        """Number of queries that the decoder sees: learned plus propagated."""
        return self.num_learned + self.num_propagated

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of an image's feature map."""
        return self.input_height // self.feature_stride, self.input_width // self.feature_stride

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `config_from_dict` turns into an equal configuration."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}


def config_from_dict(values: dict[str, Any], source: str) -> ModelConfig:
    """Build a configuration; unknown, missing or mistyped keys are an error that names `source`."""
    fields = {field.name: field for field in dataclasses.fields(ModelConfig)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise StreampetrError(f"{source}: unknown model keys {', '.join(unknown)}; known are {', '.join(fields)}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise StreampetrError(f"{source}: missing model keys {', '.join(missing)}")
    return ModelConfig(**{key: _typed(value, fields[key].type, key, source) for key, value in values.items()})


def _typed(value: Any, kind: Any, key: str, source: str) -> Any:
    """Return `value` as the field's type, tuples from lists and floats from integers."""
    if kind is tuple or getattr(kind, "__origin__", None) is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_typed(item, kind.__args__[0], key, source) for item in value)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    raise StreampetrError(f"{source}: model key '{key}' is {value!r}, which is no {getattr(kind, '__name__', kind)}")


def load_config(name_or_path: str | Path) -> ModelConfig:
    """Read a model configuration: a YAML file, or the name of one that ships with the package."""
    path = find_config(name_or_path)
    values = {key: value for level in read_with_bases(path) for key, value in level.items()}
    return config_from_dict({**values, "name": path.stem}, str(path))


def find_config(name_or_path: str | Path, kind: str = "models") -> Path:
    """Return the file of a configuration of a kind (see `shipped_config_paths`), given as a path or by its name."""
    path, word = Path(name_or_path), _WORDS[kind]
    if path.suffix == ".yaml":
        if path.is_file():
            return path
        raise StreampetrError(f"{path}: no such {word} file")
    shipped = {candidate.stem: candidate for candidate in shipped_config_paths(kind)}
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise StreampetrError(f"no {word} '{name_or_path}'; there are {', '.join(shipped) or 'none installed'}")


def shipped_config_paths(kind: str = "models") -> list[Path]:
    """Return the configurations of a kind, which is a folder under config/, that ship with the package."""
    return sorted(path for folder in _config_folders(kind) for path in folder.glob("*.yaml"))


def read_with_bases(path: Path, kind: str = "models", variants: tuple[Path, ...] = ()) -> list[dict[str, Any]]:
    """Return the mappings of a YAML file and of the bases that it names, the farthest base first.

    A base is a file beside the one that names it, or the name of a configuration that ships with the package.
    `variants` are the files that name this one as their base, so that a circle is noticed.
    """
    if path.resolve() in variants:
        raise StreampetrError(f"{path}: names itself as its base, directly or through others")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StreampetrError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(values, dict):
        raise StreampetrError(f"{path}: a {_WORDS[kind]} is a YAML mapping")
    base = values.pop("base", None)
    if not base:
        return [values]
    found = path.parent / base if Path(base).suffix == ".yaml" else find_config(base, kind)
    return [*read_with_bases(found, kind, (*variants, path.resolve())), values]


def _config_folders(kind: str) -> list[Path]:
    """Where configurations are, first hit only: beside the sources, else in the share folders of ament and pip."""
    share = Path("share", "streampetr_ros")
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    roots = [Path(__file__).parents[1], *(prefix / share for prefix in [*prefixes, Path(sys.prefix)])]
    folders = [root / "config" / kind for root in roots]
    return [folder for folder in folders if folder.is_dir()][:1]
