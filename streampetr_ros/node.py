"""The ROS 2 node: a thin lifecycle shell around the synchroniser, the transforms and the streaming detector.

configure loads the model, activate subscribes; callbacks only enqueue, a few threads decode, one worker encodes,
detects and publishes.
"""

import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformListener

from streampetr_core.checkpoint import Checkpoint, load_checkpoint
from streampetr_core.errors import StreampetrError
from streampetr_core.runtime import Runtime, RuntimeOptions, open_runtime
from streampetr_core.tracking import TrackerConfig
from streampetr_ros.arrival_clock import ArrivalClock
from streampetr_ros.assembly import Assembler
from streampetr_ros.diagnosis import Monitor
from streampetr_ros.diagnostics import Diagnostics, Watched
from streampetr_ros.guard import INTERNAL, Guard, describe
from streampetr_ros.intake import Calibrations, ThrottledLog, stamp_ns
from streampetr_ros.latency import Latencies
from streampetr_ros.mounts import Mounts
from streampetr_ros.outputs import Outputs
from streampetr_ros.parameters import Parameters, declare_parameters, is_dynamic, read_parameters
from streampetr_ros.perception import Perceived, Perception, ResetPolicy
from streampetr_ros.preparation import PendingImage, Preparation
from streampetr_ros.publishers import Listening
from streampetr_ros.reference_times import ReferenceTimes
from streampetr_ros.synchroniser import ENDED, ImageSet, Step, Synchroniser
from streampetr_ros.transform_gate import TransformGate
from streampetr_ros.transforms import Transforms, transform_fault
from streampetr_ros.worker import Worker

_NANOSECONDS = 1_000_000_000
_POLL_SECONDS = 0.02  # how often sets that miss an image are looked at
_PATIENT_SECONDS = 5.0  # how long they wait where every image of a bag counts
_SIGNAL_SECONDS = 0.2  # how long a signal may wait for an idle node
_QUEUE_LATEST, _QUEUE_ALL = 10, 1000
_INACTIVE = "not active", "the model is loaded, nothing is subscribed to", "activate the node"
BAD_STAMP, BAD_TRANSFORM = "unusable stamps", "unusable transforms"
_TF_CACHE = Duration(seconds=10)
_TF_CACHE_ALL = Duration(seconds=3600)  # sets that wait, since none may be dropped, find their transforms all the same


