"""Cars, vans and pickups: one skin over a row of cross-sections, then wheels, lamps and mirrors."""

from dataclasses import dataclass

import numpy as np

from streampetr_core.geometry import Array
from training.synth.raster.mesh import GLASS, LAMP, MATTE, PAINT, Mesh, boxes, from_quads, loft, merge, plates, wheels
from training.synth.raster.palette import DARK, GLASS_TINT, HEADLIGHT, INDICATOR, NUMBER_PLATE, TAIL_LIGHT


@dataclass(frozen=True)
class _Style:
    """A side view, in shares of the length from the front and of the height, and what is glass.

    `cowl`, `roof_front`, `roof_back` and `deck` are where the windscreen starts and ends and the rear window starts and
    ends; `hood`, `belt` and `tail` are heights; `pillars` are places of pillars between side windows.
    """

    cowl: float
    roof_front: float
    roof_back: float
    deck: float
    hood: float = 0.60
    belt: float = 0.60
    tail: float = 0.64
    pillars: tuple[float, ...] = (0.56,)
    roof_width: float = 0.74
    last_glass: float = 1.0  # no side windows behind this
    bed: float = 0.0  # an open bed starts here
    axles: tuple[float, float] = (0.19, 0.80)
    rails: bool = False


_STYLES = {
    "train": (
        _Style(0.27, 0.42, 0.70, 0.86),  # sedan
        _Style(0.26, 0.40, 0.86, 0.97, tail=0.60, pillars=(0.52, 0.72)),  # hatchback
        _Style(
            0.25, 0.37, 0.90, 0.975, hood=0.58, belt=0.58, tail=0.6, pillars=(0.5, 0.72), roof_width=0.8, rails=True
        ),
        _Style(
            0.14,
            0.28,
            0.97,
            0.99,
            hood=0.50,
            belt=0.54,
            tail=0.5,
            pillars=(0.40, 0.66),
            roof_width=0.86,
            last_glass=0.4,
        ),
        _Style(0.27, 0.36, 0.56, 0.60, hood=0.58, belt=0.60, tail=0.55, pillars=(0.47,), roof_width=0.78, bed=0.62),
        _Style(
            0.14, 0.29, 0.95, 0.985, hood=0.50, belt=0.52, tail=0.5, pillars=(0.40, 0.66), roof_width=0.84
        ),  # minibus
    ),
    "val": (
        _Style(0.29, 0.44, 0.68, 0.89, hood=0.57, belt=0.62, tail=0.66),  # saloon with a long tail
        _Style(0.27, 0.41, 0.92, 0.985, hood=0.59, belt=0.61, tail=0.58, pillars=(0.5, 0.68, 0.84)),  # estate
        _Style(
            0.22, 0.37, 0.88, 0.965, hood=0.60, belt=0.60, tail=0.62, pillars=(0.52, 0.74), roof_width=0.77
        ),  # crossover
        _Style(
            0.11, 0.25, 0.97, 0.99, hood=0.47, belt=0.52, tail=0.5, pillars=(0.37,), roof_width=0.88, last_glass=0.37
        ),
        _Style(0.26, 0.35, 0.62, 0.65, hood=0.60, belt=0.62, tail=0.57, pillars=(0.44, 0.54), roof_width=0.8, bed=0.67),
        _Style(
            0.24, 0.42, 0.84, 0.95, hood=0.56, belt=0.58, tail=0.62, pillars=(0.54,), axles=(0.16, 0.84)
        ),  # small car
    ),
}
CAR_VARIANTS = len(_STYLES["train"])


