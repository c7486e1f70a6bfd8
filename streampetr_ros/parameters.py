"""The node's parameters: declared once, with descriptions and ranges, read into one value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from streampetr_core.errors import StreampetrError
from streampetr_core.image_path import PATHS
from streampetr_core.runtime import BACKENDS, PRECISIONS, REFERENCE

TRANSPORTS = ("compressed", "raw")
RELIABILITIES = ("best_effort", "reliable")
_RUNTIMES = (*BACKENDS, REFERENCE)
ON_ARRIVAL = ("auto", "always", "never")
TRACKING_METHODS = ("identity", "distance")
NUSCENES_CAMERAS = ["cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right"]


@dataclass(frozen=True)
class Parameters:
    """What the node is told; meanings and ranges stand in `_DECLARATIONS`."""

    model: str
    device: str
    runtime: str
    precision: str
    engines: str
    cameras: list[str]
    min_cameras: int
    image_topic: str
    camera_info_topic: str
    transport: str
    reliability: str
    base_frame: str
    reference_frame: str
    fixed_frame: str
    max_wait: float
    transform_wait: float
    max_gap: float
    max_speed: float
    memory_interval: float
    tracking_method: str
    track_birth_score: float
    track_keep_score: float
    reference_topic: str
    resize: str
    encode_on_arrival: str
    realtime: bool
    score_threshold: float
    autostart: bool

    @property
    def smallest_set(self) -> int:
        """Number of usable images that a set needs."""
        return self.min_cameras or len(self.cameras) // 2 + 1

    @property
    def image_topics(self) -> dict[str, str]:
        """The topic of each camera's images, as they are transported."""
        suffix = "/compressed" if self.transport == "compressed" else ""
        return {camera: self.image_topic.format(camera=camera) + suffix for camera in self.cameras}

    @property
    def camera_info_topics(self) -> dict[str, str]:
        """The topic of each camera's calibration."""
        return {camera: self.camera_info_topic.format(camera=camera) for camera in self.cameras}


@dataclass(frozen=True)
class _Declaration:
    default: Any
    description: str
    range: tuple[float, float] | None = None
    dynamic: bool = False  # may change while the node is configured


_DECLARATIONS = {
    "model": _Declaration("", "model file (.safetensors) that `streampetr convert` or `streampetr init` wrote"),
    "device": _Declaration("auto", "where the network runs: auto, cpu, cuda, cuda:1, ..."),
    "runtime": _Declaration("auto", f"what runs the network: {', '.join(_RUNTIMES)}"),
    "precision": _Declaration("fp32", f"type of the network's arithmetic: {', '.join(PRECISIONS)}"),
    "engines": _Declaration("", "folder that `streampetr export` wrote; int8 needs one"),
    "cameras": _Declaration(NUSCENES_CAMERAS, "camera names, in the order in which the model was trained"),
    "min_cameras": _Declaration(0, "smallest number of usable images in a set; 0: more than half", (0, 64)),
    "image_topic": _Declaration("/{camera}/image_raw", "base topic of a camera's images; /compressed is appended"),
    "camera_info_topic": _Declaration("/{camera}/camera_info", "topic of a camera's CameraInfo"),
    "transport": _Declaration("compressed", f"how images come: {' or '.join(TRANSPORTS)}"),
    "reliability": _Declaration("best_effort", f"quality of service of the images: {' or '.join(RELIABILITIES)}"),
    "base_frame": _Declaration("base_link", "frame in which detections are published"),
    "reference_frame": _Declaration("lidar_top", "frame in which the model was trained (nuScenes: the LiDAR)"),
    "fixed_frame": _Declaration("odom", "frame in which the vehicle moves smoothly"),
    "max_wait": _Declaration(0.15, "how long a set waits for images that are overdue, s", (0.0, 10.0)),
    "transform_wait": _Declaration(0.5, "how long a set may wait for its transforms, s", (0.0, 10.0)),
    "max_gap": _Declaration(2.0, "the memory starts anew after this long without a set, s", (0.0, 60.0)),
    "max_speed": _Declaration(80.0, "the memory starts anew when the odometry moves faster, m/s", (0.0, 1000.0)),
    "memory_interval": _Declaration(0.0, "time between memory entries, s; 0: as the model was trained", (0.0, 10.0)),
    "tracking_method": _Declaration(
        "identity", "identity: ids follow the model's own queries, distance helps; distance: it alone decides"
    ),
    "track_birth_score": _Declaration(0.2, "a detection of no known object begins a track from here", (0.0, 1.0)),
    "track_keep_score": _Declaration(0.2, "a detection of a known object counts for its track from here", (0.0, 1.0)),
    "reference_topic": _Declaration(
        "", "std_msgs/Header whose stamps are the reference times, as a LiDAR's; empty: each set's newest exposure"
    ),
    "resize": _Declaration(
        "fast", "how images are made small: fast; reduced: faster, less exact; exact: the published code's very pixels"
    ),
    "encode_on_arrival": _Declaration(
        "auto", "encode each camera when its image is there: always, never; auto: where the runtime gains by it"
    ),
    "realtime": _Declaration(True, "true: when late, the oldest set is dropped; false: every set is processed"),
    "score_threshold": _Declaration(0.2, "detections below this score are not published", (0.0, 1.0), dynamic=True),
    "autostart": _Declaration(False, "true: become active without a lifecycle manager (the launch file is one)"),
}


