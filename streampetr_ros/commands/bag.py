"""Make bags of nuScenes scenes, play and record bags where rosbag2 is missing, judge and show what the node published.

A bag is a rosbag2 recording: a folder with metadata.yaml, or an .mcap or .db3 file. Bags made here play in
`ros2 bag play`, and bags recorded by `ros2 bag record` play here.

Example:
  streampetr bag from-nuscenes data/nuscenes --version v1.0-mini --scene scene-0103 out/scene-0103
  streampetr bag info out/scene-0103
  streampetr bag play out/scene-0103 --clock --wait-for-subscribers /cam_front/image_raw/compressed
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from streampetr_core.errors import StreampetrError

# The last rerun that runs with NumPy 1, which nuscenes-devkit and the cv-bridge wheel need, and a pyarrow that does.
RERUN_INSTALL = "pip install 'rerun-sdk==0.23.1' 'pyarrow<26'"
# What the detector publishes under its usual name, but for RViz's markers.
_PUBLISHED = tuple(
    f"/streampetr/{name}" for name in ("detections", "detections/points", "tracks", "objects", "label_info")
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(dest="bag_command", metavar="COMMAND", required=True)
    _add(commands, "from-nuscenes", "write one nuScenes scene as a bag", _FROM_NUSCENES, _from_nuscenes_arguments)
    _add(commands, "play", "publish a bag's messages at their times", _PLAY, _play_arguments)
    _add(commands, "record", "write topics to a bag", _RECORD, _record_arguments)
    _add(commands, "info", "tell what is in a bag", _INFO, _info_arguments)
    _add(commands, "to-results", "turn what the node published into results files", _TO_RESULTS, _to_results_arguments)
    _add(commands, "video", "draw what the node published into what it saw", _VIDEO, _video_arguments)
    _add(commands, "rerun", "show what the node published in the rerun viewer", _RERUN, _rerun_arguments)


def run(args: argparse.Namespace) -> None:
    """Run the chosen subcommand."""
    commands = {
        "from-nuscenes": _from_nuscenes,
        "play": _play,
        "record": _record,
        "info": _info,
        "to-results": _to_results,
        "video": _video,
        "rerun": _rerun,
    }
    commands[args.bag_command](args)


_FROM_NUSCENES = """Write one scene of a nuScenes-format root as a rosbag2 folder (mcap).

In it, at the sensors' own times:
  /<camera>/image_raw/compressed  the bytes of the image files, and /<camera>/camera_info
  /tf                             odom -> base_link, the ego pose at every exposure of every sensor
  /tf_static                      map -> odom, base_link -> each camera and lidar_top
  /ground_truth                   the annotated boxes in base_link (none in a test set)
  /nuscenes/sample                the sample token at each keyframe
  /lidar_top/stamp                the times of the LiDAR's sweeps, for the node's parameter reference_topic

Example:
  streampetr bag from-nuscenes data/nuscenes --version v1.0-mini --scene scene-0103 out/scene-0103"""

_PLAY = """Publish a bag's messages at their recorded times and with their recorded quality of service.

The space bar pauses and resumes; ctrl-c ends. Several publishers of one topic become one that offers the best of them.

Example:
  streampetr bag play out/scene-0103 --rate 0.5 --loop --clock"""

_RECORD = """Write topics to a rosbag2 folder (mcap) from when they get a publisher until ctrl-c.

Without --topics: what the detector publishes, as `streampetr bag to-results` reads it.

Example:
  streampetr bag record out/published
  streampetr bag record out/odometry --topics /tf /tf_static --seconds 60"""

_TO_RESULTS = """Turn what the node published into nuScenes' results files, for nuscenes-devkit to judge.

A message counts for the sample whose time it has. So let the node take its times from the LiDAR, and drop and hide
nothing: -p reference_topic:=/lidar_top/stamp -p realtime:=false -p score_threshold:=0.0
OUT receives results_nusc.json and tracking_result.json with all samples of the scenes that were played.

Example:
  streampetr bag record out/published
  streampetr bag to-results out/published --dataroot out/world --out out/live
  streampetr score out/live/results_nusc.json out/live/tracking_result.json --dataroot out/world"""

_VIDEO = """Draw what the node published into what it saw: the cameras, and the scene from above with trails.

BAG has the cameras, RECORDED what the node published of them. Tracks are drawn where there are any, else detections.
The picture shows the last moment whose truth the bag tells.

Example:
  streampetr bag video out/scene-0103 out/published --video out/scene.mp4 --picture out/scene.png"""

_RERUN = """Show what the node published, and what it saw, in the rerun viewer: a scene to walk around in.

A recording (.rrd) is written, which `rerun FILE` opens on any machine: the cameras' images and where they look from,
boxes with ids, trails, the truth, the vehicle's way. It needs rerun, which is not installed with the rest.

