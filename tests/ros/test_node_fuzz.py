"""Ten thousand messages that make no sense, handed to the node's own callbacks: nothing escapes, nothing is lost."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from streampetr_ros.guard import INTERNAL
from streampetr_ros.node import StreampetrNode
from tests.ros.malformed import items
from tests.ros.rig import (
    BASE_P_CAMERA,
    BASE_P_REF,
    BASE_Q_CAMERA,
    CAMERAS,
    HEIGHT,
    REF_Q,
    WIDTH,
    K,
    jpeg,
    overrides,
    picture,
    spin_until,
    transform,
    write_tiny_model,
)

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
INTERVAL, LAG = SECOND // 10, SECOND // 50
EXAMPLES, MESSAGES = 80, 70  # of each transport, and of each example


class Fed:
    """An active node whose callbacks are called as an executor would."""

    def __init__(self, model: Path, transport: str) -> None:
        self.transport = transport
        values = {"model": str(model), "transport": transport, "transform_wait": 0.0, "reference_topic": "/times"}
        self.node = StreampetrNode(parameter_overrides=overrides(**values))
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.monitor = self.node.monitor
        self.callbacks = {each.topic_name: each.callback for each in self.node.subscriptions}
        self.sent: Counter[str] = Counter()
        self._rounds = dict.fromkeys(CAMERAS, 0)

    def feed(self, topic: str, message: Any) -> None:
        """Hand a message over."""
        if isinstance(message, Image | CompressedImage):
            self.sent[topic.split("/")[1]] += 1
        self.callbacks[topic](message)

    def set_right(self, topic: str, message: Any) -> None:
        """Give an image of a camera the frame and the time that it should have, and all else that it needs."""
        self.place()
        camera = topic.split("/")[1]
        other = self._rounds[CAMERAS[1 - CAMERAS.index(camera)]]
        self._rounds[camera] = max(self._rounds[camera] + 1, other)
        stamp = START + self._rounds[camera] * INTERVAL - (LAG if camera == "left" else 0)
        message.header.frame_id, message.header.stamp = camera, Time(nanoseconds=stamp).to_msg()
        poses = [transform("odom", "base_link", stamp + n * INTERVAL, (1, 0, 0, 0), (5, 0, 0)) for n in (-1, 0, 1)]
        self.feed("/tf", TFMessage(transforms=poses))

    def place(self) -> None:
        """Say where everything is and what the cameras are like; messages before may have said otherwise."""
        poses = {c: (BASE_Q_CAMERA[c], BASE_P_CAMERA[c]) for c in CAMERAS} | {"ref": (REF_Q, BASE_P_REF)}
        fixed = [transform("base_link", name, 0, *pose) for name, pose in poses.items()]
        self.feed("/tf_static", TFMessage(transforms=fixed))
        for camera in CAMERAS:
            self.feed(f"/{camera}/camera_info", CameraInfo(width=WIDTH, height=HEIGHT, k=K.flatten().tolist()))

    def settle(self) -> bool:
        """Let timers run, and the worker finish."""
        for timer in self.node.timers:
            timer.callback()
        monitor = self.monitor
        return spin_until(lambda: monitor.released == monitor.published + monitor.set_drops.total(), seconds=120.0)

    def recovers(self) -> bool:
        """Say whether sets that are right are published again."""
        before = self.monitor.published
        for _ in range(20):
            for camera in CAMERAS:
                topic = f"/{camera}/image_raw"
                pixels = picture(0)
                image = Image(encoding="bgr8", width=WIDTH, height=HEIGHT, step=3 * WIDTH, data=pixels.tobytes())
                if self.transport == "compressed":
                    topic, image = f"{topic}/compressed", CompressedImage(format="jpeg", data=jpeg(pixels))
                self.set_right(topic, image)
                self.feed(topic, image)
        return self.settle() and self.monitor.published > before + 5


@pytest.fixture
def fed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fed]:
    rclpy.init()
    fed = Fed(write_tiny_model(tmp_path / "tiny.safetensors"), request.param)
    yield fed
    fed.node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.parametrize("fed", ["compressed", "raw"], indirect=True)
def test_no_message_ends_the_node_or_goes_uncounted(fed: Fed):
    drawn = 0

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(st.lists(items(fed.transport), min_size=MESSAGES, max_size=MESSAGES))
    def feed(messages: list[tuple[str, Any, bool]]) -> None:
        nonlocal drawn
        for topic, message, is_right in messages:
            if is_right and isinstance(message, Image | CompressedImage):
                fed.set_right(topic, message)
            fed.feed(topic, message)
            drawn += 1
        assert fed.settle()
        monitor = fed.monitor
        internal = {name: facts for name, facts in monitor.cameras(0).items() if f"unusable: {INTERNAL}" in facts}
        assert not monitor.faults[INTERNAL] and not monitor.set_drops[INTERNAL] and not internal

    feed()
    assert drawn > 5000
    assert fed.monitor.published > 0
    assert fed.recovers()
    fed.node.trigger_deactivate()
    monitor = fed.monitor
    assert {name: facts["images"] for name, facts in monitor.cameras(0).items()} == fed.sent
    assert fed.sent.total() == monitor.in_sets + monitor.image_drops.total()
    assert monitor.released == monitor.published + monitor.set_drops.total()
