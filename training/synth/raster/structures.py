"""Scenery that hides and frames what is to be detected: buildings, trees, posts, walls and fences."""

import numpy as np

from streampetr_core.geometry import Array
from training.synth.raster.mesh import (
    FOLIAGE,
    GLASS,
    LAMP,
    MASONRY,
    Mesh,
    boxes,
    doubled,
    from_quads,
    lathe,
    merge,
    placed,
    plates,
    tubes,
)
from training.synth.raster.palette import DARK, GLASS_TINT, PALETTES, STEEL, Palette

_SIDES = (("front", 0, 1), ("back", 0, -1), ("left", 1, 1), ("right", 1, -1))


def _pick(rng: np.random.Generator, colours: tuple) -> Array:
    return np.array(colours[rng.integers(len(colours))], float) * rng.uniform(0.9, 1.06)


def building(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a building near `size` with rows of windows: flat or with a gabled roof, some with shops below."""
    palette = PALETTES[family]
    length, width, height = size
    facade = _pick(rng, palette.facades)
    gabled = height < 11 and rng.random() < 0.6
    eaves = height * 0.68 if gabled else height - 0.5
    storeys = max(int(round(eaves / rng.uniform(2.9, 3.5))), 1)
    wall = boxes((-length / 2, -width / 2, 0), (length / 2, width / 2, eaves), facade, MASONRY)
    parts = [wall, _plinth(length, width, facade * 0.72)]
    shop = storeys > 1 and rng.random() < 0.4
    tall = rng.uniform(0.42, 0.6) * (1.15 if family == "val" else 1.0)
    wide, pitch = rng.uniform(1.0, 1.6), rng.uniform(2.4, 3.6)
    banded = rng.random() < (0.15 if family == "train" else 0.3)
    frame = facade * 0.6 + 90 if rng.random() < 0.5 else facade * 0.55
    for side, axis, sign in _SIDES:
        span = width if axis == 0 else length
        parts += _windows(
            side,
            sign * size[axis] / 2,
            span,
            eaves / storeys,
            storeys,
            (wide, pitch, tall),
            shop,
            banded,
            frame,
            palette,
            rng,
        )
    parts.append(
        _gable(length, width, eaves, height, _pick(rng, palette.roofs), facade)
        if gabled
        else _flat_roof(size, eaves, facade, rng)
    )
    return merge(parts)


def _plinth(length: float, width: float, colour: Array) -> Mesh:
    return boxes(
        (-length / 2 - 0.06, -width / 2 - 0.06, 0), (length / 2 + 0.06, width / 2 + 0.06, 0.5), colour, MASONRY
    )


def _windows(
    side: str,
    at: float,
    span: float,
    storey: float,
    storeys: int,
    shape: tuple,
    shop: bool,
    banded: bool,
    frame: Array,
    palette: Palette,
    rng: np.random.Generator,
) -> list[Mesh]:
    """One side's windows: frames with darker panes; some shine. The lowest row may be shop windows."""
    wide, pitch, tall = shape
    out = 0.02 if at > 0 else -0.02
    count = min(max(int((span - 0.8) / pitch), 1), 9)
    middles = (np.arange(count) - (count - 1) / 2) * ((span - 0.6) / count)
    half = np.full(count, wide / 2 if not banded else 0.46 * (span - 0.6) / count)
    first = 1 if shop else 0
    rows = np.arange(first, storeys)
    low = rows * storey + 0.32 * storey
    u = np.tile(np.stack([middles - half, middles + half], axis=1), (len(rows), 1))
    v = np.repeat(np.stack([low, low + tall * storey], axis=1), count, axis=0)
    tone = np.where(rng.random((len(u), 1)) < 0.2, np.array((150, 150, 140)), np.array(GLASS_TINT) * 1.15)
    parts = []
    if len(u):
        parts.append(plates(side, at + 2 * out, u, v, tone, GLASS))
        edges = np.concatenate([u + (-0.09, 0.09)]), np.concatenate([v + (-0.14, 0.09)])
        parts.append(plates(side, at + out, *edges, np.clip(frame, 0, 250)))
    if shop:
        board = _pick(rng, palette.boxes)
        wide_pane = np.stack([middles - 0.42 * (span - 0.6) / count, middles + 0.42 * (span - 0.6) / count], axis=1)
        parts.append(plates(side, at + 2 * out, wide_pane, [(0.5, 0.74 * storey)] * count, GLASS_TINT, GLASS))
        parts.append(
            plates(side, at + 2.5 * out, (-span / 2 + 0.2, span / 2 - 0.2), (0.78 * storey, 0.98 * storey), board)
        )
    elif side in ("front", "left", "right"):
        parts.append(plates(side, at + 3 * out, (-0.6, 0.6), (0.0, min(2.2, 0.8 * storey)), (84, 60, 44)))
    return parts


def _gable(length: float, width: float, eaves: float, top: float, colour: Array, facade: Array) -> Mesh:
    x, y = length / 2 + 0.3, width / 2 + 0.4
    vertices = [
        (-x, -y, eaves - 0.1),
        (x, -y, eaves - 0.1),
        (x, 0, top),
        (-x, 0, top),
        (-x, y, eaves - 0.1),
        (x, y, eaves - 0.1),
    ]
    slopes = doubled(from_quads(vertices, [(0, 1, 2, 3), (4, 3, 2, 5)], colour, MASONRY))
    ends = [(-length / 2, -y + 0.4, eaves), (-length / 2, y - 0.4, eaves), (-length / 2, 0, top - 0.25)]
    ends += [(-a, b, c) for a, b, c in ends]
    walls = from_quads(ends, [(0, 2, 1, 1), (3, 4, 5, 5)], facade, MASONRY)
    chimney = boxes(
        (length * 0.2, -0.3 - width * 0.15, eaves),
        (length * 0.2 + 0.7, 0.3 - width * 0.15, top + 0.6),
        colour * 0.8,
        MASONRY,
    )
    return merge([slopes, walls, chimney])


def _flat_roof(size: Array, eaves: float, facade: Array, rng: np.random.Generator) -> Mesh:
    length, width, height = size
    rim = boxes(
        (-length / 2 - 0.12, -width / 2 - 0.12, eaves),
        (length / 2 + 0.12, width / 2 + 0.12, eaves + 0.5),
        facade * 0.85,
    )
    x, y = rng.uniform(-0.25, 0.1) * length, rng.uniform(-0.2, 0.1) * width
    plant = boxes((x, y, eaves + 0.5), (x + 0.2 * length, y + 0.25 * width, height + 1.2), (150, 150, 152))
    return merge([rim, plant])


def tree(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a tree near `size`: round, slender or a conifer."""
    palette = PALETTES[family]
    _, width, height = size
    green, bark = _pick(rng, palette.leaves), _pick(rng, palette.trunks)
    style = int(rng.integers(3))
    trunk_top = height * (0.4 if style == 0 else 0.22)
    trunk = lathe([(0.035 * height, 0), (0.024 * height, trunk_top), (0.012 * height, 0.75 * height)], bark, 7, MASONRY)
    if style == 2:
        tiers = [(0.5, 0.16), (0.30, 0.46), (0.40, 0.42), (0.20, 0.72), (0.27, 0.68), (0.02, 1.0)]
        return merge([trunk, lathe(np.array(tiers) * (width, height), green * 0.85, 9, FOLIAGE)])
    parts = [trunk]
    blobs = 3 if style == 0 else 1
    for index in range(blobs):
        middle = np.array([*rng.uniform(-0.16, 0.16, 2) * width * (blobs > 1), height * (0.68 if style == 0 else 0.58)])
        middle[2] += rng.uniform(-0.08, 0.1) * height * (blobs > 1)
        radii = (
            np.array(
                [0.36 if blobs > 1 else 0.5] * 2 + [0.24 * height / width if style == 0 else 0.42 * height / width]
            )
            * width
        )
        parts.append(_blob(middle, radii, green * rng.uniform(0.88, 1.1), rng, index))
    return merge(parts)


def _blob(middle: Array, radii: Array, colour: Array, rng: np.random.Generator, turn: int) -> Mesh:
    """A lumpy ball of leaves."""
    heights = np.sin(np.linspace(-0.5, 0.5, 6) * np.pi * 0.97)
    profile = np.stack([np.sqrt(1 - heights**2), heights], axis=1)
    ball = lathe(profile, colour, 9, FOLIAGE)
    # The colour of each face differs a little, as if branches stood out.
    vertices = ball.vertices * rng.uniform(0.82, 1.1, (len(ball.vertices), 1)) * radii
    tones = np.clip(ball.colours * rng.uniform(0.85, 1.12, (len(ball.colours), 1)), 0, 255).astype(np.uint8)
    return placed(Mesh(vertices.astype(np.float32), ball.triangles, tones, ball.materials), middle, 0.5 * turn)


def bush(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a bush or a piece of hedge."""
    green = _pick(rng, PALETTES[family].leaves) * 0.9
    if size[0] > 2.5 * size[1]:
        return boxes(
            (-0.5, -0.5, 0),
            (0.5, 0.5, 1),
            [[green, green * 0.95, green, green * 0.95, green * 1.1, green]],
            FOLIAGE,
            taper=(0.97, 0.85),
        )
    return _blob(np.array([0, 0, 0.5]), np.array([0.5, 0.5, 0.55]), green, rng, 0)


def lamp_post(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a street lamp whose arm reaches along x."""
    length, width, height = size
    x = -length / 2 + width / 2
    grey = np.array((96, 100, 104)) * rng.uniform(0.6, 1.2)
    pole = tubes([(x, 0, 0)], [(x, 0, 0.97 * height)], [(0.09, 0.05)], grey, 6)
    foot = boxes((x - width / 2, -width / 2, 0), (x + width / 2, width / 2, 0.35), grey * 0.9)
    arm = tubes([(x, 0, 0.96 * height)], [(length / 2 - 0.3, 0, 0.99 * height)], 0.04, grey, 5)
    head = boxes(
        (length / 2 - 0.7, -width / 2, 0.97 * height),
        (length / 2, width / 2, height),
        [[grey] * 5 + [np.array((235, 232, 220))]],
    )
    return merge([pole, foot, arm, head])


def sign(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a traffic sign that looks along x."""
    _, width, height = size
    edge = ((196, 30, 36), (30, 80, 170), (236, 200, 60))[rng.integers(3)]
    pole = tubes([(-0.02, 0, 0)], [(-0.02, 0, height)], 0.035, STEEL, 5)
    half, low = width / 2, height - width
    plate = boxes((0.0, -half, low), (0.03, half, height), [[edge, STEEL, (130, 132, 134), STEEL, STEEL, STEEL]])
    inside = plates(
        "front", 0.034, (-0.72 * half, 0.72 * half), (low + 0.14 * width, height - 0.14 * width), (232, 232, 228)
    )
    mark = plates("front", 0.037, (-0.15 * half, 0.15 * half), (low + 0.25 * width, height - 0.3 * width), DARK)
    return merge([pole, plate, inside, mark])


def traffic_light(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a traffic light that looks along x."""
    _, width, height = size
    pole = tubes([(-0.12, 0, 0)], [(-0.12, 0, height)], 0.06, STEEL, 6)
    housing = boxes((-0.1, -width / 2, height - 1.0), (0.12, width / 2, height), DARK)
    lit = int(rng.integers(3))
    tones = [(210, 36, 30), (236, 170, 40), (60, 200, 110)]
    spots = [
        plates(
            "front",
            0.125,
            (-0.1, 0.1),
            (height - 0.95 + 0.31 * (2 - i), height - 0.72 + 0.31 * (2 - i)),
            np.array(tone) * (1.0 if i == lit else 0.25),
            LAMP,
        )
        for i, tone in enumerate(tones)
    ]
    return merge([pole, housing, *spots])


def wall(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a garden wall along x with a coping."""
    length, width, height = size
    colour = _pick(rng, PALETTES[family].facades) * 0.9
    body = boxes((-length / 2, -0.42 * width, 0), (length / 2, 0.42 * width, 0.93 * height), colour, MASONRY)
    return merge(
        [body, boxes((-length / 2, -width / 2, 0.93 * height), (length / 2, width / 2, height), colour * 0.75)]
    )


def fence(size: Array, rng: np.random.Generator, family: str) -> Mesh:
    """Return a fence along x: posts, rails and pales."""
    length, width, height = size
    colour = _pick(rng, PALETTES[family].trunks) * 1.3 if rng.random() < 0.5 else np.array(STEEL, float)
    count = min(max(int(length / 0.45), 2), 30)
    places = np.linspace(-length / 2 + 0.05, length / 2 - 0.05, count)
    pales = boxes(
        [(x - 0.05, -0.2 * width, 0.1) for x in places], [(x + 0.05, 0.2 * width, height) for x in places], colour
    )
    rails = boxes(
        [(-length / 2, -width / 2, z) for z in (0.3 * height, 0.75 * height)],
        [(length / 2, 0, z + 0.09) for z in (0.3 * height, 0.75 * height)],
        colour * 0.85,
    )
    return merge(
        [pales, rails, boxes((-length / 2, -width / 2, 0), (-length / 2 + 0.1, width / 2, height), colour * 0.8)]
    )


STRUCTURES = {
    "building": building,
    "tree": tree,
    "bush": bush,
    "lamp_post": lamp_post,
    "sign": sign,
    "traffic_light": traffic_light,
    "wall": wall,
    "fence": fence,
}
