"""People: limbs between joints, for walkers and for those who ride."""

from dataclasses import dataclass

import numpy as np

from streampetr_core.geometry import Array
from training.synth.raster.mesh import Mesh, boxes, lathe, merge, placed, tubes
from training.synth.raster.palette import DARK, PALETTES, Colour

PEDESTRIAN_VARIANTS = 6
_THIGH, _SHIN, _UPPER_ARM, _FOREARM = 0.245, 0.235, 0.17, 0.16  # shares of the height of the body
_ANKLE, _SHOULDER, _SHOULDER_HALF, _HIP_HALF = 0.04, 0.30, 0.105, 0.055  # the shoulder is above the hip


@dataclass(frozen=True)
class Clothes:
    """Colours of one person, RGB."""

    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    shoes: Colour = DARK

    @staticmethod
    def draw(rng: np.random.Generator, family: str) -> "Clothes":
        """Return random clothes of a family."""
        palette = PALETTES[family]
        choices = (palette.clothes, palette.trousers, palette.skins, palette.hair)
        return Clothes(*(colours[rng.integers(len(colours))] for colours in choices))


@dataclass(frozen=True)
class Joints:
    """Places (3,), and (2, 3) for what is left and right, in metres; `unit` is the height of the body when upright."""

    unit: float
    hip: Array
    neck: Array
    knees: Array
    ankles: Array
    elbows: Array
    hands: Array


def figure(joints: Joints, clothes: Clothes, helmet: Colour | None = None, stout: float = 1.0) -> Mesh:
    """Return a person in the pose that `joints` describe."""
    unit, hip, neck = joints.unit, joints.hip, joints.neck
    sides = np.array([[0, 1.0, 0], [0, -1, 0]])
    hips, shoulders = hip + sides * _HIP_HALF * unit, neck + sides * _SHOULDER_HALF * unit - (0, 0, 0.03 * unit)
    start = np.concatenate([hips, joints.knees, shoulders, joints.elbows])
    end = np.concatenate([joints.knees, joints.ankles, joints.elbows, joints.hands])
    widths = np.array([(0.055, 0.04)] * 2 + [(0.04, 0.03)] * 2 + [(0.036, 0.03)] * 2 + [(0.03, 0.022)] * 2) * unit
    colours = [clothes.trousers] * 4 + [clothes.shirt] * 2 + [clothes.shirt if stout > 1.1 else clothes.skin] * 2
    limbs = tubes(start, end, widths * stout, colours, sides=5)
    waist = hip + 0.45 * (neck - hip)
    trunk = tubes(
        [hip - 0.04 * unit * (neck - hip) / np.linalg.norm(neck - hip), waist],
        [waist, neck],
        np.array([(0.068, 0.064), (0.064, 0.07)]) * unit * stout,
        [clothes.trousers, clothes.shirt],
        8,
        flat=1.55,
    )
    head = neck + (0.012 * unit, 0, 0.09 * unit)
    skull = lathe(
        np.array([(0.025, -0.09), (0.03, -0.06), (0.05, -0.03), (0.053, 0.02), (0.04, 0.055), (0.012, 0.072)]) * unit,
        [clothes.skin] * 3 + [clothes.hair] * 2,
        7,
    )
    back = boxes((-0.055 * unit, -0.046 * unit, -0.03 * unit), (-0.01 * unit, 0.046 * unit, 0.045 * unit), clothes.hair)
    parts = [limbs, trunk, placed(skull, head), placed(back, head)]
    if helmet is not None:
        shell = np.array([(0.062, -0.01), (0.06, 0.03), (0.042, 0.07), (0.012, 0.085)]) * unit
        parts.append(placed(lathe(shell, helmet, 7), head))
    low, high = np.array([-0.035, -0.026, -_ANKLE]) * unit, np.array([0.095, 0.026, 0.012]) * unit
    parts.append(
        boxes(joints.ankles + low, joints.ankles + high, clothes.shoes, taper=(0.7, 0.9), shift=(-0.02 * unit, 0))
    )
    fist = 0.024 * unit
    parts.append(boxes(joints.hands - fist, joints.hands + fist, clothes.skin))
    return merge(parts)