def declare_parameters(node: Node) -> None:
    """Declare all parameters; raises StreampetrError for an overriding value of wrong type or out of range."""
    for name, declaration in _DECLARATIONS.items():
        try:
            node.declare_parameter(name, declaration.default, _descriptor(declaration))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise StreampetrError(f"parameter '{name}': {error}; it means: {declaration.description}") from error


def read_parameters(node: Node) -> Parameters:
    """Return the present values; raises StreampetrError for one that makes no sense."""
    return _checked(Parameters(**{name: node.get_parameter(name).value for name in _DECLARATIONS}))


def parameters_from(values: Mapping[str, Any]) -> Parameters:
    """Return these values, and the defaults of all others, without a node.

    Raises:
        StreampetrError: a name that the node does not have, or a value that makes no sense.
    """
    unknown = sorted(set(values) - set(_DECLARATIONS))
    if unknown:
        raise StreampetrError(f"no parameter '{unknown[0]}'; there are: {', '.join(_DECLARATIONS)}")
    defaults = {name: declaration.default for name, declaration in _DECLARATIONS.items()}
    for name, value in values.items():
        wanted = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        if not isinstance(value, wanted):
            raise StreampetrError(f"parameter '{name}' is {value!r}; it means: {_DECLARATIONS[name].description}")
    return _checked(Parameters(**(defaults | dict(values))))


def _checked(values: Parameters) -> Parameters:
    _check_choice("runtime", values.runtime, _RUNTIMES)
    _check_choice("precision", values.precision, PRECISIONS)
    _check_choice("transport", values.transport, TRANSPORTS)
    _check_choice("reliability", values.reliability, RELIABILITIES)
    _check_choice("tracking_method", values.tracking_method, TRACKING_METHODS)
    _check_choice("resize", values.resize, PATHS)
    _check_choice("encode_on_arrival", values.encode_on_arrival, ON_ARRIVAL)
    if not values.cameras or len(set(values.cameras)) < len(values.cameras):
        raise StreampetrError(f"parameter 'cameras' must name each camera once, not {list(values.cameras)}")
    if values.min_cameras > len(values.cameras):
        raise StreampetrError(f"parameter 'min_cameras' is {values.min_cameras} of {len(values.cameras)} cameras")
    for name in ("image_topic", "camera_info_topic"):
        _check_template(name, getattr(values, name))
    return values


def parameter_table() -> str:
    """Return name, default, meaning and range of every parameter as a table in Markdown."""
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, declaration in _DECLARATIONS.items():
        limits = "; {:g} to {:g}".format(*declaration.range) if declaration.range else ""
        rows.append(f"| `{name}` | {_default(declaration.default)} | {declaration.description}{limits} |")
    return "\n".join(rows)


def is_dynamic(name: str) -> bool:
    """Say whether a change of this parameter takes effect without configuring the node anew."""
    return name not in _DECLARATIONS or _DECLARATIONS[name].dynamic


def _default(value: Any) -> str:
    if value == NUSCENES_CAMERAS:
        return "the six of nuScenes"
    return str(value).lower() if isinstance(value, bool) else str(value) or "(none)"


def _descriptor(declaration: _Declaration) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=declaration.description)
    if declaration.range and isinstance(declaration.default, float):
        low, high = declaration.range
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif declaration.range:
        low, high = map(int, declaration.range)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise StreampetrError(f"parameter '{name}' is '{value}'; it must be {' or '.join(choices)}")


def _check_template(name: str, template: str) -> None:
    try:
        differs = template.format(camera="a") != template.format(camera="b")
    except (KeyError, IndexError, ValueError):
        differs = False
    if not differs:
        raise StreampetrError(f"parameter '{name}' is '{template}'; it must contain {{camera}} and no other braces")
