"""What belongs to road works: machines, cones and barriers."""

import numpy as np

from streampetr_core.geometry import Array
from training.synth.raster.mesh import (
    GLASS,
    LAMP,
    PAINT,
    Mesh,
    boxes,
    from_quads,
    lathe,
    loft,
    merge,
    plates,
    tubes,
    wheels,
)
from training.synth.raster.palette import DARK, GLASS_TINT, HEADLIGHT, INDICATOR, PALETTES, STEEL, TAIL_LIGHT

MACHINE_VARIANTS, CONE_VARIANTS, BARRIER_VARIANTS = 4, 3, 4
_WHITE, _CONCRETE = (232, 232, 228), (168, 166, 160)


def machine(variant: int, rng: np.random.Generator, family: str) -> Mesh:
    """Return a construction vehicle: excavator, wheel loader, roller or dumper, that works towards +x."""
    palette = PALETTES[family]
    colour = np.array(palette.machines[rng.integers(len(palette.machines))], float)
    build = (_excavator, _loader, _roller, _dumper)[variant % MACHINE_VARIANTS]
    return build(colour, 0.0 if family == "train" else 0.25)


def _cab(low: tuple, high: tuple, colour: Array) -> Mesh:
    """A glazed cab with a coloured roof and a beacon."""
    x, y = (low[0], high[0]), (low[1], high[1])
    roof = boxes((x[0] - 0.05, y[0] - 0.05, high[2] - 0.12), (x[1] + 0.05, y[1] + 0.05, high[2]), colour, PAINT)
    glass = boxes(low, (high[0], high[1], high[2] - 0.12), GLASS_TINT, GLASS, taper=(0.92, 0.94))
    foot = boxes(low, (high[0] + 0.02, high[1] + 0.01, low[2] + 0.3 * (high[2] - low[2])), colour * 0.95, PAINT)
    middle = (x[0] + x[1]) / 2, (y[0] + y[1]) / 2
    beacon = boxes(
        (middle[0] - 0.08, middle[1] - 0.08, high[2]),
        (middle[0] + 0.08, middle[1] + 0.08, high[2] + 0.18),
        INDICATOR,
        LAMP,
    )
    pillar = [(x[0] + 0.02, x[0] + 0.09), (x[1] - 0.12, x[1] - 0.05)]
    rows = [(low[2], high[2] - 0.1)] * 2
    posts = [plates("left", y[1] + 0.012, pillar, rows, DARK), plates("right", y[0] - 0.012, pillar, rows, DARK)]
    return merge([roof, glass, foot, beacon, *posts])


def _arm(points: list[tuple], widths: list[float], thick: float, colour: Array) -> Mesh:
    """A flat bar that follows `points` (x, z) in the middle plane; `widths` are its heights at the points."""
    points, parts = np.asarray(points, float), []
    for a, b, start, end in zip(points, points[1:], widths, widths[1:], strict=False):
        along = (b - a) / np.linalg.norm(b - a)
        across = np.array([-along[1], along[0]])
        rings = [
            [
                (p[0] + s * w * across[0], side * thick, p[1] + s * w * across[1])
                for s, side in ((1, 1), (1, -1), (-1, -1), (-1, 1))
            ]
            for p, w in ((a, start / 2), (b, end / 2))
        ]
        parts.append(loft(rings, colour, PAINT))
    return merge(parts)


