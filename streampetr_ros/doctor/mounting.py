"""Do the poses of cameras and reference frame on the vehicle make sense? Knows nothing of ROS.

`base_T_cam` maps points of a camera's optical frame (z forward, x right, y down in the image) into base (x forward,
y left, z up, on the ground). Azimuths are in degrees, counted from straight ahead to the left.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from streampetr_core.geometry import Array, yaw_of
from streampetr_ros.doctor.findings import Finding, error, ok, warning

# Where nuScenes' cameras look, in the order in which its models are trained.
_TRAINED_AZIMUTHS = (0, -55, 55, 180, 110, -110)
_ORDER_TOLERANCE = 35  # degrees
_SIDES = {"left": (90, 80), "right": (-90, 80), "front": (0, 90), "back": (180, 90), "rear": (180, 90)}
_STEEP = 0.6  # sine of a view up or down
_UPRIGHT, _TURNED = 0.7, -0.5  # how far the image's y axis points down
_LOW, _HIGH = 0.2, 4.0  # metres above ground
_REFERENCE_HEIGHT, _REFERENCE_YAW = 1.84, -90.0
_MOST_HEIGHT_OFF, _MOST_TURN_OFF = 0.6, 15.0
_OPTICAL = "an optical frame: z forward, x to the right and y down in the image (REP-103)"
_SAME = 1e-3


def check_mounting(base_T_cams: Mapping[str, Array], base_frame: str) -> Iterator[Finding]:
    """Check the poses (4x4) of the cameras on the vehicle."""
    sound = []
    for name, base_T_cam in base_T_cams.items():
        wrong = list(_optical(name, base_T_cam))
        yield from wrong
        if not wrong:
            sound.append(name)
            yield from _height(name, base_T_cam, base_frame)
    for one, other in combinations(base_T_cams, 2):
        if np.abs(base_T_cams[one] - base_T_cams[other]).max() < _SAME:
            found = "both have the same pose"
            remedy = "publish a transform of its own for each camera, and name it in the images' frame_id"
            yield error("same pose", f"{one}, {other}", "two poses", found, remedy)
    azimuths = {name: azimuth(base_T_cams[name]) for name in sound}
    yield from _sides(azimuths)


def check_order(base_T_cams: Mapping[str, Array], cameras: Sequence[str]) -> Iterator[Finding]:
    """Compare where the cameras look with the order in which the models of nuScenes know them."""
    if len(cameras) != len(_TRAINED_AZIMUTHS) or set(base_T_cams) != set(cameras):
        return
    azimuths = {name: azimuth(base_T_cams[name]) for name in cameras}
    places = dict(zip(cameras, _TRAINED_AZIMUTHS, strict=True))
    strange = [name for name in cameras if abs(_turn(azimuths[name] - places[name])) > _ORDER_TOLERANCE]
    if not strange:
        yield ok("camera order", "", ", ".join(f"{name} {azimuths[name]:+.0f}" for name in cameras))
        return
    found = ", ".join(f"{name} looks to {azimuths[name]:+.0f}" for name in strange)
    expected = ", ".join(f"{name} {places[name]:+d}" for name in strange) + " degrees, as in training"
    fitting = [min(cameras, key=lambda name: abs(_turn(azimuths[name] - place))) for place in _TRAINED_AZIMUTHS]
    if len(set(fitting)) == len(cameras):
        remedy = f"if the transforms are right, set 'cameras' to [{', '.join(fitting)}]; else mend the transforms"
        yield error("camera order", ", ".join(strange), expected, found, remedy)
    else:
        remedy = "nothing, where the model was trained on this rig; else expect less of it"
        yield warning("camera order", ", ".join(strange), expected, found, remedy)


def check_reference(base_T_ref: Array, reference_frame: str) -> Iterator[Finding]:
    """Compare the reference frame with the one in which models of nuScenes are trained."""
    tilt = np.degrees(np.arccos(np.clip(base_T_ref[2, 2], -1, 1)))
    turn = abs(_turn(np.degrees(yaw_of(base_T_ref)) - _REFERENCE_YAW))
    height = base_T_ref[2, 3]
    found = f"{height:.2f} m above base, x turned by {np.degrees(yaw_of(base_T_ref)):.0f} degrees, tilted by {tilt:.0f}"
    if tilt > _MOST_TURN_OFF or turn > _MOST_TURN_OFF or abs(height - _REFERENCE_HEIGHT) > _MOST_HEIGHT_OFF:
        expected = "x to the right, y forward, z up, 1.84 m above the ground, as in nuScenes"
        remedy = "publish such a frame (docs/rigs.md), and name it in 'reference_frame'"
        yield error("reference frame", reference_frame, expected, found, remedy)
    else:
        yield ok("reference frame", reference_frame, found)


def azimuth(base_T_cam: Array) -> float:
    """Return where a camera looks."""
    return float(np.degrees(np.arctan2(base_T_cam[1, 2], base_T_cam[0, 2])))


def _turn(degrees: float) -> float:
    """Return the same angle between -180 and 180."""
    return (degrees + 180) % 360 - 180


def _optical(name: str, base_T_cam: Array) -> Iterator[Finding]:
    x_up, y_up, z_up = base_T_cam[2, :3]
    if abs(z_up) > _STEEP:
        found = f"its z axis points {'up' if z_up > 0 else 'down'}"
        if z_up > _STEEP and abs(x_up) < _STEEP:
            found += " and its x axis along the ground: it looks like a body frame (x forward, y left, z up)"
        remedy = "publish the optical frame (rotated by roll -90, yaw -90 degrees), and name it in the images' frame_id"
        yield error("optical frame", name, _OPTICAL, found, remedy)
    elif y_up > -_TURNED:
        remedy = "turn the transform by 180 degrees about z; if the camera hangs upside down, turn the images too"
        yield error("upside down", name, _OPTICAL, "its y axis points up", remedy)
    elif y_up > -_UPRIGHT:
        found = f"its x axis points {'up' if x_up > 0 else 'down'} by {np.degrees(np.arcsin(abs(x_up))):.0f} degrees"
        yield error(
            "optical frame", name, _OPTICAL, found, "mend the roll of the camera's transform, or turn the images"
        )


def _height(name: str, base_T_cam: Array, base_frame: str) -> Iterator[Finding]:
    height = base_T_cam[2, 3]
    if _LOW <= height <= _HIGH:
        yield ok("mounting", name, f"{height:.2f} m above base, looks to {azimuth(base_T_cam):+.0f} degrees")
    else:
        expected = f"{_LOW:g} to {_HIGH:g} m above '{base_frame}', which lies on the ground"
        yield warning(
            "camera height", name, expected, f"{height:.2f} m", "mend the transform, or put base on the ground"
        )


def _sides(azimuths: Mapping[str, float]) -> Iterator[Finding]:
    """Compare where cameras look with what their names say."""
    for name, looks in azimuths.items():
        for word, (middle, reach) in _SIDES.items():
            if word in name.lower() and abs(_turn(looks - middle)) > reach + 15:
                remedy = "look whether its transform, or its topic, is swapped with another camera's"
                found = f"looks to {looks:+.0f} degrees (+: left of straight ahead)"
                yield warning("camera side", name, f"a view to the {word}, as its name says", found, remedy)
