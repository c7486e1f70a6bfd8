"""Trucks, buses and trailers."""

import numpy as np

from streampetr_core.geometry import Array
from training.synth.raster.mesh import GLASS, LAMP, PAINT, Mesh, boxes, loft, merge, placed, plates, tubes, wheels
from training.synth.raster.palette import (
    DARK,
    GLASS_TINT,
    HEADLIGHT,
    INDICATOR,
    NUMBER_PLATE,
    PALETTES,
    STEEL,
    TAIL_LIGHT,
    Palette,
)

TRUCK_VARIANTS, BUS_VARIANTS, TRAILER_VARIANTS = 5, 4, 4


def _lamps_behind(back: float, width: float, low: float, colour: tuple = TAIL_LIGHT) -> Mesh:
    """Two red lamps with indicators, a number plate and the bar under the tail, at x = `back`."""
    outer, inner = 0.48 * width, 0.36 * width
    return merge(
        [
            plates("back", back - 0.012, [(-outer, -inner), (inner, outer)], [(low, low + 0.2)] * 2, colour, LAMP),
            plates(
                "back",
                back - 0.014,
                [(-inner, -inner + 0.1), (inner - 0.1, inner)],
                [(low, low + 0.2)] * 2,
                INDICATOR,
                LAMP,
            ),
            plates("back", back - 0.013, (-0.26, 0.26), (low + 0.02, low + 0.15), NUMBER_PLATE),
            boxes((back - 0.01, -0.48 * width, low - 0.32), (back + 0.1, 0.48 * width, low - 0.16), STEEL),
        ]
    )


def _truck_wheels(places: list[float], width: float, radius: float, hub: tuple = (140, 142, 146)) -> Mesh:
    y = 0.5 * width - 0.13
    return wheels([(x, side * y, radius) for x in places for side in (-1, 1)], radius, 0.3, hub=hub)


def _cab_over(front: float, depth: float, width: float, low: float, top: float, colour: Array) -> Mesh:
    """A flat-nosed cab from x = `front` - `depth` to `front`, tapered towards the roof."""
    half, back, belt = 0.485 * width, front - depth, low + 0.48 * (top - low)
    own, glass = np.asarray(colour, float), np.array(GLASS_TINT, float)
    slope = 0.10 * depth
    rings = [
        [
            (front, y, low),
            (front, y, belt),
            (front - slope, 0.95 * y, top - 0.12),
            (front - 2.6 * slope, 0.88 * y, top),
            (back, 0.9 * y, top),
            (back, y, low),
        ]
        for y in (half, -half)
    ]
    # The walls of this skin are front, windscreen, brow, roof, back and floor.
    body = loft(
        rings, [[own, glass, own, own, own * 0.8, own * 0.3]], [[PAINT, GLASS, PAINT, PAINT, PAINT, PAINT]], [own, own]
    )
    window, height = (back + 0.3 * depth, front - 0.16 * depth), (belt + 0.03, top - 0.22)
    lamp = [(-0.95 * half, -0.62 * half), (0.62 * half, 0.95 * half)]
    return merge(
        [
            body,
            plates("left", 0.992 * half + 0.01, window, height, GLASS_TINT, GLASS),
            plates("right", -0.992 * half - 0.01, window, height, GLASS_TINT, GLASS),
            plates("front", front + 0.008, (-0.55 * half, 0.55 * half), (low + 0.12, belt - 0.14), DARK),
            plates("front", front + 0.01, lamp, [(low + 0.06, low + 0.26)] * 2, HEADLIGHT, LAMP),
            plates("front", front + 0.012, (-0.26, 0.26), (low + 0.01, low + 0.12), NUMBER_PLATE),
            boxes(
                [(front - 0.25, half, belt + 0.1), (front - 0.25, -half - 0.14, belt + 0.1)],
                [(front - 0.12, half + 0.14, belt + 0.6), (front - 0.12, -half, belt + 0.6)],
                DARK,
            ),
        ]
    )