def _excavator(colour: Array, change: float) -> Mesh:
    tracks = []
    for y in (-1.0, 1.0):
        outline = [(-1.9, 0.35), (-1.6, 0.75), (1.6, 0.75), (1.9, 0.35), (1.5, 0.0), (-1.5, 0.0)]
        tracks.append(loft([[(x, y + s * 0.28, z) for x, z in outline] for s in (-1, 1)], DARK))
        rollers = [(x, y + np.sign(y) * 0.05, 0.36) for x in (-1.35, 1.35)]
        tracks.append(wheels(rollers, 0.26, 0.5, 8))
    house = boxes((-2.3, -1.2, 0.95), (0.55, 1.2, 1.75 + change), colour, PAINT, taper=(0.96, 0.95))
    engine = boxes((-2.3, -1.15, 1.7 + change), (-1.2, 1.15, 2.05 + change), colour * 0.9, PAINT, taper=(0.85, 0.9))
    weight = boxes((-2.45, -1.15, 0.95), (-2.1, 1.15, 1.7), DARK)
    cab = _cab((-0.55, 0.25, 1.0), (0.75, 1.2, 2.85), colour)
    boom = _arm([(0.3, 1.5), (1.7, 3.0 + change), (3.1, 2.55)], [0.5, 0.55, 0.35], 0.17, colour)
    stick = _arm([(3.0, 2.85), (3.55 + 0.5 * change, 1.0)], [0.42, 0.26], 0.13, colour)
    piston = tubes([(0.9, -0.25, 1.4), (1.8, 0, 3.35 + change)], [(1.9, -0.2, 2.5), (3.0, 0, 3.0)], 0.07, STEEL, 5)
    tip = 3.55 + 0.5 * change
    bucket = _arm(
        [(tip, 1.05), (tip + 0.15, 0.55), (tip - 0.45, 0.12)], [0.2, 0.55, 0.12], 0.55, np.array(STEEL, float) * 0.7
    )
    lamps = boxes([(0.70, 0.35, 2.85), (0.70, 0.95, 2.85)], [(0.82, 0.55, 3.0), (0.82, 1.15, 3.0)], HEADLIGHT, LAMP)
    tail = plates("back", -2.46, [(-1.0, -0.7), (0.7, 1.0)], [(1.1, 1.3)] * 2, TAIL_LIGHT, LAMP)
    return merge(
        [
            *tracks,
            boxes((-0.9, -0.9, 0.5), (0.9, 0.9, 0.95), DARK),
            house,
            engine,
            weight,
            cab,
            boom,
            stick,
            piston,
            bucket,
            lamps,
            tail,
        ]
    )


def _loader(colour: Array, change: float) -> Mesh:
    radius = 0.78
    tyres = wheels([(x, y, radius) for x in (-1.45, 1.35) for y in (-0.98, 0.98)], radius, 0.55, 12, hub=colour)
    rear = boxes((-2.9, -0.85, 0.75), (-0.6, 0.85, 1.85), colour, PAINT, taper=(0.9, 0.9), shift=(0.06, 0))
    front = boxes((0.2, -0.55, 0.6), (1.9, 0.55, 1.45), colour, PAINT, taper=(0.8, 0.9))
    waist = boxes((-0.6, -0.4, 0.6), (0.3, 0.4, 1.1), DARK)
    cab = _cab((-0.95, -0.7, 1.35), (0.35, 0.7, 3.1), colour)
    arms = []
    for y in (-0.5, 0.5):
        arm = _arm([(0.5, 1.6), (1.9, 1.35 + change), (2.75, 0.55 + change)], [0.3, 0.36, 0.26], 0.09, colour)
        arms.append(Mesh(arm.vertices + np.float32((0, y, 0)), arm.triangles, arm.colours, arm.materials))
    profile = [(2.6, 1.3), (2.55, 0.15), (3.75, 0.05), (3.75, 0.14), (2.75, 0.35), (2.8, 1.25)]
    bucket = [[(x, y, z + change) for x, z in profile] for y in (-1.3, 1.3)]
    sides = [
        from_quads(
            [(2.6, y, 1.3 + change), (2.55, y, 0.15 + change), (3.75, y, 0.1 + change), (2.8, y, 1.3 + change)],
            [q],
            STEEL,
        )
        for y in (-1.28, 1.28)
        for q in ((0, 1, 2, 3), (3, 2, 1, 0))
    ]
    grille = plates("back", -2.86, (-0.6, 0.6), (0.9, 1.6), DARK)
    tail = plates("back", -2.87, [(-0.8, -0.62), (0.62, 0.8)], [(1.4, 1.65)] * 2, TAIL_LIGHT, LAMP)
    lamps = boxes([(1.6, -0.7, 1.5), (1.6, 0.5, 1.5)], [(1.75, -0.5, 1.7), (1.75, 0.7, 1.7)], HEADLIGHT, LAMP)
    fenders = boxes(
        [(-2.2, y - 0.3, 1.58) for y in (-0.98, 0.98)], [(-0.8, y + 0.3, 1.66) for y in (-0.98, 0.98)], DARK
    )
    exhaust = tubes([(-2.0, 0.4, 1.8)], [(-2.0, 0.4, 2.5)], 0.06, STEEL, 5)
    return merge(
        [
            tyres,
            rear,
            front,
            waist,
            cab,
            *arms,
            loft(bucket, np.array(STEEL, float) * 0.8),
            *sides,
            grille,
            tail,
            lamps,
            fenders,
            exhaust,
        ]
    )