def pedestrian(variant: int, size: Array, colour: Array, rng: np.random.Generator, family: str, phase: float) -> Mesh:
    """Return a walker whose stride reaches the ends of `size`: adult, with backpack, in a coat, child, with a bag.

    `phase` 0 is standing; from there to 1 is one pair of steps.
    """
    variant = variant % PEDESTRIAN_VARIANTS
    length, width, height = size
    clothes = Clothes.draw(rng, family)
    clothes = Clothes(tuple(int(value) for value in colour), clothes.trousers, clothes.skin, clothes.hair)
    child = variant == 3
    joints = _walking(height, length, width, phase)
    parts = [figure(joints, clothes, stout=1.12 if variant in (2, 4) else 1.0)]
    unit, hip, neck = joints.unit, joints.hip, joints.neck
    luggage = PALETTES[family].loads[rng.integers(4)]
    if variant == 1 or (child and family == "train"):
        low, high = (-0.17, -0.075, -0.22), (-0.06, 0.075, -0.02)
        parts.append(boxes(neck + np.array(low) * unit, neck + np.array(high) * unit, luggage, taper=(0.8, 0.9)))
    if variant == 2:
        hem = 0.30 if family == "train" else 0.22
        skirt = np.array([(0.15, -hem), (0.115, 0.0), (0.085, 0.06)]) * unit
        parts.append(placed(lathe(skirt, clothes.shirt, 8), hip))
    if variant == 4:
        hand = joints.hands[1]
        low, high = np.array([-0.09, -0.035, -0.2]) * unit, np.array([0.09, 0.035, -0.03]) * unit
        parts.append(boxes(hand + low, hand + high, luggage, taper=(0.85, 1.0)))
    if variant == 5 or (child and family == "val"):
        brim = np.array([(0.085 if variant == 5 else 0.06, 0.0), (0.075, 0.012), (0.05, 0.02), (0.035, 0.058)]) * unit
        parts.append(placed(lathe(brim, luggage, 8), neck + (0.012 * unit, 0, 0.125 * unit)))
    return merge(parts)


def _walking(height: float, length: float, width: float, phase: float) -> Joints:
    """Return the joints of a walker who is `height` tall, with hands and feet as far apart as fits."""
    swing = np.arcsin(np.clip((0.5 * length - 0.075 * height) / (0.48 * height), 0.12, 0.6))
    turn = 2 * np.pi * phase
    amplitude = 0.0 if phase == 0.0 else swing
    steps = np.array([turn, turn + np.pi])
    thigh = amplitude * np.sin(steps)
    shin = thigh - (0.06 + (0.9 * amplitude + 0.25 * (amplitude > 0)) * np.maximum(np.cos(steps), 0.0))
    sides = np.array([1.0, -1.0])
    unit, hip_half = height, sides * _HIP_HALF * height
    knees = np.stack([_THIGH * np.sin(thigh), hip_half / unit, -_THIGH * np.cos(thigh)], axis=1) * unit
    ankles = knees + np.stack([_SHIN * np.sin(shin), 0 * sides, -_SHIN * np.cos(shin)], axis=1) * unit
    spread = np.clip(
        (0.5 * width - _SHOULDER_HALF * height - 0.024 * height) / ((_UPPER_ARM + _FOREARM) * height), 0.1, 0.5
    )
    arm = 0.03 - 0.9 * thigh
    neck = np.array([0.01, 0.0, _SHOULDER]) * unit
    shoulders = neck + sides[:, None] * (0, _SHOULDER_HALF * unit, 0) - (0, 0, 0.03 * unit)
    elbows = shoulders + _UPPER_ARM * unit * np.stack([np.sin(arm), sides * spread, -np.cos(arm)], axis=1)
    arm = arm + 0.25
    hands = elbows + _FOREARM * unit * np.stack([np.sin(arm), sides * spread, -np.cos(arm)], axis=1)
    lift = -ankles[:, 2].min() + _ANKLE * unit
    up = np.array([0.0, 0, lift])
    return Joints(unit, up, neck + up, knees + up, ankles + up, elbows + up, hands + up)
