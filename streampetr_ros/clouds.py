"""Point clouds as arrays, whether rclpy or rosbags made the message."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_core.errors import StreampetrError

# sensor_msgs/PointField: datatype -> NumPy
_KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


def read_cloud(message: Any) -> NDArray:
    """Return the points of a PointCloud2 as a structured array with its fields' names.

    Raises:
        StreampetrError: data that does not hold the points that the message announces.
    """
    order = ">" if message.is_bigendian else "<"
    count = message.height * message.width
    kinds = [_KINDS.get(field.datatype) for field in message.fields]
    if None in kinds or len(message.data) < count * message.point_step:
        raise StreampetrError(f"a point cloud of {len(message.data)} bytes does not hold its {count} points")
    point = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [order + kind for kind in kinds],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(memoryview(message.data), point, count)
