"""Bicycles and motorcycles, with riders or without."""

import numpy as np

from streampetr_core.geometry import Array
from training.synth.raster.mesh import LAMP, MATTE, PAINT, Mesh, boxes, from_quads, loft, merge, plates, tubes, wheels
from training.synth.raster.palette import DARK, HEADLIGHT, NUMBER_PLATE, PALETTES, STEEL, TAIL_LIGHT, TYRE
from training.synth.raster.people import Clothes, Joints, figure

BICYCLE_VARIANTS, MOTORCYCLE_VARIANTS = 4, 4
_SIDES = np.array([1.0, -1.0])


def _spoked(x: float, radius: float, thickness: float = 0.035) -> Mesh:
    """A bicycle wheel about (x, 0, radius): tyre with a triangular section, and a few spokes."""
    angles = 2 * np.pi * np.arange(13) / 13
    section = [(radius, 0.0), (radius - 1.6 * thickness, thickness), (radius - 1.6 * thickness, -thickness)]
    rings = np.array([[(x + r * np.cos(a), y, radius + r * np.sin(a)) for r, y in section] for a in angles])
    index = np.arange(39).reshape(13, 3)
    following = np.roll(index, -1, axis=0)
    quads = [
        np.stack([index[:, i], index[:, (i + 1) % 3], following[:, (i + 1) % 3], following[:, i]], axis=1)
        for i in range(3)
    ]
    tyre = from_quads(rings, np.concatenate(quads), TYRE)
    ends = radius * 0.93 * np.array([(np.cos(a), 0, np.sin(a)) for a in (0.4, 1.45, 2.5)])
    centre = np.array([x, 0, radius])
    return merge([tyre, tubes(centre - ends, centre + ends, 0.008, STEEL, 3)])


def bicycle(variant: int, colour: Array, rng: np.random.Generator, family: str, with_rider: bool, phase: float) -> Mesh:
    """Return a bicycle, 1.75 m long: city, racing, mountain or with a basket; `phase` turns the pedals."""
    variant = variant % BICYCLE_VARIANTS
    racing = variant == 1
    radius = 0.35 if family == "train" else 0.33
    rear, front, crank = np.array([-0.54, 0, radius]), np.array([0.53, 0, radius]), np.array([-0.08, 0, 0.29])
    seat, head = np.array([-0.22, 0, 0.92]), np.array([0.36, 0, 0.90 if racing else 0.98])
    low_head = head + (0.03, 0, -0.18)
    top = seat - (-0.03, 0, 0.12) if variant != 0 else crank + (-0.04, 0, 0.2)  # step-through or not
    joined = [
        (crank, seat),
        (crank, low_head),
        (top, low_head),
        (crank, rear),
        (seat - (0, 0, 0.2), rear),
        (head, front),
    ]
    thick = [0.026, 0.030, 0.026, 0.018, 0.016, 0.026]
    frame = tubes([a for a, _ in joined], [b for _, b in joined], np.stack([thick, thick], axis=1), colour, 4, PAINT)
    grip = np.array([0.30 if not racing else 0.44, 0, 1.08 if not racing else 0.93])
    grips = grip + _SIDES[:, None] * (0, 0.29, 0)
    bar = tubes([head, head + (0, 0.1, 0.08), head + (0, -0.1, 0.08)], [head + (0, 0, 0.08), *grips], 0.017, DARK, 4)
    saddle = boxes((-0.34, -0.07, 0.94), (-0.08, 0.07, 1.0), DARK, taper=(0.9, 0.7))
    turn = 2 * np.pi * phase
    pedals = crank + 0.17 * np.array([(np.cos(turn), 0, np.sin(turn)), (-np.cos(turn), 0, -np.sin(turn))])
    pedals += _SIDES[:, None] * (0, 0.12, 0)
    cranks = tubes([crank, crank], pedals, 0.014, STEEL, 3)
    lamp = boxes((0.40, -0.04, 0.86), (0.46, 0.04, 0.93), HEADLIGHT, LAMP)
    tail = boxes((-0.47, -0.035, 0.72), (-0.43, 0.035, 0.78), TAIL_LIGHT, LAMP)
    parts = [_spoked(-0.54, radius), _spoked(0.53, radius), frame, bar, saddle, cranks, lamp, tail]
    if variant == 3:
        parts.append(boxes((0.40, -0.17, 0.84), (0.70, 0.17, 1.06), (150, 116, 76), taper=(1.1, 1.1)))
    if variant in (0, 3):
        parts.append(boxes((-0.80, -0.07, 0.71), (-0.34, 0.07, 0.74), DARK))
    if with_rider:
        hip = seat + (-0.02, 0, 0.10)
        neck = hip + ((0.34, 0, 0.42) if racing else (0.16, 0, 0.52))
        parts.append(_rider(hip, neck, pedals + (-0.04, 0, 0.09), grips, rng, family, 1.74, helmet=variant % 2 == 1))
    return merge(parts)


