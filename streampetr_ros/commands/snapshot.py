"""Draw what the node detects into the images of the cameras, once, and tell what was received.

Listens until the detections stop for a while (or for --seconds), then writes the picture of the last ones.

Example:
  streampetr snapshot out/picture.png --max-boxes 20
"""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from streampetr_core.errors import StreampetrError

# Left to right, front above back, as the cameras look.
_LAYOUT = ["cam_front_left", "cam_front", "cam_front_right", "cam_back_left", "cam_back", "cam_back_right"]
_BEST_SHOWN = 5


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("out", type=Path, help="the picture to write (.png or .jpg)")
    parser.add_argument("--cameras", nargs="+", default=_LAYOUT, metavar="NAME", help="cameras, in the picture's order")
    parser.add_argument("--columns", type=int, default=3, help="pictures in a row (default: %(default)s)")
    parser.add_argument("--tile-width", type=int, default=640, help="width of one picture (default: %(default)s)")
    parser.add_argument("--transport", choices=("compressed", "raw"), default="compressed", help="how images come")
    parser.add_argument("--topic", default="/streampetr/detections", help="detections to draw (default: %(default)s)")
    parser.add_argument("--fixed-frame", default="odom", help="frame in which the vehicle moves (default: %(default)s)")
    parser.add_argument("--max-boxes", type=int, default=50, help="draw the best so many (default: %(default)s)")
    parser.add_argument("--note", default="", help="a remark for the picture's banner")
    parser.add_argument("--wait", type=float, default=60.0, help="longest wait for the first detections, s")
    parser.add_argument("--idle", type=float, default=3.0, help="end after so long without detections, s")
    parser.add_argument("--seconds", type=float, help="end after so long at most, s")


def run(args: Namespace) -> None:
    """Listen, then write the picture and say what came."""
    try:
        import cv2
        import rclpy

        from streampetr_ros.snapshot import SnapshotNode, SnapshotOptions
    except ImportError as error:
        raise StreampetrError(f"{error}; source a ROS 2 distribution, or install rclpy with pip") from error
    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise StreampetrError(f"{args.out}: a picture's name must end in .png or .jpg")
    rclpy.init()
    try:
        options = SnapshotOptions(
            args.cameras, args.columns, args.tile_width, args.transport, args.topic, args.fixed_frame, args.max_boxes
        )
        node = SnapshotNode(options)
        _listen(node, args)
        picture = node.picture(args.note)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(args.out), picture):
            raise StreampetrError(f"{args.out}: cannot be written")
        print(_summary(node, args.topic))
        print(f"picture: {args.out}")
    finally:
        rclpy.try_shutdown()


def _listen(node, args: Namespace) -> None:  # noqa: ANN001 - its type needs rclpy, which is imported late
    import rclpy

    start = last = time.monotonic()
    count = 0
    while True:
        rclpy.spin_once(node, timeout_sec=0.1)
        now = time.monotonic()
        if len(node.detections) > count:
            count, last = len(node.detections), now
        patience = args.idle if count else args.wait
        if now - last > patience or (args.seconds is not None and now - start > args.seconds):
            return


def _summary(node, topic: str) -> str:  # noqa: ANN001
    images = ", ".join(f"{camera} {count}" for camera, count in sorted(node.image_counts.items()))
    last = node.detections[-1]
    lines = [
        f"received images: {images}",
        f"received on {topic}: {len(node.detections)} messages in '{last.header.frame_id}', "
        f"the last with {len(last.detections)} boxes",
    ]
    for detection in last.detections[:_BEST_SHOWN]:
        hypothesis, centre, size = detection.results[0].hypothesis, detection.bbox.center.position, detection.bbox.size
        lines.append(
            f"  {hypothesis.class_id:<21}{hypothesis.score:.3f}"
            f"  at ({centre.x:6.1f}, {centre.y:6.1f}, {centre.z:5.1f}) m"
            f"  size {size.x:.1f} x {size.y:.1f} x {size.z:.1f} m"
        )
    return "\n".join(lines)