def _cab_with_nose(front: float, depth: float, width: float, low: float, top: float, colour: Array) -> Mesh:
    """A cab with the engine before it."""
    nose = 0.48 * depth
    hood = boxes(
        (front - nose, -0.36 * width, low),
        (front, 0.36 * width, low + 0.46 * (top - low)),
        colour,
        PAINT,
        taper=(1.0, 0.9),
    )
    grille = plates("front", front + 0.01, (-0.2 * width, 0.2 * width), (low + 0.1, low + 0.4 * (top - low)), STEEL)
    lamp = [(-0.34 * width, -0.24 * width), (0.24 * width, 0.34 * width)]
    lamps = plates("front", front + 0.012, lamp, [(low + 0.15, low + 0.38)] * 2, HEADLIGHT, LAMP)
    return merge([_cab_over(front - nose, depth - nose, width, low, top, colour), hood, grille, lamps])


def _goods(
    kind: str,
    back: float,
    front: float,
    width: float,
    low: float,
    top: float,
    colour: tuple,
    rng: np.random.Generator,
    family: str,
) -> Mesh:
    """What a truck or trailer carries: box, container, tank, flat, tipper or curtain."""
    half, own = 0.5 * width, np.asarray(colour, float)
    if kind == "tank":
        radius, dome = min(half, 0.5 * (top - low)), 0.12 if family == "train" else 0.45
        ends = np.array([back, back + dome, front - dome, front])
        places = [((a, 0, low + radius), (b, 0, low + radius)) for a, b in zip(ends, ends[1:], strict=False)]
        radii = [(0.7 * radius, radius), (radius, radius), (radius, 0.7 * radius)]
        tank = tubes([a for a, _ in places], [b for _, b in places], radii, own, 12, PAINT, flat=half / radius)
        walkway = boxes((back + 0.3, -0.3, low + 1.97 * radius), (front - 0.3, 0.3, top + 0.02), STEEL)
        return merge([tank, walkway, boxes((back, -half, low - 0.1), (front, half, low + 0.25), STEEL)])
    if kind == "flat":
        load = PALETTES[family].loads[rng.integers(4)]
        cuts = np.linspace(back + 0.3, front - 0.6, 4)
        heights = low + 0.2 + rng.uniform(0.35, 0.75, 3) * (top - low)
        crates = boxes(
            [(x, -0.42 * width, low + 0.14) for x in cuts[:-1]],
            [(x, 0.42 * width, z) for x, z in zip(cuts[1:] - 0.12, heights, strict=True)],
            load,
            taper=(0.97, 0.9),
        )
        wall = boxes((front - 0.12, -half, low), (front, half, top), STEEL)
        return merge([boxes((back, -half, low), (front, half, low + 0.14), DARK), crates, wall])
    if kind == "tipper":
        tub = boxes((back, -half, low), (front, half, top - 0.25), own * 0.92, PAINT, taper=(1.0, 1.0))
        ribs = _ribs(back, front, half, low, top - 0.25, own * 0.7, 6)
        heap = boxes(
            (back + 0.2, -0.4 * width, top - 0.26), (front - 0.2, 0.4 * width, top), (124, 104, 80), taper=(0.4, 0.3)
        )
        return merge([tub, ribs, heap])
    body = boxes((back, -half, low), (front, half, top), [[own, own, own, own, own * 0.9, own * 0.4]], PAINT)
    doors = [(-0.92 * half, -0.03), (0.03, 0.92 * half)]
    parts = [body, plates("back", back - 0.01, doors, [(low + 0.12, top - 0.12)] * 2, own * 0.82)]
    parts.append(plates("back", back - 0.014, [(-0.09, -0.05), (0.05, 0.09)], [(low + 0.12, top - 0.12)] * 2, STEEL))
    if kind == "container":
        parts.append(_ribs(back, front, half, low, top, own * 0.72, 12))
    elif kind == "curtain":
        parts.append(_ribs(back, front, half, low, low + 0.14, np.array(STEEL, float), 10))
        stripe = (low + 0.55 * (top - low), low + 0.8 * (top - low))
        other = np.roll(own, 1) * 0.8
        inside = (back + 0.2 * (front - back), front - 0.2 * (front - back))
        parts += [
            plates("left", half + 0.01, inside, stripe, other),
            plates("right", -half - 0.01, inside, stripe, other),
        ]
    else:
        stripe = [(low, low + 0.12), (top - 0.1, top)]
        edge = [(back, front)] * 2
        parts += [plates("left", half + 0.01, edge, stripe, STEEL), plates("right", -half - 0.01, edge, stripe, STEEL)]
    return merge(parts)