def _rider(
    hip: Array,
    neck: Array,
    ankles: Array,
    hands: Array,
    rng: np.random.Generator,
    family: str,
    unit: float,
    helmet: bool,
) -> Mesh:
    clothes = Clothes.draw(rng, family)
    hips = hip + _SIDES[:, None] * (0, 0.055 * unit, 0)
    shoulders = neck + _SIDES[:, None] * (0, 0.105 * unit, 0) - (0, 0, 0.03 * unit)
    knees = np.array(
        [_bend(a, b, 0.25 * unit, 0.235 * unit, (1.0, 0, 0.35)) for a, b in zip(hips, ankles, strict=True)]
    )
    elbows = np.array(
        [_bend(a, b, 0.18 * unit, 0.165 * unit, (-0.2, 0, -1.0)) for a, b in zip(shoulders, hands, strict=True)]
    )
    colours = PALETTES[family].vehicles
    shell = colours[rng.integers(len(colours))] if helmet else None
    return figure(Joints(unit, hip, neck, knees, ankles, elbows, hands), clothes, shell)


def _bend(start: Array, end: Array, first: float, second: float, towards: tuple[float, float, float]) -> Array:
    """Return the joint between two limbs of given lengths, on the side `towards`; on the line when out of reach."""
    line = end - start
    distance = float(np.linalg.norm(line))
    line = line / distance
    along = np.clip((distance**2 + first**2 - second**2) / (2 * distance), 0.3 * distance, 0.7 * distance)
    aside = np.asarray(towards) - np.dot(towards, line) * line
    height = np.sqrt(max(first**2 - along**2, 0.0))
    return start + along * line + height * aside / np.linalg.norm(aside)


def motorcycle(variant: int, colour: Array, rng: np.random.Generator, family: str, with_rider: bool) -> Mesh:
    """Return a motorcycle, 2.1 m long: naked, sports, scooter or tourer with cases."""
    variant = variant % MOTORCYCLE_VARIANTS
    scooter = variant == 2
    radius = (0.25 if scooter else 0.32) * (1.0 if family == "train" else 0.96)
    rear, front = -0.68, 0.70
    tyres = wheels(
        [(rear, 0, radius), (front, 0, radius)], radius, 0.15 if not scooter else 0.12, 12, hub=(96, 98, 102)
    )
    head = np.array([0.42, 0, 0.92])
    fork = tubes(
        head + _SIDES[:, None] * (0, 0.09, 0),
        np.array([front, 0, radius]) + _SIDES[:, None] * (0, 0.09, 0),
        0.03,
        STEEL,
        5,
    )
    grips = np.array([0.30 if variant != 1 else 0.36, 0, 1.06 if variant != 1 else 0.92]) + _SIDES[:, None] * (
        0,
        0.36,
        0,
    )
    bar = tubes([head, head], grips, 0.018, DARK, 4)
    mirrors = boxes(grips + (0.02, -0.05, 0.12), grips + (0.05, 0.05, 0.2), DARK)
    lamp = boxes((0.50, -0.10, 0.80), (0.60, 0.10, 0.98), [[HEADLIGHT] + [DARK] * 5], LAMP)
    tail = boxes((-1.0, -0.09, 0.68), (-0.94, 0.09, 0.76), TAIL_LIGHT, LAMP)
    plate = plates("back", -1.01, (-0.09, 0.09), (0.48, 0.62), NUMBER_PLATE)
    guard = boxes((-0.98, -0.08, 0.56), (-0.5, 0.08, 0.66), colour, PAINT, taper=(0.8, 1.0))
    parts = [tyres, fork, bar, mirrors, lamp, tail, plate, guard]
    parts += _scooter_body(colour) if scooter else _frame_body(variant, colour)
    if with_rider:
        hip = np.array([-0.30, 0, 0.90 if not scooter else 0.86])
        neck = hip + ((0.36, 0, 0.40) if variant == 1 else (0.16, 0, 0.52))
        foot = np.array([-0.02, 0, 0.36]) if not scooter else np.array([0.14, 0, 0.38])
        ankles = foot + _SIDES[:, None] * (0, 0.2, 0)
        parts.append(_rider(hip, neck, ankles, grips, rng, family, 1.76, helmet=True))
    return merge(parts)


