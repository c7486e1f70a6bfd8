"""The message types that bags are written with, as the pure Python package `rosbags` knows them."""

import os
import sys
from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from streampetr_core.errors import StreampetrError


def type_store() -> Typestore:
    """Return the standard ROS 2 types together with the installed definitions of vision_msgs.

    Raises:
        StreampetrError: vision_msgs is not installed.
    """
    # Humble is the oldest distribution in use; the types written here have had the same fields ever since.
    store = get_typestore(Stores.ROS2_HUMBLE)
    for path in sorted(vision_msgs_folder().glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), f"vision_msgs/msg/{path.stem}"))
    return store


def vision_msgs_folder() -> Path:
    """Return the folder with the .msg files of the installed vision_msgs.

    The prefixes are searched by hand because a virtual environment need not name itself in AMENT_PREFIX_PATH, and
    because writing a bag takes no ROS installation at all, only these text files.

    Raises:
        StreampetrError: no prefix holds them.
    """
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for prefix in [*prefixes, sys.prefix]:
        folder = Path(prefix, "share", "vision_msgs", "msg")
        if (folder / "Detection3DArray.msg").is_file():
            return folder
    raise StreampetrError(
        "the package vision_msgs is not installed: install ros-<distribution>-vision-msgs and source its setup file, "
        "or run pip install ./ros_overlay/vision_msgs"
    )
