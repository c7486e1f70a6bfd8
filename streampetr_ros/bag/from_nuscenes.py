"""A nuScenes scene as a rosbag2 folder (mcap), written whole or not at all."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from streampetr_ros.bag.nuscenes_scene import Exposure, Scene
from streampetr_ros.bag.qos import reliable
from streampetr_ros.bag.scene_messages import Event, scene_messages
from streampetr_ros.bag.types import type_store

# The metadata as Iron writes it: it names types by their hashes, and Humble reads it too.
BAG_VERSION = 8


def write_bag(scene: Scene, out: Path, *, force: bool = False) -> int:
    """Write a scene as a rosbag2 folder (mcap) and return the number of messages.

    The bag is written beside `out` and moved there when it is whole.

    Raises:
        StreampetrError: `out` exists (with `force`: and is no bag), image files are missing or are no images, or
            vision_msgs is not installed.
    """
    check_out(out, force)
    _check_images(scene.exposures)
    store = type_store()
    events = scene_messages(scene, store)
    with whole_or_nothing(out) as partial:
        _write(events, store, partial)
    return len(events)


def check_out(out: Path, force: bool) -> None:
    """Raise StreampetrError when something is there that is not to be replaced: with `force`, anything but a bag."""
    """Raise StreampetrError when something is there that is not to be replaced: with `force`, anything but a bag."""
    if not out.exists():
        return
    if not force:
        raise StreampetrError(f"{out}: exists already; choose another name, or replace it with --force")
    if not (out / "metadata.yaml").is_file():
        raise StreampetrError(f"{out}: is no bag (it has no metadata.yaml), so --force does not replace it")


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """Yield a path to write to, in a hidden folder beside `out`; move it to `out` at the end, or leave no trace."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        # The bag's file is named after its folder, so the partial bag has its final name already.
        partial = Path(folder, out.name)
        yield partial
        if out.exists():
            out.rename(Path(folder, "replaced"))
        partial.rename(out)


def _check_images(exposures: Sequence[Exposure]) -> None:
    missing = [exposure.path for exposure in exposures if not exposure.path.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise StreampetrError(
            f"{missing[0]}: image file is missing{more}; complete the download, "
            "or use --no-sweeps where the root holds the keyframes alone"
        )


def _write(events: Sequence[Event], store: Typestore, path: Path) -> None:
    with Writer(path, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {event.topic: event.msgtype for event in events}
        connections = {
            topic: writer.add_connection(topic, msgtype, typestore=store, offered_qos_profiles=[_profile(topic)])
            for topic, msgtype in sorted(topics.items())
        }
        for event in tqdm(events, desc="writing", unit="msg", leave=False, disable=None):
            data = store.serialize_cdr(event.build(), event.msgtype)
            writer.write(connections[event.topic], event.stamp_ns, data)


def _profile(topic: str) -> Qos:
    if topic == "/tf_static":
        return reliable(1, latched=True)
    return reliable(100 if topic == "/tf" else 5)
