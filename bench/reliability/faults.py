"""The faults: what each does to the messages, or to the node, while it lasts."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from bench.reliability.node import FAILS, NO_MEMORY, Switch
from bench.reliability.player import Change, moved_by, unchanged
from bench.reliability.recording import IMAGE, INFO, TF, Item, changed_info, halved
from streampetr_core.geometry import make_transform

_VICTIM = "cam_front"
_TOPIC = f"/{_VICTIM}/image_raw/compressed"
_HOUR_NS = 3_600_000_000_000
_HUGE_NS = (2**31 - 1) * 1_000_000_000
_FAR = make_transform(np.eye(3), [500.0, 0.0, 0.0])


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong for a while."""

    name: str
    change: Change = unchanged
    around: Callable[[Switch], AbstractContextManager] = lambda switch: nullcontext()
    raw: bool = False  # images are not compressed


def _lost(part: float) -> Change:
    return lambda item, rng: [] if item.kind == IMAGE and rng.random() < part else [item]


def _jitter(item: Item, rng: random.Random) -> list[Item]:
    return [replace(item, delay=rng.uniform(0, 0.06)) if item.kind == IMAGE else item]


def _unplugged(item: Item, rng: random.Random) -> list[Item]:
    return [] if item.camera == _VICTIM else [item]


@cache
def _half(message: "_ById") -> CompressedImage:
    return halved(message.value)


class _ById:
    """A message as a key of a cache."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.value is self.value


def _other_size(item: Item, rng: random.Random, with_info: bool) -> list[Item]:
    if item.kind == IMAGE:
        return [replace(item, message=_half(_ById(item.message)))]
    if item.kind == INFO and with_info:
        info = item.message
        k = (np.diag([0.5, 0.5, 1.0]) @ np.reshape(info.k, (3, 3))).flatten().tolist()
        return [replace(item, message=changed_info(info, width=info.width // 2, height=info.height // 2, k=k))]
    return [item]


def _image_data(make: Callable[[bytes, random.Random], bytes]) -> Change:
    def change(item: Item, rng: random.Random) -> list[Item]:
        if item.kind != IMAGE:
            return [item]
        broken = CompressedImage(header=item.message.header, format="jpeg")
        broken.data.frombytes(make(item.message.data.tobytes(), rng))
        return [replace(item, message=broken)]

    return change


def _wrong_encoding(item: Item, rng: random.Random) -> list[Item]:
    if item.kind != IMAGE:
        return [item]
    old = item.message
    message = Image(header=old.header, encoding="32FC1", width=old.width, height=old.height, step=old.step)
    message.data = old.data
    return [replace(item, message=message)]


def _intrinsics(value: float) -> Change:
    def change(item: Item, rng: random.Random) -> list[Item]:
        return [replace(item, message=changed_info(item.message, k=[value] * 9)) if item.kind == INFO else item]

    return change


def _no_tf(item: Item, rng: random.Random) -> list[Item]:
    return [] if item.kind == TF else [item]


def _tf_jumps(item: Item, rng: random.Random) -> list[Item]:
    return [moved_by(item, _FAR) if item.kind == TF and rng.random() < 0.3 else item]


def _not_a_number(item: Item, rng: random.Random) -> list[Item]:
    if item.kind != TF:
        return [item]
    nowhere = moved_by(item, np.eye(4)).message.transforms[0]
    nowhere.transform.translation.x = math.nan
    return [replace(item, message=TFMessage(transforms=[nowhere]))]


def _odometry_elsewhere(item: Item, rng: random.Random) -> list[Item]:
    return [moved_by(item, _FAR) if item.kind == TF else item]


def _stamps(kinds: tuple[str, ...], move: Callable[[int], int]) -> Change:
    return lambda item, rng: [replace(item, stamp_ns=move(item.stamp_ns)) if item.kind in kinds else item]


def _twice(item: Item, rng: random.Random) -> list[Item]:
    return [item, replace(item, delay=0.01)] if item.kind == IMAGE else [item]


@contextmanager
def _stranger(kind: type, message: Any, qos: QoSProfile | int) -> Iterator[None]:
    """Publish something else in the place of a camera; from a participant of its own, since one has one type."""
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("stranger", context=context)
    node.create_publisher(kind, _TOPIC, qos).publish(message)
    try:
        yield
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def _wrong_type(switch: Switch) -> AbstractContextManager:
    return _stranger(String, String(data="no image"), 10)


def _wrong_qos(switch: Switch) -> AbstractContextManager:
    unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    return _stranger(CompressedImage, CompressedImage(), unreliable)


@contextmanager
def _switched(switch: Switch, to: int) -> Iterator[None]:
    switch.value = to
    try:
        yield
    finally:
        switch.value = 0


_EVERYTHING = (IMAGE, INFO, TF)

FAULTS = [
    Fault("none"),
    *(Fault(f"{part:.0%} of the images lost", _lost(part)) for part in (0.02, 0.05, 0.1, 0.2)),
    Fault("images up to 60 ms late", _jitter),
    Fault("a camera unplugged", _unplugged),
    Fault("half the resolution, CameraInfo too", partial(_other_size, with_info=True)),
    Fault("half the resolution, CameraInfo as before", partial(_other_size, with_info=False)),
    Fault("JPEG cut in half", _image_data(lambda data, rng: data[: len(data) // 2])),
    Fault("random bytes for images", _image_data(lambda data, rng: rng.randbytes(1000))),
    Fault("raw images of encoding 32FC1", _wrong_encoding, raw=True),
    Fault("CameraInfo of NaN", _intrinsics(math.nan)),
    Fault("CameraInfo of zeros", _intrinsics(0.0)),
    Fault("no /tf", _no_tf),
    Fault("/tf of NaN", _not_a_number),
    Fault("/tf jumps by 500 m and back", _tf_jumps),
    Fault("odometry starts elsewhere", _odometry_elsewhere),
    Fault("clock an hour ahead", _stamps(_EVERYTHING, lambda ns: ns + _HOUR_NS)),
    Fault("clock an hour behind", _stamps(_EVERYTHING, lambda ns: ns - _HOUR_NS)),
    Fault("each image twice", _twice),
    Fault("image stamps of zero", _stamps((IMAGE,), lambda ns: 0)),
    Fault("image stamps before 1970", _stamps((IMAGE,), lambda ns: -ns)),
    Fault("image stamps of the year 2038", _stamps((IMAGE,), lambda ns: _HUGE_NS)),
    Fault("/tf stamps of the year 2038", _stamps((TF,), lambda ns: _HUGE_NS)),
    Fault("a publisher of another type", _unplugged, _wrong_type),
    Fault("a publisher of incompatible QoS", _unplugged, _wrong_qos),
    Fault("the worker raises", around=partial(_switched, to=FAILS)),
    Fault("the model is out of memory", around=partial(_switched, to=NO_MEMORY)),
]
