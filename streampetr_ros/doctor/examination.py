"""All checks in their order: from the topics, without which there is nothing, to the motion of the pictures."""

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import Array
from streampetr_ros.doctor.evidence import Evidence
from streampetr_ros.doctor.findings import Finding
from streampetr_ros.doctor.frames import Tree, camera_frame, check_frames
from streampetr_ros.doctor.gather import Gatherer
from streampetr_ros.doctor.lenses import check_lenses
from streampetr_ros.doctor.mounting import check_mounting, check_order, check_reference
from streampetr_ros.doctor.odometry import check_motion, check_static_things
from streampetr_ros.doctor.times import check_times
from streampetr_ros.doctor.topics import check_topics
from streampetr_ros.parameters import Parameters


def examine(expected: Parameters, gathered: Gatherer) -> list[Finding]:
    """Return what all checks find."""
    seen, tree = gathered.evidence, Tree(gathered.buffer, expected)
    base_T_cams = camera_poses(expected, seen, tree)
    stamps = [stamp for camera in seen.cameras.values() for stamp in camera.stamps]
    findings = [
        *check_topics(expected, seen),
        *check_times(expected, seen),
        *check_lenses(expected, seen),
        *check_frames(expected, seen, tree),
        *check_mounting(base_T_cams, expected.base_frame),
        *check_order(base_T_cams, expected.cameras),
    ]
    try:
        base_T_ref = tree.latest(expected.base_frame, expected.reference_frame)
        findings += check_reference(base_T_ref, expected.reference_frame)
    except StreampetrError:
        pass  # the check of frames says so
    findings += check_motion(expected, stamps, tree)
    findings += check_static_things(seen, base_T_cams, tree)
    return findings


def camera_poses(expected: Parameters, seen: Evidence, tree: Tree) -> dict[str, Array]:
    """Return `base_T_cam` of the cameras whose frames are known."""
    poses = {}
    for name in expected.cameras:
        frame = camera_frame(seen, name)
        try:
            if frame:
                poses[name] = tree.latest(expected.base_frame, frame)
        except StreampetrError:
            continue  # the check of frames says so
    return poses