def car(variant: int, size: Array, colour: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a car near `size` (length, width, height): sedan, hatchback, SUV, van, pickup, minibus or like them."""
    style = _STYLES[family][variant % CAR_VARIANTS]
    length, width, height = size
    radius = min(0.23 * height, 0.36) * rng.uniform(0.95, 1.08)
    half = 0.47 * width
    axles = length * (0.5 - np.array(style.axles))
    centres = [(x, side * (half - 0.07), radius) for x in axles for side in (-1, 1)]
    hub = (150, 152, 156) if rng.random() < 0.6 else (70, 72, 76)
    parts = [_skin(style, size, half, colour, 0.5 * radius), wheels(centres, radius, 0.22, hub=hub)]
    parts += [_arches(axles, half, radius), _face(style, size, half, colour), _tail(style, size, half)]
    mirror = length * (0.5 - style.cowl - 0.05)
    low, high = height * style.belt + 0.02, height * style.belt + 0.17
    parts += [
        boxes(
            [(mirror - 0.1, 0.44 * width, low), (mirror - 0.1, -0.5 * width, low)],
            [(mirror + 0.1, 0.5 * width, high), (mirror + 0.1, -0.44 * width, high)],
            colour,
            PAINT,
        )
    ]
    if style.rails:
        reach = (length * (0.5 - style.roof_front - 0.04), length * (0.5 - style.roof_back + 0.04))
        parts += [
            boxes((reach[1], y - 0.03, 0.97 * height), (reach[0], y + 0.03, 1.01 * height), DARK)
            for y in (-0.33 * width, 0.33 * width)
        ]
    return merge(parts)


def _skin(style: _Style, size: Array, half: float, colour: Array, clearance: float) -> Mesh:
    """The body. A ring of ten points: sill, side, shoulder, belt and roof on the left, the same back on the right."""
    length, _, height = size
    stations = [  # share of the length, belt, roof, width of the body, width of the roof, window?
        (0.0, style.hood - 0.13, style.hood - 0.10, 0.86, 0.70, False),
        (0.03, style.hood - 0.08, style.hood - 0.04, 0.96, 0.80, False),
        (0.6 * style.cowl, style.hood - 0.02, style.hood + 0.02, 1.0, 0.88, False),
        (style.cowl, style.belt, style.belt + 0.04, 1.0, 0.88, False),
        (style.roof_front, style.belt, 0.98, 1.0, style.roof_width, True),
    ]
    for place in style.pillars:
        stations.append((place, style.belt, 1.0, 1.0, style.roof_width, False))
        stations.append((place + 0.022, style.belt, 1.0, 1.0, style.roof_width, place < style.last_glass))
    stations.append((style.roof_back - 0.02, style.belt, 0.98, 1.0, style.roof_width, False))
    stations.append((style.deck, style.belt, style.tail + 0.03, 1.0, 0.86, False))
    if style.bed:
        stations[-1] = (style.deck, style.tail, style.tail + 0.02, 1.0, 0.9, False)
    if style.deck < 0.98:
        stations.append((0.985, style.tail - 0.03, style.tail, 0.97, 0.86, False))
    stations.append((1.0, min(style.tail, style.belt) - 0.08, style.tail - 0.03, 0.92, 0.82, False))
    rings, colours, materials = [], [], []
    for index, (place, belt, roof, body, roof_half, _) in enumerate(stations):
        end = 0.10 if index in (0, len(stations) - 1) else 0.0
        bottom, x = clearance + end * height, length * (0.5 - place)
        middle = bottom + 0.55 * (belt * height - bottom)
        left = [
            (0.90 * body * half, bottom),
            (body * half, bottom + 0.08 * height),
            (body * half, middle),
            (0.965 * body * half, belt * height),
            (roof_half * half, roof * height),
        ]
        rings.append([(x, y, z) for y, z in left] + [(x, -y, z) for y, z in left[::-1]])
    own, glass = np.asarray(colour, float), np.array(GLASS_TINT, float)
    for before, after in zip(stations, stations[1:], strict=False):
        screen = before[0] == style.cowl or after[0] == style.deck
        rear_side = after[0] == style.deck and style.deck - style.roof_back < 0.12 and not style.bed
        window = before[5] and before[0] < style.last_glass
        sides = glass if window else own * (0.92 if rear_side else 1.0)
        top = glass if screen else own
        colours.append([own * 0.45, own, own, sides, top, sides, own, own, own * 0.45, np.array(DARK, float)])
        skin = [PAINT] * 10
        skin[3] = skin[5] = GLASS if window else PAINT
        skin[4] = GLASS if screen else PAINT
        materials.append(skin)
    skin = loft(rings, colours, materials, caps=[own * 0.95, own * 0.95])
    if not style.bed:
        return skin
    end = 0.5 * length - 0.02 * length
    floor = plates(
        "top",
        style.tail * height + 0.025 * height,
        (-end, length * (0.5 - style.bed)),
        (-0.78 * half, 0.78 * half),
        DARK,
    )
    return merge([skin, floor])


def _arches(axles: Array, half: float, radius: float) -> Mesh:
    """Dark half discs behind the wheels, wider than these."""
    angles = np.linspace(0, np.pi, 8)
    outline = np.stack([1.24 * radius * np.cos(angles), 0.9 * radius + 1.3 * radius * np.sin(angles)], axis=1)
    parts = []
    for x in axles:
        rim = np.stack([x + outline[:, 0], np.full(8, half + 0.002), outline[:, 1]], axis=1)
        left = from_quads(rim, [[0, 1, 2, 3], [0, 3, 4, 7], [4, 5, 6, 7]], DARK)
        right = from_quads(rim * (1, -1, 1), [[3, 2, 1, 0], [7, 4, 3, 0], [7, 6, 5, 4]], DARK)
        parts += [left, right]
    return merge(parts)


def _face(style: _Style, size: Array, half: float, colour: Array) -> Mesh:
    """Headlights round the corner, grille, bumper and number plate."""
    length, _, height = size
    front, top = 0.5 * length, (style.hood - 0.12) * height
    low = top - 0.10 * height
    lamps = [(-0.84 * half, -0.5 * half), (0.5 * half, 0.84 * half)]
    corner = (front - 0.085 * length, front - 0.028 * length)
    side = half * 0.975 + 0.012
    return merge(
        [
            plates("front", front + 0.006, lamps, [(low, top)] * 2, HEADLIGHT, LAMP),
            plates("front", front + 0.004, (-0.48 * half, 0.48 * half), (low - 0.01, top), DARK),
            plates(
                "front", front + 0.004, (-0.75 * half, 0.75 * half), (low - 0.16 * height, low - 0.07 * height), DARK
            ),
            plates("front", front + 0.008, (-0.26, 0.26), (low - 0.12 * height, low - 0.05 * height), NUMBER_PLATE),
            plates("left", side, corner, (low, top), HEADLIGHT, LAMP),
            plates("right", -side, corner, (low, top), HEADLIGHT, LAMP),
        ]
    )


def _tail(style: _Style, size: Array, half: float) -> Mesh:
    """Red lamps round the corner, number plate and the dark lower bumper."""
    length, _, height = size
    back, top = -0.5 * length, (min(style.tail, style.belt) - 0.09) * height
    low = top - (0.2 if style.tail <= style.belt else 0.12) * height
    lamps = [(-0.9 * half, -0.56 * half), (0.56 * half, 0.9 * half)]
    corner = (back + 0.015 * length, back + 0.06 * length)
    return merge(
        [
            plates("back", back - 0.006, lamps, [(low, top)] * 2, TAIL_LIGHT, LAMP),
            plates(
                "back",
                back - 0.008,
                [(-0.9 * half, -0.6 * half), (0.6 * half, 0.9 * half)],
                [(low, low + 0.04)] * 2,
                INDICATOR,
                LAMP,
            ),
            plates("back", back - 0.006, (-0.27, 0.27), (low - 0.02, low + 0.1), NUMBER_PLATE),
            plates(
                "back",
                back - 0.004,
                (-0.88 * half, 0.88 * half),
                (low - 0.19 * height, low - 0.07 * height),
                DARK,
                MATTE,
            ),
            plates("left", half + 0.002, corner, (low, top), TAIL_LIGHT, LAMP),
            plates("right", -half - 0.002, corner, (low, top), TAIL_LIGHT, LAMP),
        ]
    )