def _frame_body(variant: int, colour: Array) -> list[Mesh]:
    """Tank, seat, engine and exhaust; fairing of the sports machine, screen and cases of the tourer."""
    profile = [(0.46, 0.74, 0.92, 0.08), (0.30, 0.70, 1.0, 0.17), (-0.05, 0.70, 0.88, 0.14), (-0.2, 0.72, 0.82, 0.12)]
    rings = [[(x, y, low), (x, 0.9 * y, top), (x, -0.9 * y, top), (x, -y, low)] for x, low, top, y in profile]
    parts = [
        loft(rings, colour, PAINT),
        boxes((-0.78, -0.13, 0.74), (-0.12, 0.13, 0.84), DARK, taper=(0.95, 0.8)),
        boxes((-0.30, -0.17, 0.28), (0.28, 0.17, 0.70), STEEL, MATTE, taper=(0.8, 0.8)),
        tubes([(0.1, -0.2, 0.34)], [(-0.85, -0.24, 0.42)], [(0.04, 0.065)], (150, 152, 156), 6),
    ]
    if variant == 1:
        parts.append(boxes((0.22, -0.19, 0.42), (0.64, 0.19, 0.98), colour, PAINT, taper=(0.5, 0.7), shift=(0.03, 0.0)))
        parts.append(boxes((-0.98, -0.10, 0.82), (-0.55, 0.10, 0.96), colour, PAINT, taper=(0.7, 0.8)))
    if variant == 3:
        low, high = [(-0.86, 0.16, 0.46), (-0.86, -0.36, 0.46)], [(-0.40, 0.36, 0.80), (-0.40, -0.16, 0.80)]
        parts.append(boxes(low, high, colour, PAINT, taper=(0.95, 0.9)))
        parts.append(boxes((-0.95, -0.20, 0.88), (-0.60, 0.20, 1.15), colour, PAINT, taper=(0.9, 0.9)))
        parts.append(
            boxes((0.40, -0.18, 0.98), (0.46, 0.18, 1.28), (120, 132, 142), taper=(1.0, 0.7), shift=(-0.08, 0.0))
        )
    return parts


def _scooter_body(colour: Array) -> list[Mesh]:
    return [
        boxes((-0.86, -0.19, 0.36), (-0.16, 0.19, 0.76), colour, PAINT, taper=(0.92, 0.8)),
        boxes((-0.82, -0.16, 0.76), (-0.14, 0.16, 0.84), DARK, taper=(0.95, 0.85)),
        boxes((-0.2, -0.18, 0.22), (0.40, 0.18, 0.30), colour, PAINT),
        boxes((0.34, -0.22, 0.26), (0.44, 0.22, 0.90), colour, PAINT, taper=(0.8, 0.7), shift=(0.03, 0.0)),
        boxes((-1.0, -0.16, 0.80), (-0.72, 0.16, 1.06), DARK, taper=(0.9, 0.9)),
    ]