def _ribs(back: float, front: float, half: float, low: float, top: float, colour: Array, count: int) -> Mesh:
    """Upright bars along both sides."""
    places = np.linspace(back + 0.1, front - 0.1, count)
    ranges = np.stack([places - 0.05, places + 0.05], axis=1)
    heights = [(low, top)] * count
    return merge(
        [plates("left", half + 0.012, ranges, heights, colour), plates("right", -half - 0.012, ranges, heights, colour)]
    )


def truck(variant: int, size: Array, colour: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a truck near `size`: box, flatbed, tank, tipper or curtain-sided; with a nose or without."""
    kinds = {
        "train": ("box", "flat", "tank", "tipper", "box"),
        "val": ("curtain", "flat", "tank", "tipper", "container"),
    }
    kind = kinds[family][variant % TRUCK_VARIANTS]
    length, width, height = size
    palette: Palette = PALETTES[family]
    radius = min(0.5, 0.17 * height) * rng.uniform(0.94, 1.0) * (1.0 if family == "train" else 0.9)
    front, back, floor = 0.5 * length, -0.5 * length, 2.1 * radius
    nosed = (variant % TRUCK_VARIANTS == 4) if family == "train" else (variant % TRUCK_VARIANTS == 3)
    depth = min((0.34 if nosed else 0.25) * length, 3.2 if nosed else 2.1)
    depth *= rng.uniform(0.94, 1.0) * (1.0 if family == "train" else 1.12)
    top = height * (0.82 if kind in ("box", "curtain", "container") else 0.93)
    cab = (_cab_with_nose if nosed else _cab_over)(front, depth, width, 0.9 * radius, top, colour)
    goods_colour = palette.boxes[rng.integers(len(palette.boxes))] if kind != "tipper" else tuple(colour)
    roof = height if kind != "flat" else 0.9 * height
    goods = _goods(kind, back, front - depth - 0.12, 0.96 * width, floor, roof, goods_colour, rng, family)
    places = [front - 0.62 * min(depth, 1.6), back + 0.2 * length, back + 0.2 * length + 2.2 * radius]
    frame = boxes((back, -0.32 * width, 1.1 * radius), (front - depth, 0.32 * width, floor), DARK)
    sides = boxes(
        [(back + 0.42 * length, y - 0.05, radius) for y in (-0.42 * width, 0.42 * width)],
        [(front - depth - 0.2, y + 0.05, 2.0 * radius) for y in (-0.42 * width, 0.42 * width)],
        STEEL,
    )
    return merge(
        [
            cab,
            goods,
            frame,
            sides,
            _truck_wheels(places[: 3 if length > 6 else 2], width, radius),
            _lamps_behind(back, width, 1.5 * radius),
        ]
    )


def bus(variant: int, size: Array, colour: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a bus near `size`: city, coach, articulated or short."""
    variant = variant % BUS_VARIANTS
    length, width, height = size
    coach = variant == 1
    own, second = np.asarray(colour, float), np.asarray(PALETTES[family].boxes[rng.integers(6)], float)
    half, front, back, low = 0.475 * width, 0.5 * length, -0.5 * length, 0.30
    belt = height * ((0.50 if coach else 0.40) + (0.03 if family == "val" else 0.0))
    brow = height * (0.86 if coach else 0.80)
    outline = [(half, low), (half, belt), (half, 0.93 * height), (0.86 * half, 0.97 * height)]
    ring = np.array(outline + [(-y, z) for y, z in outline[::-1]])
    stations = [(front, 0.96, 0.985), (front - 0.25, 1.0, 1.0), (back + 0.12, 1.0, 1.0), (back, 0.97, 0.985)]
    rings = [[(x, y * wide, z * high) for y, z in ring] for x, wide, high in stations]
    lower = second if (variant + (family == "val")) % 2 else own
    band = [lower, own, own, own * 0.95, own, own, lower, own * 0.3]
    skin = loft(rings, [band] * 3, PAINT, [own, own])
    radius = 0.145 * height
    places = [front - 0.24 * length, back + (0.24 if variant != 2 else 0.16) * length]
    if variant == 2:
        places.insert(1, back + 0.52 * length)
    hubs = _truck_wheels(places, 2 * half + 0.02, radius)
    return merge(
        [
            skin,
            hubs,
            _bus_windows(variant, size, half, belt, brow, places, radius),
            _bus_ends(size, half, belt, brow, coach),
            _bus_roof(variant, size),
        ]
    )


def _bus_windows(
    variant: int, size: Array, half: float, belt: float, brow: float, places: list[float], radius: float
) -> Mesh:
    """Panes with pillars between them, doors on the right, dark wheel housings, the bellows of an articulated bus."""
    length = size[0]
    count = max(int(length / 1.6), 3)
    cuts = np.linspace(-0.5 * length + 0.4, 0.5 * length - 0.5, count + 1)
    panes = np.stack([cuts[:-1], cuts[1:] - (0.06 if variant == 1 else 0.14)], axis=1)
    high = [(belt, brow)] * count
    arch = [(x - 1.3 * radius, x + 1.3 * radius) for x in places]
    arches = [(0.3, 2.15 * radius)] * len(places)
    doors = np.array([(0.40, 0.47), (-0.04, 0.06)])[: 1 if variant == 1 else 2] * length
    parts = [
        plates("left", half + 0.01, panes, high, GLASS_TINT, GLASS),
        plates("right", -half - 0.01, panes, high, GLASS_TINT, GLASS),
        plates("left", half + 0.011, arch, arches, DARK),
        plates("right", -half - 0.011, arch, arches, DARK),
        plates("right", -half - 0.014, doors, [(0.36, brow)] * len(doors), GLASS_TINT, GLASS),
        plates("right", -half - 0.016, doors.mean(axis=1)[:, None] + (-0.03, 0.03), [(0.36, brow)] * len(doors), STEEL),
    ]
    if variant == 2:
        folds = np.linspace(-0.06, 0.04, 6) * length
        tones = np.where(np.arange(5)[:, None] % 2, (52, 52, 54), (30, 30, 32))
        ranges, tall = np.stack([folds[:-1], folds[1:]], axis=1), [(0.3, 0.955 * size[2])] * 5
        parts += [plates("left", half + 0.02, ranges, tall, tones), plates("right", -half - 0.02, ranges, tall, tones)]
    return merge(parts)


def _bus_ends(size: Array, half: float, belt: float, brow: float, coach: bool) -> Mesh:
    """Windscreen, destination board, lamps and mirrors in front; small window, grille and red lamps behind."""
    length, width, height = size
    front, back = 0.5 * length, -0.5 * length
    pair = [(-0.9 * half, -0.62 * half), (0.62 * half, 0.9 * half)]
    board = (250, 180, 60)
    parts = [
        plates("front", front + 0.01, (-0.9 * half, 0.9 * half), (0.78 * belt, brow), GLASS_TINT, GLASS),
        plates("front", front + 0.012, (-0.02, 0.02), (0.78 * belt, brow), DARK),
        plates("front", front + 0.012, (-0.7 * half, 0.7 * half), (brow + 0.04, 0.91 * height), DARK),
        plates("front", front + 0.014, (-0.5 * half, 0.4 * half), (brow + 0.1, 0.89 * height), board, LAMP),
        plates("front", front + 0.012, pair, [(0.50, 0.72)] * 2, HEADLIGHT, LAMP),
        plates("front", front + 0.012, (-0.26, 0.26), (0.42, 0.54), NUMBER_PLATE),
        plates("back", back - 0.01, (-0.75 * half, 0.75 * half), (belt + 0.2, brow), GLASS_TINT, GLASS),
        plates("back", back - 0.01, (-0.7 * half, 0.7 * half), (0.5, 0.8 * belt), DARK),
        plates(
            "back",
            back - 0.012,
            [(-0.96 * half, -0.78 * half), (0.78 * half, 0.96 * half)],
            [(0.7, 1.25)] * 2,
            TAIL_LIGHT,
            LAMP,
        ),
        plates(
            "back",
            back - 0.013,
            [(-0.96 * half, -0.78 * half), (0.78 * half, 0.96 * half)],
            [(0.55, 0.68)] * 2,
            INDICATOR,
            LAMP,
        ),
        boxes(
            [(front - 0.12, half, 0.62 * height), (front - 0.12, -0.5 * width, 0.62 * height)],
            [(front + 0.02, 0.5 * width, 0.78 * height), (front + 0.02, -half, 0.78 * height)],
            DARK,
        ),
    ]
    if coach:
        luggage = np.linspace(-0.2, 0.25, 4) * length
        ranges = np.stack([luggage[:-1] + 0.05, luggage[1:] - 0.05], axis=1)
        for side, sign in (("left", 1), ("right", -1)):
            parts.append(plates(side, sign * (half + 0.01), ranges, [(0.42, 0.8 * belt)] * 3, (120, 122, 126)))
    return merge(parts)


def _bus_roof(variant: int, size: Array) -> Mesh:
    length, width, height = size
    places = ((0.12, 0.3), (-0.35, -0.18)) if variant != 2 else ((0.15, 0.3), (-0.4, -0.2))
    return merge(
        [
            boxes(
                (a * length, -0.3 * width, 0.96 * height),
                (b * length, 0.3 * width, height),
                (206, 206, 202),
                taper=(0.94, 0.9),
            )
            for a, b in places
        ]
    )


def trailer(variant: int, size: Array, colour: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a trailer near `size`, without its tractor: box, tank, container on a frame or flat."""
    kinds = {"train": ("box", "tank", "container", "flat"), "val": ("curtain", "tank", "container", "tipper")}
    kind = kinds[family][variant % TRAILER_VARIANTS]
    length, width, height = size
    short = length < 5.5
    radius = min(0.5, 0.14 * height) * rng.uniform(0.92, 1.0)
    front, back, floor = 0.5 * length, -0.5 * length, 2.2 * radius
    goods = _goods(
        kind, back, front - (0.14 * length if short else 0.02), width, floor, height, tuple(colour), rng, family
    )
    spacing = 2.5 * radius
    count = 1 if short else 3 if family == "train" else 2
    first = back + (0.35 * length if short else 0.11 * length + 0.2)
    frame = boxes((back, -0.2 * width, 1.3 * radius), (front - 0.3, 0.2 * width, floor), DARK)
    legs = boxes(
        [(front - 0.26 * length, y - 0.07, 0) for y in (-0.28 * width, 0.28 * width)],
        [(front - 0.26 * length + 0.16, y + 0.07, floor) for y in (-0.28 * width, 0.28 * width)],
        STEEL,
    )
    parts = [
        goods,
        frame,
        legs,
        _truck_wheels([first + spacing * i for i in range(count)], width, radius, (176, 178, 180)),
    ]
    parts += [_lamps_behind(back, width, 1.5 * radius)]
    marks = np.linspace(back + 0.4, front - 0.4, 7)
    dots = np.stack([marks - 0.08, marks + 0.08], axis=1)
    for side, sign in (("left", 1), ("right", -1)):
        parts.append(
            plates(side, sign * (0.5 * width + 0.015), dots, [(floor + 0.02, floor + 0.1)] * 7, INDICATOR, LAMP)
        )
    rod = tubes([(front - 0.8, 0, 1.5 * radius)], [(front, 0, 1.5 * radius)], 0.07, DARK)
    parts.append(rod if short else placed(boxes((-0.3, -0.3, 0), (0.3, 0.3, 0.2), DARK), (front - 0.9, 0, floor - 0.2)))
    return merge(parts)