def _roller(colour: Array, change: float) -> Mesh:
    drum = tubes([(1.7, -1.0, 0.75)], [(1.7, 1.0, 0.75)], 0.75, (110, 112, 116), 16)
    second = (
        [wheels([(-1.6, y, 0.72) for y in (-0.8, 0.8)], 0.72, 0.5, 12)]
        if change == 0.0
        else [tubes([(-1.6, -1.0, 0.75)], [(-1.6, 1.0, 0.75)], 0.75, (110, 112, 116), 16)]
    )
    frame = boxes([(0.3, -1.14, 0.6), (0.3, 1.0, 0.6)], [(2.5, -1.0, 1.0), (2.5, 1.14, 1.0)], colour, PAINT)
    bridge = boxes((0.2, -1.1, 0.75), (0.75, 1.1, 1.35), colour, PAINT)
    rear = boxes((-2.6, -0.9, 0.8), (-0.4, 0.9, 1.75), colour, PAINT, taper=(0.9, 0.9))
    brow = boxes((2.35, -1.1, 0.6), (2.5, 1.1, 1.0), colour * 0.8, PAINT)
    cab = _cab((-0.9, -0.75, 1.4), (0.5, 0.75, 3.0), colour)
    grille = plates("back", -2.58, (-0.6, 0.6), (0.95, 1.5), DARK)
    tail = plates("back", -2.59, [(-0.85, -0.68), (0.68, 0.85)], [(1.2, 1.4)] * 2, TAIL_LIGHT, LAMP)
    return merge([drum, *second, frame, bridge, rear, brow, cab, grille, tail])


def _dumper(colour: Array, change: float) -> Mesh:
    radius = 0.72
    tyres = wheels([(x, y, radius) for x in (-2.1, -0.5, 2.0) for y in (-1.0, 1.0)], radius, 0.5, 10, hub=colour)
    hood = boxes((1.7, -0.8, 0.9), (3.2, 0.8, 1.75), colour, PAINT, taper=(0.85, 0.9), shift=(-0.06, 0))
    cab = _cab((0.75, -0.8, 1.2), (1.9, 0.8, 2.95), colour)
    frame = boxes((-2.9, -0.5, 0.7), (2.0, 0.5, 1.15), DARK)
    profile = [(-3.2, 1.55), (-2.6, 1.1), (0.4, 1.15), (0.65, 2.4 + change), (-3.1, 2.25)]
    tub = loft([[(x, y, z) for x, z in profile] for y in (-1.25, 1.25)], colour, PAINT)
    heap = boxes((-2.9, -1.05, 2.2), (0.4, 1.05, 2.75), (124, 104, 80), taper=(0.4, 0.4))
    lamps = plates("front", 3.19, [(-0.75, -0.5), (0.5, 0.75)], [(1.05, 1.3)] * 2, HEADLIGHT, LAMP)
    grille = plates("front", 3.16, (-0.45, 0.45), (1.0, 1.6), DARK)
    tail = boxes([(-2.98, -0.6, 0.8), (-2.98, 0.4, 0.8)], [(-2.88, -0.4, 1.0), (-2.88, 0.6, 1.0)], TAIL_LIGHT, LAMP)
    return merge([tyres, hood, cab, frame, tub, heap, lamps, grille, tail])


def cone(variant: int, rng: np.random.Generator, family: str) -> Mesh:
    """Return a traffic cone of height 1 with white bands: cone with two bands, with one, or a slim post."""
    variant = variant % CONE_VARIANTS
    colours = PALETTES[family].cones
    own = np.array(colours[rng.integers(len(colours))], float)
    shift = 0.0 if family == "train" else 0.05
    cuts = [(0.05, 0), (0.28 - shift, 1), (0.46 - shift, 0), (0.60, 1), (0.78 - shift, 0), (1.0, 0)]
    if variant == 1:
        cuts = [(0.05, 0), (0.45 - shift, 1), (0.72 - shift, 0), (1.0, 0)]
    foot, tip = (0.17, 0.035) if variant != 2 else (0.09, 0.07)
    profile = [(foot + (tip - foot) * (z - 0.05) / 0.95, z) for z, _ in cuts]
    bands = [np.array(_WHITE, float) if white else own for _, white in cuts[:-1]]
    base = own * 0.8 if family == "val" and variant != 2 else np.array(DARK, float)
    return merge([boxes((-0.24, -0.24, 0), (0.24, 0.24, 0.05), base, taper=(0.94, 0.94)), lathe(profile, bands, 12)])