class StreampetrNode(LifecycleNode):
    """Subscribes to cameras and tf, publishes what is found; see `Outputs`."""

    def __init__(
        self, open_model: Callable[[Checkpoint, RuntimeOptions], Runtime] = open_runtime, **kwargs: Any
    ) -> None:
        """Take what makes a runtime of a checkpoint, and rclpy's arguments."""
        super().__init__("streampetr", **kwargs)
        declare_parameters(self)
        self._open_model = open_model
        self._configured = False
        self._worker: Worker | None = None
        self._gate = TransformGate()
        self._poll_timer: Timer | None = None
        self._listener: TransformListener | None = None
        self._outputs: Outputs | None = None
        self._listening: list[Listening] = []
        # rclpy wants one severity for each line of code that logs, hence a line for each.
        self._problem = ThrottledLog(lambda text: self.get_logger().warning(text))
        self._changed = ThrottledLog(lambda text: self.get_logger().info(text))
        self._guard = Guard(self._problem)
        self._diagnostics = Diagnostics(self, self._guard)
        self.add_on_set_parameters_callback(self._on_parameters)

    @property
    def monitor(self) -> Monitor:
        """What is counted since the node became active."""
        return self._monitor

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters and load the model."""
        return self._attempt(self._configure, self._release, "not configured")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and begin a new scene."""
        result = self._attempt(self._activate, self._stop, "not active")
        if result == TransitionCallbackReturn.SUCCESS:
            super().on_activate(state)
            self._outputs.begin(self.get_parameter("score_threshold").value)
        return result

    def _attempt(self, work: Callable[[], None], undo: Callable[[], None], name: str) -> TransitionCallbackReturn:
        """Do the work of a transition; where it fails, say so and undo it, since rclpy tells nobody."""
        try:
            work()
        except Exception as error:
            undo()
            expected = isinstance(error, StreampetrError)
            text = str(error) if expected else describe(error)
            self.get_logger().error(text if expected else f"{text}\n{traceback.format_exc()}")
            self._diagnostics.idle(name, *text.partition("; ")[::2])
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self._settings = values = read_parameters(self)
        if not values.model:
            raise StreampetrError("parameter 'model' is empty; give the path of a model file (.safetensors)")
        checkpoint = load_checkpoint(values.model)
        engines = Path(values.engines) if values.engines else None
        runtime = self._open_model(checkpoint, RuntimeOptions(values.runtime, values.precision, values.device, engines))
        policy = ResetPolicy(values.max_gap, values.max_speed)
        make_tracking = TrackerConfig.for_model if values.tracking_method == "identity" else TrackerConfig.by_distance
        thresholds = {"birth_score": values.track_birth_score, "keep_score": values.track_keep_score}
        tracking = make_tracking(checkpoint.config, **thresholds)
        self._encodes_ahead = runtime.encodes_singly
        if values.encode_on_arrival != "auto":
            self._encodes_ahead = values.encode_on_arrival == "always"
        self._perception = Perception(
            runtime, policy, values.memory_interval or None, tracking, values.resize, self._encodes_ahead
        )
        self._listen_to_transforms(values)
        model = checkpoint.config.class_names, values.model
        self._outputs = Outputs(self, *model, values.base_frame, self._queue_depth())
        self._configured = True
        self._diagnostics.idle(*_INACTIVE)
        self.get_logger().info(f"model {checkpoint.config.name}, {runtime.description}: {checkpoint.source}")

    def _listen_to_transforms(self, values: Parameters) -> None:
        self._buffer = Buffer(_TF_CACHE if values.realtime else _TF_CACHE_ALL, self)
        self._listener = TransformListener(self._buffer, self)
        for subscription in (self._listener.tf_sub, self._listener.tf_static_sub):
            topic = subscription.topic_name
            usable = partial(self._on_transforms, topic, subscription.callback)
            subscription.callback = self._guard.safe(usable, topic)
        self._transforms = Transforms(self._buffer, values.base_frame, values.reference_frame, values.fixed_frame)
        self._mounts = Mounts(self._buffer, values.base_frame)

    def _activate(self) -> None:
        values = self._settings
        self._image_topics, info_topics = values.image_topics, values.camera_info_topics
        self._calibrations = Calibrations(info_topics)
        max_wait = values.max_wait if values.realtime else max(values.max_wait, _PATIENT_SECONDS)
        self._synchroniser = Synchroniser(values.cameras, values.smallest_set, max_wait)
        self._monitor = Monitor(self._image_topics, time.monotonic())
        self._guard.watch(self._monitor)
        # A bag that is played slowly, or paused, delays images in sim time only by what they were delayed in truth.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        arrival_clock = self.get_clock() if self.get_parameter("use_sim_time").value else steady
        self._arrival_time = ArrivalClock(lambda: arrival_clock.now().nanoseconds / _NANOSECONDS)
        self._reference_times = ReferenceTimes()
        self._perception.reset()
        self.latencies = Latencies()
        self._worker = Worker(self._process, self._on_late_set, not values.realtime, self._encode_ahead)
        self.preparation = Preparation(
            self._perception.path,
            self._image_topics,
            self._perception.encode if self._encodes_ahead else None,
            on_ready=self._worker.nudge,
            on_decoded=lambda seconds: self.latencies.note(time.monotonic(), decode=seconds),
        )
        self._assembler = Assembler(
            values,
            self.preparation,
            self._calibrations,
            self._monitor,
            self._transforms,
            self._mounts,
            self._reference_times,
            wait=self._worker.wait,
            problem=self._problem,
            inform=self.get_logger().info,
        )
        self._poll_timer = self.create_timer(_POLL_SECONDS, self._guard.safe(self._on_poll, "timer"), clock=steady)
        self._subscribe(self._image_topics, info_topics)
        tf = [Listening(self._listener.tf_sub), Listening(self._listener.tf_static_sub)]
        parts = self._monitor, self._synchroniser, self._calibrations
        listening = [*self._listening, *tf]
        self._diagnostics.watch(Watched(*parts, values.smallest_set, listening, self.latencies, self.preparation))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop working."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working and let go of everything."""
        self._stop()
        if self._configured:
            self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker before its publishers go."""
        self._stop()
        super().destroy_node()

    def _subscribe(self, image_topics: dict[str, str], info_topics: dict[str, str]) -> None:
        values = self._settings
        image_type = CompressedImage if values.transport == "compressed" else Image
        depth = self._queue_depth()
        reliability = ReliabilityPolicy[values.reliability.upper()]
        qos = QoSProfile(depth=depth, reliability=reliability)
        for camera in values.cameras:
            self._listen(image_type, image_topics[camera], partial(self._on_image, camera), qos, camera)
            self._listen(CameraInfo, info_topics[camera], partial(self._on_camera_info, camera), qos, camera)
        if values.reference_topic:
            self._listen(Header, values.reference_topic, self._on_reference, qos)

    def _listen(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile, camera: str = ""
    ) -> None:
        safe = self._guard.safe(callback, topic, camera)
        self._listening.append(Listening(self.create_subscription(kind, topic, safe, qos), camera))

    def _queue_depth(self) -> int:
        return _QUEUE_LATEST if self._settings.realtime else _QUEUE_ALL

    def _stop(self) -> None:
        for each in self._listening:
            self.destroy_subscription(each.subscription)
        self._listening.clear()
        if self._worker is None:
            return
        if self._poll_timer is not None:  # a signal may come in the middle of activation
            self.destroy_timer(self._poll_timer)
            self._poll_timer = None
        left = self._worker.stop()
        self._worker, self._gate = None, TransformGate()
        self.preparation.close()
        self._diagnostics.idle(*_INACTIVE)
        self._guard.watch(None)
        for _ in left:
            self._monitor.set_dropped(ENDED, time.monotonic())
        self._monitor.dropped(self._synchroniser.end().drops, time.monotonic())
        images, sets = _listed(self._monitor.image_drops), _listed(self._monitor.set_drops)
        self.get_logger().info(
            f"{self._monitor.published} sets published; dropped sets: {sets}; dropped images: {images}"
        )

    def _release(self) -> None:
        if self._listener is not None:
            self._listener.unregister()
        if self._outputs is not None:
            self._outputs.destroy()
        self._perception = self._buffer = self._listener = self._transforms = self._mounts = self._outputs = None
        self._assembler = None
        self._configured = False
        self._diagnostics.idle("not configured", "the model is not loaded", "configure the node")

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        fixed = [parameter.name for parameter in parameters if self._configured and not is_dynamic(parameter.name)]
        reason = f"{', '.join(fixed)}: takes effect on configure only; clean the node up first" if fixed else ""
        return SetParametersResult(successful=not fixed, reason=reason)

    def _on_camera_info(self, camera: str, info: CameraInfo) -> None:
        if self._calibrations.update(camera, info):
            usable = self._calibrations.lens(camera) is not None
            self._changed(f"{camera}: new calibration, in use from the next set on", key=f"{camera} {usable}")

    def _on_reference(self, header: Header) -> None:
        try:
            self._reference_times.add(stamp_ns(header, self._settings.reference_topic))
        except StreampetrError as error:
            self._guard.fault(BAD_STAMP, str(error))

    def _on_transforms(self, topic: str, take: Callable[[TFMessage], None], message: TFMessage) -> None:
        faults = [transform_fault(transform) for transform in message.transforms]
        for fault in filter(None, faults):
            self._guard.fault(BAD_TRANSFORM, f"{topic}: {fault}; check who publishes it")
        usable = [transform for transform, fault in zip(message.transforms, faults, strict=True) if not fault]
        if topic == self._listener.tf_sub.topic_name:
            usable = self._gate.admit(usable, time.monotonic())
        take(TFMessage(transforms=usable))

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        now, topic = time.monotonic(), self._image_topics[camera]
        try:
            exposure_ns = stamp_ns(message, topic)
        except StreampetrError as error:
            self._monitor.unusable_image(camera, BAD_STAMP, now)
            self._guard.fault(BAD_STAMP, str(error), camera)
            return
        self._monitor.image(camera, exposure_ns, now)
        self.latencies.note(now, receive=self._age(exposure_ns))
        image = PendingImage(camera, message, now)
        self._use(self._synchroniser.add(camera, exposure_ns, image, self._arrival_time()))
        # Ahead of its set only where it will be used: not before the rhythm is known, not while sets wait.
        if self._synchroniser.rhythm is not None and not self._worker.is_behind:
            with suppress(StreampetrError):  # of a calibration that is not there yet; its set will say so
                self.preparation.begin(image, self._calibrations.model(camera), ahead=True)

    def _age(self, stamp_ns: int) -> float:
        return (self.get_clock().now().nanoseconds - stamp_ns) / _NANOSECONDS

    def _on_poll(self) -> None:
        self._use(self._synchroniser.poll(self._arrival_time()))

    def _use(self, step: Step) -> None:
        """Act on what the synchroniser found out."""
        for note in step.notes:
            self.get_logger().info(note)
        if step.jump is not None:
            self._gate.jumped()
        if step.jump is not None and step.jump < 0:
            self.get_logger().info("images jumped back in time: transforms and waiting images are forgotten")
            self._transforms.clear()
            self._reference_times.clear()
        self._monitor.dropped(step.drops, time.monotonic())
        for drop in step.drops:
            self.preparation.release(drop.image, used=False)
        for image_set in step.sets:
            self._let_transforms_pass(image_set.newest_stamp)
            self._monitor.set_released(len(image_set.images), time.monotonic())
            self._worker.submit(image_set)
        self._poll_while_images_wait()

    def _poll_while_images_wait(self) -> None:
        """Stop and start the timer: fifty wake-ups a second of rclpy's executor cost a tenth of a processor."""
        if self._poll_timer is None:
            return
        if not self._synchroniser.waiting:
            self._poll_timer.cancel()
        elif self._poll_timer.is_canceled():
            self._poll_timer.reset()

    def _let_transforms_pass(self, newest_ns: int) -> None:
        """Give tf the transforms that waited for images of this time."""
        admitted, fault = self._gate.images_came(newest_ns, time.monotonic())
        self._listener.callback(TFMessage(transforms=admitted))
        if fault:
            topic = self._listener.tf_sub.topic_name
            self._guard.fault(BAD_TRANSFORM, f"{topic}: {fault}; check who publishes it")

    def _on_late_set(self, image_set: ImageSet) -> None:
        self._monitor.set_dropped("detection is slower than the cameras", time.monotonic(), overrun=True)
        self._release_images(image_set, used=False)

    def _release_images(self, image_set: ImageSet, used: bool) -> None:
        for image in image_set.images.values():
            self.preparation.release(image, used)

    def _encode_ahead(self) -> bool:
        """Encode one image whose set is not complete yet; return False if there is none."""
        try:
            return self.preparation.encode_next()
        except Exception as error:  # its set will meet the same, and say more
            self._guard.caught(error, "an image was not encoded ahead")
            return True

    def _process(self, image_set: ImageSet) -> None:
        """Turn one set into published detections; whatever goes wrong is said, and the node lives on."""
        began, is_used = time.monotonic(), False
        try:
            assembled = self._assembler.assemble(image_set)
            perceived = self._perception.process(assembled.snapshot)
            if perceived.reset_reason:
                self.get_logger().info(f"memory starts anew: {perceived.reset_reason}; and so do all tracks")
            threshold, found = self.get_parameter("score_threshold").value, time.monotonic()
            world_T_ref = assembled.snapshot.world_T_ref
            self._outputs.publish(assembled.reference_ns, perceived, assembled.base_T_ref, world_T_ref, threshold)
            is_used, now = True, time.monotonic()
            best = max(perceived.detections.scores_D.tolist(), default=0.0)
            self._monitor.set_published(now - began, best, threshold, now)
            self._note_latencies(
                image_set, perceived, began, publish=now - found, age=self._age(assembled.reference_ns)
            )
        except StreampetrError as error:
            self._monitor.set_dropped("unusable", time.monotonic())
            self._problem(f"set dropped: {error}")
        except Exception as error:  # one bad set must not silence the node for good
            self._monitor.set_dropped(INTERNAL, time.monotonic())
            self._guard.caught(error, "set dropped")
        self._release_images(image_set, is_used)

    def _note_latencies(self, image_set: ImageSet, perceived: Perceived, began: float, **others: float) -> None:
        images = image_set.images.values()
        self.latencies.note(
            time.monotonic(),
            wait=began - max(image.received for image in images),
            encode=perceived.encode_seconds + sum(image.encode_seconds for image in images),
            step=perceived.step_seconds,
            **others,
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in counts.items()) or "none"


def _configures(node: StreampetrNode) -> bool:
    return node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def main(make_node: Callable[[], StreampetrNode] = StreampetrNode) -> int:
    """Run the node until SIGINT or SIGTERM; with the parameter `autostart` it becomes active by itself."""
    # Signals are Python's here, so that the node can still publish and log while it stops in order. A signal only
    # leaves a mark: an exception out of nowhere would be lost where Python or rclpy swallow exceptions.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    asked_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_end.set())
    try:
        node = make_node()
    except StreampetrError as error:
        print(f"streampetr: error: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        is_ready = node.get_parameter("autostart").value and _configures(node)
        if is_ready and not asked_to_end.is_set():
            node.trigger_activate()
        while rclpy.ok() and not asked_to_end.is_set():
            executor.spin_once(timeout_sec=_SIGNAL_SECONDS)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
