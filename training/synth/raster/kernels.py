"""The compiled inner loops: triangles into a z-buffer, and their shadows on the ground.

Strict IEEE arithmetic on one thread, so equal input gives equal bytes in every process. Pixel centres have integer
coordinates. The z-buffer holds 1 / depth, which is linear in the picture; 0 is infinitely far.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEAR = 0.15  # metres; nothing nearer than this is drawn
OCCLUSION_MASK, SUN_SHADOW = 0x7F, 0x80  # of the shade buffer: 7 bits of missing sky light, 1 bit of missing sun


@njit(cache=True, nogil=True, error_model="numpy")
def _sorted(a, b, c):  # noqa: ANN001, ANN202
    """Return three corners from top to bottom, so that neighbours walk along a shared edge in the same way."""
    if b[1] < a[1]:
        a, b = b, a
    if c[1] < a[1]:
        a, c = c, a
    if c[1] < b[1]:
        b, c = c, b
    return a, b, c


@njit(cache=True, nogil=True, error_model="numpy")
def _span(row, a, b, long, upper, lower, width):  # noqa: ANN001, ANN202
    """Return the first and last + 1 column of a row of a triangle; `long`, `upper` and `lower` are dx / dy of edges."""
    one = a[0] + (row - a[1]) * long
    two = a[0] + (row - a[1]) * upper if row < b[1] else b[0] + (row - b[1]) * lower
    if one > two:
        one, two = two, one
    return int(np.ceil(max(one, 0.0))), int(np.ceil(min(two, width)))


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(a, b, c, index, slot, inverse_depth, surface, stamp):  # noqa: ANN001, ANN202
    """Draw one triangle with corners (x, y, 1 / depth); return how many pixels it is the first of its slot to cover."""
    height, width = surface.shape
    if max(a[0], b[0], c[0]) < 0.0 or min(a[0], b[0], c[0]) > width - 1.0:
        return 0
    a, b, c = _sorted(a, b, c)
    first_row, last_row = int(np.ceil(max(a[1], 0.0))), int(np.ceil(min(c[1], float(height))))
    if first_row >= last_row:
        return 0
    area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
    if area == 0.0:
        return 0
    slope_x = ((b[2] - a[2]) * (c[1] - a[1]) - (c[2] - a[2]) * (b[1] - a[1])) / area
    slope_y = ((c[2] - a[2]) * (b[0] - a[0]) - (b[2] - a[2]) * (c[0] - a[0])) / area
    long, upper, lower = (c[0] - a[0]) / (c[1] - a[1]), (b[0] - a[0]) / (b[1] - a[1]), (c[0] - b[0]) / (c[1] - b[1])
    covered = 0
    for row in range(first_row, last_row):
        first, last = _span(row, a, b, long, upper, lower, float(width))
        start = a[2] + (row - a[1]) * slope_y - a[0] * slope_x
        for column in range(first, last):
            # Written even where nothing changes: without a branch several pixels go at once.
            value, before = np.float32(start + column * slope_x), inverse_depth[row, column]
            inverse_depth[row, column] = max(value, before)
            surface[row, column] = index if value > before else surface[row, column]
        if slot > 0:
            for column in range(first, last):
                covered += stamp[row, column] != slot
                stamp[row, column] = slot
    return covered


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_shadow(a, b, c, surface, shade):  # noqa: ANN001, ANN202
    """Take the sun from the pixels of one triangle with corners (x, y) where the ground is seen."""
    height, width = surface.shape
    if max(a[0], b[0], c[0]) < 0.0 or min(a[0], b[0], c[0]) > width - 1.0:
        return
    a, b, c = _sorted(a, b, c)
    first_row, last_row = int(np.ceil(max(a[1], 0.0))), int(np.ceil(min(c[1], float(height))))
    if first_row >= last_row:
        return
    long, upper, lower = (c[0] - a[0]) / (c[1] - a[1]), (b[0] - a[0]) / (b[1] - a[1]), (c[0] - b[0]) / (c[1] - b[1])
    for row in range(first_row, last_row):
        first, last = _span(row, a, b, long, upper, lower, float(width))
        for column in range(first, last):
            if surface[row, column] < 0:
                shade[row, column] |= SUN_SHADOW


@njit(cache=True, nogil=True, error_model="numpy")
def _clip_near(points):  # noqa: ANN001, ANN202
    """Return the part of a triangle (3, 3) in cam that is beyond NEAR: corners (4, 3) and how many of them count."""
    kept = np.empty((4, 3))
    count = 0
    for index in range(3):
        here, there = points[index], points[(index + 1) % 3]
        if here[2] >= NEAR:
            kept[count] = here
            count += 1
        if (here[2] >= NEAR) != (there[2] >= NEAR):
            share = (NEAR - here[2]) / (there[2] - here[2])
            for axis in range(2):
                kept[count, axis] = here[axis] + share * (there[axis] - here[axis])
            kept[count, 2] = NEAR
            count += 1
    return kept, count


@njit(cache=True, nogil=True, error_model="numpy")
def _project(point, pinhole):  # noqa: ANN001, ANN202
    """Return (x, y, 1 / depth) of a point in cam; `pinhole` is (fx, fy, cx, cy)."""
    inverse = 1.0 / point[2]
    return (pinhole[0] * point[0] * inverse + pinhole[2], pinhole[1] * point[1] * inverse + pinhole[3], inverse)


@njit(cache=True, nogil=True, error_model="numpy")
def _to_camera(vertices, cam_T_body):  # noqa: ANN001, ANN202
    points = np.empty((len(vertices), 3))
    for index in range(len(vertices)):
        x, y, z = vertices[index]
        for axis in range(3):
            row = cam_T_body[axis]
            points[index, axis] = row[0] * x + row[1] * y + row[2] * z + row[3]
    return points


@njit(cache=True, nogil=True, error_model="numpy")
def draw_mesh(
    vertices: NDArray,
    triangles: NDArray,
    normals: NDArray,
    cam_T_body: NDArray,
    eye: NDArray,
    pinhole: NDArray,
    first: int,
    slot: int,
    inverse_depth: NDArray,
    surface: NDArray,
    stamp: NDArray,
) -> int:
    """Draw the triangles that face `eye` (3,), in body; triangle t is entered in `surface` as `first` + t.

    Returns how many pixels the mesh covers in the picture, hidden or not; counted only for `slot` > 0.
    """
    points = _to_camera(vertices, cam_T_body)
    corners = np.empty((3, 3))
    covered = 0
    for index in range(len(triangles)):
        one, two, three = triangles[index]
        normal, origin = normals[index], vertices[one]
        facing = 0.0
        for axis in range(3):
            facing += normal[axis] * (eye[axis] - origin[axis])
        if facing <= 0.0:
            continue
        if points[one, 2] >= NEAR and points[two, 2] >= NEAR and points[three, 2] >= NEAR:
            a, b, c = _project(points[one], pinhole), _project(points[two], pinhole), _project(points[three], pinhole)
            covered += _fill(a, b, c, first + index, slot, inverse_depth, surface, stamp)
            continue
        corners[0], corners[1], corners[2] = points[one], points[two], points[three]
        kept, count = _clip_near(corners)
        for last in range(2, count):
            a, b, c = _project(kept[0], pinhole), _project(kept[last - 1], pinhole), _project(kept[last], pinhole)
            covered += _fill(a, b, c, first + index, slot, inverse_depth, surface, stamp)
    return covered


@njit(cache=True, nogil=True, error_model="numpy")
def draw_shadow(
    vertices: NDArray,
    triangles: NDArray,
    normals: NDArray,
    cam_T_body: NDArray,
    sun: NDArray,
    pinhole: NDArray,
    surface: NDArray,
    shade: NDArray,
) -> None:
    """Draw the sun shadow of a mesh; `cam_T_body` flattens it onto the ground, `sun` (3,) is in body."""
    points = _to_camera(vertices, cam_T_body)
    corners = np.empty((3, 3))
    for index in range(len(triangles)):
        normal = normals[index]
        if normal[0] * sun[0] + normal[1] * sun[1] + normal[2] * sun[2] <= 0.0:
            continue
        one, two, three = triangles[index]
        corners[0], corners[1], corners[2] = points[one], points[two], points[three]
        kept, count = _clip_near(corners)
        for last in range(2, count):
            a, b, c = _project(kept[0], pinhole), _project(kept[last - 1], pinhole), _project(kept[last], pinhole)
            _fill_shadow(a, b, c, surface, shade)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_contacts(
    footprints: NDArray,
    world_T_body: NDArray,
    cam_T_body: NDArray,
    rays: NDArray,
    eye: NDArray,
    pinhole: NDArray,
    surface: NDArray,
    shade: NDArray,
) -> None:
    """Darken the ground under and around footprints (N, 6): middle x, y, half length, half width, reach, strength.

    `reach` metres from it the ground is as light as ever. `rays` (3, 3) maps (column, row, 1) to a direction in world.
    """
    for index in range(len(footprints)):
        footprint, pose = footprints[index], world_T_body[index]
        window = _window(footprint, cam_T_body[index], pinhole, surface.shape)
        if window[0] < window[1] and window[2] < window[3]:
            _darken(footprint, pose, window, rays, eye, surface, shade)


@njit(cache=True, nogil=True, error_model="numpy")
def _window(footprint, cam_T_body, pinhole, shape):  # noqa: ANN001, ANN202
    """Return the rows and columns (first, last + 1, first, last + 1) that a footprint with its reach may cover."""
    points = np.empty((4, 3))
    half_x, half_y = footprint[2] + footprint[4], footprint[3] + footprint[4]
    for corner in range(4):
        x = footprint[0] + (half_x if corner == 0 or corner == 3 else -half_x)
        y = footprint[1] + (half_y if corner < 2 else -half_y)
        for axis in range(3):
            row = cam_T_body[axis]
            points[corner, axis] = row[0] * x + row[1] * y + row[3]
    low_x, high_x, low_y, high_y = np.inf, -np.inf, np.inf, -np.inf
    for first, second, third in ((0, 1, 2), (0, 2, 3)):
        triangle = np.stack((points[first], points[second], points[third]))
        kept, count = _clip_near(triangle)
        for corner in range(count):
            x, y, _ = _project(kept[corner], pinhole)
            low_x, high_x, low_y, high_y = min(low_x, x), max(high_x, x), min(low_y, y), max(high_y, y)
    if low_x > high_x:
        return 0, 0, 0, 0
    return (
        int(np.ceil(max(low_y, 0.0))),
        int(min(np.floor(high_y) + 1.0, float(shape[0]))),
        int(np.ceil(max(low_x, 0.0))),
        int(min(np.floor(high_x) + 1.0, float(shape[1]))),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _darken(footprint, pose, window, rays, eye, surface, shade):  # noqa: ANN001, ANN202
    x_column, y_column, z_column = rays[0, 0], rays[1, 0], rays[2, 0]
    # Into the frame of the body; only its heading counts, since the ground is flat.
    scale = 1.0 / np.sqrt(pose[0, 0] * pose[0, 0] + pose[1, 0] * pose[1, 0])
    cosine, sine = pose[0, 0] * scale, pose[1, 0] * scale
    east, north = eye[0] - pose[0, 3], eye[1] - pose[1, 3]
    middle_x, middle_y, half_x, half_y, reach, strength = footprint
    height, scale = eye[2], 1.0 / (reach * reach)
    for row in range(window[0], window[1]):
        x_row, y_row, z_row = (
            rays[0, 1] * row + rays[0, 2],
            rays[1, 1] * row + rays[1, 2],
            rays[2, 1] * row + rays[2, 2],
        )
        names, shades = surface[row], shade[row]
        for column in range(window[2], window[3]):
            down = z_row + z_column * column
            if names[column] >= 0 or down >= 0.0:
                continue
            depth = -height / down
            x, y = east + depth * (x_row + x_column * column), north + depth * (y_row + y_column * column)
            outside_x = max(abs(x * cosine + y * sine - middle_x) - half_x, 0.0)
            outside_y = max(abs(y * cosine - x * sine - middle_y) - half_y, 0.0)
            square = (outside_x * outside_x + outside_y * outside_y) * scale
            if square < 1.0:
                rest = 1.0 - np.sqrt(square)
                before = shades[column]
                open_sky = (127 - (before & OCCLUSION_MASK)) * (1.0 - strength * rest * rest)
                shades[column] = (before & SUN_SHADOW) | np.uint8(127.0 - open_sky)


@njit(cache=True, nogil=True, error_model="numpy")
def count_row(row: int, surface: NDArray, slots: NDArray, counts: NDArray, boxes: NDArray) -> None:
    """Add what one row (W,) of the surface buffer shows; arguments as of `count_pixels`."""
    column, width = 0, len(surface)
    while column < width:
        index = surface[column]
        if index < 0:
            column += 1
            continue
        slot, first = slots[index], column
        while column < width and surface[column] >= 0 and slots[surface[column]] == slot:
            column += 1
        counts[slot] += column - first
        boxes[slot, 0], boxes[slot, 1] = min(boxes[slot, 0], first), min(boxes[slot, 1], row)
        boxes[slot, 2], boxes[slot, 3] = max(boxes[slot, 2], column - 1), max(boxes[slot, 3], row)


@njit(cache=True, nogil=True, error_model="numpy")
def count_pixels(surface: NDArray, slots: NDArray, counts: NDArray, boxes: NDArray) -> None:
    """Fill in the visible pixels `counts` (S,), and `boxes` (S, 4) of their first and last column and row, by slot.

    `slots` (T,) are those of the triangles.
    """
    for row in range(surface.shape[0]):
        count_row(row, surface[row], slots, counts, boxes)