def barrier(variant: int, rng: np.random.Generator, family: str) -> Mesh:
    """Return a barrier of 0.5 x 2.5 x 1 m across x: striped planks, jersey block, water-filled plastic or a grille."""
    variant = variant % BARRIER_VARIANTS
    colours = PALETTES[family].barriers
    own = np.array(colours[rng.integers(len(colours))], float)
    if variant == 0:
        return _planks(own, 8 if family == "train" else 6)
    if variant == 3:
        return _grille(own, 14 if family == "train" else 11)
    shapes = (
        [(0.25, 0.0), (0.25, 0.08), (0.12, 0.35), (0.075, 1.0)],
        [(0.25, 0.0), (0.22, 0.25), (0.15, 0.4), (0.11, 1.0)],
    )
    outline = shapes[(family == "val") ^ (variant == 2)]
    ring = np.array(outline + [(-x, z) for x, z in outline[::-1]])
    cuts = np.linspace(-1.25, 1.25, 4 if variant == 1 else 6)
    rings = [[(x, y, z) for x, z in ring] for y in cuts]
    if variant == 1:
        return merge([loft(rings, _CONCRETE), *_reflectors(own, outline[-1][0])])
    tones = [np.array(_WHITE, float) if index % 2 else own for index in range(len(cuts) - 1)]
    return loft(rings, np.repeat(np.array(tones)[:, None], len(ring), axis=1))


def _reflectors(own: Array, top: float) -> list[Mesh]:
    places = [(-0.9, -0.6), (-0.15, 0.15), (0.6, 0.9)]
    high = [(0.7, 0.86)] * 3
    return [plates("front", top + 0.03, places, high, own), plates("back", -top - 0.03, places, high, own)]


def _planks(own: Array, stripes: int) -> Mesh:
    """Two planks with slanted stripes on A-shaped legs."""
    parts = []
    for low, high in ((0.66, 1.0), (0.24, 0.5)):
        parts.append(boxes((-0.05, -1.25, low), (0.05, 1.25, high), _WHITE))
        step = 2.5 / stripes
        for index in range(stripes):
            y = -1.25 + step * index
            corners = [(y, low), (y + 0.55 * step, low), (min(y + 0.9 * step, 1.25), high), (y + 0.35 * step, high)]
            front = [(0.053, a, b) for a, b in corners]
            parts += [
                from_quads(front, [(0, 1, 2, 3)], own),
                from_quads([(-0.053, a, b) for a, b in corners], [(3, 2, 1, 0)], own),
            ]
    legs = [(x, y) for y in (-0.95, 0.95) for x in (-0.22, 0.22)]
    parts.append(tubes([(x, y, 0) for x, y in legs], [(0.2 * x, y, 0.95) for x, y in legs], 0.03, STEEL, 4))
    parts.append(
        boxes([(-0.25, y - 0.05, 0) for y in (-0.95, 0.95)], [(0.25, y + 0.05, 0.06) for y in (-0.95, 0.95)], DARK)
    )
    parts.append(
        boxes(
            [(-0.06, y - 0.07, 1.0) for y in (-0.95, 0.95)],
            [(0.06, y + 0.07, 1.14) for y in (-0.95, 0.95)],
            INDICATOR,
            LAMP,
        )
    )
    return merge(parts)


def _grille(own: Array, bars: int) -> Mesh:
    """A crowd barrier with upright bars and a coloured board."""
    rails = [((0, -1.25, z), (0, 1.25, z)) for z in (0.15, 0.97)]
    posts = [((0, y, 0.12), (0, y, 1.0)) for y in (-1.22, 1.22)]
    frame = rails + posts
    thin = [((0, y, 0.15), (0, y, 0.97)) for y in np.linspace(-1.1, 1.1, bars)]
    board = boxes((-0.02, -1.15, 0.62), (0.02, 1.15, 0.85), [[own, own, own, own, own, own]])
    white = [(y, y + 0.22) for y in np.linspace(-1.05, 0.85, 5)]
    return merge(
        [
            tubes([a for a, _ in frame], [b for _, b in frame], 0.03, (176, 178, 182), 4),
            tubes([a for a, _ in thin], [b for _, b in thin], 0.012, (156, 158, 162), 3),
            board,
            plates("front", 0.023, white, [(0.62, 0.85)] * 5, _WHITE),
            plates("back", -0.023, white, [(0.62, 0.85)] * 5, _WHITE),
            boxes([(-0.25, y - 0.04, 0) for y in (-1.0, 1.0)], [(0.25, y + 0.04, 0.05) for y in (-1.0, 1.0)], STEEL),
            tubes([(0, y, 0.03) for y in (-1.0, 1.0)], [(0, y, 0.2) for y in (-1.0, 1.0)], 0.03, STEEL, 4),
        ]
    )
