"""Check a bag, or what runs, for all that the detector needs, before the model is blamed.

Looks at topics, types and quality of service, rates, stamps and the cameras' rhythm, CameraInfo, transforms, mounting
and odometry; the pictures themselves tell whether things that stand still stay put. Each finding says what was
expected, what was found and what to do. A picture shows horizon and ground as calibration and transforms have them.
The node's own parameter file tells what is expected. The exit code is 1 if anything is an error.

Example:
  streampetr doctor out/scene-0103
  streampetr doctor --live --seconds 20 --params config/node.yaml --cameras left right --json out/doctor.json
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import yaml

from streampetr_core.errors import StreampetrError

_FRAMES = ("base_frame", "reference_frame", "fixed_frame")
_TOPICS = ("image_topic", "camera_info_topic", "reference_topic")
# Parameters that every node has, and that change nothing here.
_OF_ANY_NODE = {"use_sim_time", "qos_overrides", "start_type_description_service"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("bag", type=Path, nargs="?", metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--live", action="store_true", help="listen to what runs instead")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to listen (default: %(default)s)")
    parser.add_argument("--params", type=Path, metavar="FILE", help="the node's parameter file (.yaml)")
    parser.add_argument("--cameras", nargs="+", metavar="NAME", help="cameras in the order of training")
    parser.add_argument("--transport", choices=("compressed", "raw"), help="how images come")
    for name in (*_TOPICS, *_FRAMES):
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="NAME", help=f"the parameter '{name}' of the node")
    parser.add_argument("--out", type=Path, default=Path("out/doctor.png"), help="picture (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings here too")
    parser.add_argument("--verbose", action="store_true", help="also tell what is well, one by one")


def run(args: Namespace) -> None:
    """Gather, check, write and tell; raises StreampetrError if there are errors."""
    if args.live == bool(args.bag):
        raise StreampetrError("give a bag, or --live, and not both")
    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise StreampetrError(f"{args.out}: a picture's name must end in .png or .jpg")
    if not args.seconds > 0:
        raise StreampetrError(f"--seconds {args.seconds:g}: listen for more than 0")
    try:
        from streampetr_ros.doctor.examination import examine
        from streampetr_ros.doctor.findings import Severity, as_values, count, report, verdict
        from streampetr_ros.doctor.listen import listen
        from streampetr_ros.doctor.overlay import overlay
        from streampetr_ros.doctor.read_bag import read_bag
        from streampetr_ros.parameters import parameters_from
    except ImportError as error:
        raise StreampetrError(f"{error}; source a ROS 2 distribution, or install rclpy and rosbags with pip") from error
    expected = parameters_from(_values(args))
    gathered = listen(expected, args.seconds) if args.live else read_bag(args.bag, expected)
    findings = examine(expected, gathered)
    print("\n".join(report(findings, verbose=args.verbose)))
    _write_picture(overlay(expected, gathered), args.out)
    if args.json:
        _write_json(as_values(findings) | {"source": gathered.evidence.source}, args.json)
    if count(findings, Severity.ERROR):
        raise StreampetrError(f"{gathered.evidence.source}: {verdict(findings)}; the remedies stand above")


def _values(args: Namespace) -> dict[str, Any]:
    """Return the node's parameters from the file and, where they are given, from the arguments."""
    values = _from_file(args.params) if args.params else {}
    given = {name: getattr(args, name) for name in (*_TOPICS, *_FRAMES, "cameras", "transport")}
    return values | {name: value for name, value in given.items() if value is not None}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8")).values()
        values = {name: value for each in sections for name, value in each["ros__parameters"].items()}
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be read ({error.strerror}); name a parameter file") from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise StreampetrError(f"{path}: no parameter file ({error}); config/node.yaml is an example") from error
    return {name: value for name, value in values.items() if name not in _OF_ANY_NODE}


def _write_picture(picture: Any, path: Path) -> None:
    import cv2

    if picture is None:
        print("no picture: no image could be decoded")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise StreampetrError(f"{path}: cannot be written; choose another name or folder")
    print(f"picture: {path}")


def _write_json(values: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    print(f"findings: {path}")