Example:
  streampetr bag rerun out/scene-0103 out/published --out out/scene.rrd --show"""

_INFO = """Tell times, topics, types, rates and quality of service of a bag.

Example:
  streampetr bag info out/scene-0103"""


def _add(commands: argparse.Action, name: str, summary: str, text: str, fill: Callable) -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    fill(commands.add_parser(name, help=summary, description=text, formatter_class=formatter))


def _from_nuscenes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataroot", type=Path, metavar="DATAROOT", help="folder of the version folder and samples/")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new bag")
    parser.add_argument("--scene", required=True, metavar="NAME", help="such as scene-0103; a wrong one lists all")
    parser.add_argument("--version", metavar="NAME", help="folder of the tables (default: the only one there is)")
    parser.add_argument("--no-sweeps", action="store_true", help="images of keyframes (2 Hz) only")
    parser.add_argument("--force", action="store_true", help="replace an existing bag")


def _play_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--rate", type=_positive, default=1.0, help="times real time (default: 1.0)")
    parser.add_argument("--loop", action="store_true", help="start again at the end, until ctrl-c")
    parser.add_argument("--clock", action="store_true", help="publish /clock (100 Hz), for nodes with use_sim_time")
    parser.add_argument("--start-paused", action="store_true", help="wait for the space bar")
    parser.add_argument("--delay", type=_seconds, default=0.0, metavar="SECONDS", help="sleep before playing")
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument(
        "--wait-for-subscribers",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="begin when each has its subscribers; twice as many where it is named twice",
    )
    waiting.add_argument(
        "--wait", type=_seconds, default=1.0, metavar="SECONDS", help="time for discovery (default: 1.0)"
    )
    parser.add_argument("--subscribers", type=int, default=1, metavar="N", help="how many to wait for (default: 1)")
    parser.add_argument("--skip-unknown", action="store_true", help="leave out topics whose type is not installed")


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")


def _record_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="BAG", help="the rosbag2 folder to write")
    parser.add_argument("--topics", nargs="+", default=list(_PUBLISHED), metavar="TOPIC", help="what to record")
    parser.add_argument("--seconds", type=_positive, help="end after so long")
    parser.add_argument("--idle", type=_positive, metavar="SECONDS", help="end when nothing came for so long")
    parser.add_argument("--force", action="store_true", help="replace a bag of that name")


def _to_results_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="recordings of what the node published")
    parser.add_argument("--dataroot", type=Path, required=True, help="the nuScenes-format root that was played")
    parser.add_argument("--version", help="its version folder (default: the only one)")
    parser.add_argument("--out", type=Path, default=Path("out/live"), help="folder to write (default: %(default)s)")
    parser.add_argument("--node", default="/streampetr", help="name of the node (default: %(default)s)")
    parser.add_argument(
        "--tolerance", type=_seconds, default=0.0, metavar="SECONDS", help="between a message and its sample"
    )


def _video_arguments(parser: argparse.ArgumentParser) -> None:
    _scene_arguments(parser)
    parser.add_argument("--video", type=Path, metavar="FILE", help="an .mp4 to write")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a .png or .jpg to write")


def _rerun_arguments(parser: argparse.ArgumentParser) -> None:
    _scene_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/scene.rrd"),
        metavar="FILE",
        help="an .rrd to write (default: %(default)s)",
    )
    parser.add_argument("--show", action="store_true", help="open it in the viewer, where there is a display")


def _scene_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="the bag that was played to the node")
    parser.add_argument("recorded", type=Path, metavar="RECORDED", help="what the node published")
    parser.add_argument("--cameras", nargs="+", metavar="NAME", help="in the picture's order (default: nuScenes' six)")
    parser.add_argument("--node", default="/streampetr", help="name of the node (default: %(default)s)")
    parser.add_argument("--max-boxes", type=int, default=60, help="draw the best so many (default: %(default)s)")
    parser.add_argument("--score", type=float, default=0.2, help="draw from this score on (default: %(default)s)")
    parser.add_argument("--note", default="", help="a remark to be shown")
    parser.add_argument("--no-truth", action="store_true", help="leave the truth out")


def _from_nuscenes(args: argparse.Namespace) -> None:
    # Each subcommand imports what it needs when it runs: playing takes no data set tools, making a bag takes no ROS.
    try:
        from streampetr_ros.bag.from_nuscenes import write_bag
        from streampetr_ros.bag.nuscenes_scene import open_root, read_scene
    except ImportError as error:
        raise StreampetrError(f"{error}; install it with pip install 'streampetr_ros[ros,training]'") from error
    scene = read_scene(open_root(args.dataroot, args.version), args.scene, sweeps=not args.no_sweeps)
    count = write_bag(scene, args.out, force=args.force)
    boxes = sum(len(keyframe.boxes) for keyframe in scene.keyframes)
    print(
        f"{args.out}: {count} messages; images: {len(scene.exposures)} of {len(scene.cameras)} cameras, "
        f"keyframes: {len(scene.keyframes)}, " + (f"boxes: {boxes}" if scene.annotated else "no annotations")
    )


def _play(args: argparse.Namespace) -> None:
    try:
        from streampetr_ros.bag.play import PlayOptions, play
    except ImportError as error:
        raise StreampetrError(f"{error}; source a ROS 2 distribution, or install rclpy and rosbags with pip") from error
    report = play(
        args.bag,
        PlayOptions(
            rate=args.rate,
            loop=args.loop,
            clock=args.clock,
            start_paused=args.start_paused,
            delay=args.delay,
            wait=args.wait,
            wait_for=tuple(args.wait_for_subscribers),
            listeners=args.subscribers,
            skip_unknown=args.skip_unknown,
        ),
    )
    print(f"played {report.played} messages")
    for topic, count in report.left_out.items():
        print(f"left out {count} messages of {topic}")


def _record(args: argparse.Namespace) -> None:
    try:
        from streampetr_ros.bag.record import RecordOptions, record
    except ImportError as error:
        raise StreampetrError(f"{error}; source a ROS 2 distribution, or install rclpy and rosbags with pip") from error
    counts = record(args.out, RecordOptions(tuple(args.topics), args.seconds, args.idle, args.force))
    print(f"{args.out}: {sum(counts.values())} messages")
    for topic, count in counts.items():
        print(f"  {topic}: {count or 'nothing came; was there a publisher?'}")


def _to_results(args: argparse.Namespace) -> None:
    try:
        from streampetr_ros.bag.nuscenes_scene import open_root
        from streampetr_ros.bag.published import read_published
        from streampetr_ros.bag.to_results import to_results
    except ImportError as error:
        raise StreampetrError(f"{error}; install it with pip install 'streampetr_ros[ros,training]'") from error
    from streampetr_core.nuscenes_results import write_results

    published = [read_published(bag, args.node) for bag in args.bags]
    results = to_results(published, open_root(args.dataroot, args.version), round(args.tolerance * 1e9))
    for name, entries in (("results_nusc.json", results.detections), ("tracking_result.json", results.tracks)):
        write_results(args.out / name, entries)
        print(f"wrote {args.out / name}: {sum(map(len, entries.values()))} boxes in {len(entries)} samples")
    if results.silent:
        print(f"{results.silent} of {len(results.detections)} samples had no message of detections")


def _video(args: argparse.Namespace) -> None:
    if not args.video and not args.picture:
        raise StreampetrError("nothing to write; give --video FILE, --picture FILE or both")
    scenery, found, options = _published_scene(args)
    from streampetr_ros.bag.video import write_picture, write_video

    if args.picture:
        write_picture(scenery, found, args.picture, options)
        print(f"picture: {args.picture}")
    if args.video:
        count = write_video(scenery, found, args.video, options)
        print(f"video: {args.video}, {count} pictures")


def _rerun(args: argparse.Namespace) -> None:
    scenery, found, options = _published_scene(args)
    try:
        from streampetr_ros.bag.viewer import show, write_recording
    except ImportError as error:
        raise StreampetrError(f"{error}; install the rerun viewer with {RERUN_INSTALL}") from error
    count = write_recording(scenery, found, args.out, options)
    print(f"recording: {args.out}, {count} moments")
    if args.show:
        show(args.out)


def _published_scene(args: argparse.Namespace) -> tuple:
    """Return scenery, published objects by stamp, and how they are drawn."""
    try:
        from streampetr_ros.bag.moments import BagScenery
        from streampetr_ros.bag.published import read_published
        from streampetr_ros.bag.video import LAYOUT, PictureOptions
    except ImportError as error:
        raise StreampetrError(f"{error}; source a ROS 2 distribution, or install rclpy and rosbags with pip") from error
    cameras = tuple(args.cameras or LAYOUT)
    published = read_published(args.recorded, args.node)
    has_tracks = any(len(found.scores_D) for found in published.tracks.values())
    options = PictureOptions(
        cameras, most_boxes=args.max_boxes, lowest_score=args.score, note=args.note, truth=not args.no_truth
    )
    return BagScenery(args.bag, cameras), published.tracks if has_tracks else published.detections, options


def _info(args: argparse.Namespace) -> None:
    try:
        from streampetr_ros.bag.info import format_summary, summarise
    except ImportError as error:
        raise StreampetrError(f"{error}; install it with pip install 'streampetr_ros[ros]'") from error
    print(format_summary(summarise(args.bag)))


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive number")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
