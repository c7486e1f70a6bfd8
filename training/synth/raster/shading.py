"""The compiled second half of a picture: light on triangles, then the colour of every pixel, row by row.

Strict IEEE arithmetic on one thread, as in `kernels`. Colours are RGB from 0 to 255, as the eye sees them.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.synth.raster.ground import NOISE_SIZE
from training.synth.raster.kernels import count_row
from training.synth.raster.light import HAZE_REACH, HAZE_STEPS_PER_METRE
from training.synth.raster.mesh import FOLIAGE, GLASS, LAMP, MASONRY, PAINT

# Rows of the array (7, 3) that carries the light into the kernels.
SUN, SKY, BOUNCE, HORIZON, ZENITH, CLOUD, WEATHER = range(7)
# Columns of the row WEATHER.
CLOUDS, WETNESS, VIGNETTE = range(3)
SKYLINE_SIZE = 1024
_MASK = NOISE_SIZE - 1
_BLOCK = 64  # pixels in a row that share one copy of the ground map
_SKY_STEPS = 64  # computed colours of the sky in one row
_FINE = 0.009  # metres; smaller pixels on the ground take their albedo from a neighbour
_GRAIN_REACH = 60.0  # metres; what is farther away has no grain
_HILLS = 0.06  # sine of the greatest height of the hills


@njit(cache=True, nogil=True, error_model="numpy")
def shade_triangles(
    vertices: NDArray,
    triangles: NDArray,
    normals: NDArray,
    colours: NDArray,
    materials: NDArray,
    eye: NDArray,
    sun: NDArray,
    up: NDArray,
    light: NDArray,
    shaded: NDArray,
) -> None:
    """Write the colours (T, 3) of lit triangles to `shaded`; `eye`, `sun` and `up` (3,) are in body.

    Those that look well away from the eye are left out: they are not drawn.
    """
    for index in range(len(triangles)):
        normal, origin, material = normals[index], vertices[triangles[index, 0]], materials[index]
        to_sun, upwards, cosine, distance, eye_up, eye_sun = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for axis in range(3):
            ray = eye[axis] - origin[axis]
            to_sun += normal[axis] * sun[axis]
            upwards += normal[axis] * up[axis]
            cosine += normal[axis] * ray
            distance += ray * ray
            eye_up += ray * up[axis]
            eye_sun += ray * sun[axis]
        if cosine <= -0.5 * np.sqrt(distance):
            continue
        distance = np.sqrt(distance)
        cosine, eye_up, eye_sun = max(cosine / distance, 0.0), eye_up / distance, eye_sun / distance
        mirror, gleam = 0.0, 0.0
        if material == GLASS or material == PAINT:
            least = 0.25 if material == GLASS else 0.03
            mirror = least + (0.85 - least) * (1.0 - cosine) ** 4
            towards = max(2.0 * cosine * to_sun - eye_sun, 0.0)
            gleam = 90.0 * towards**24
        reflected_up = 2.0 * cosine * upwards - eye_up
        for channel in range(3):
            lit = light[SUN, channel] * max(to_sun, 0.0) + light[SKY, channel] * (0.6 + 0.4 * upwards)
            lit += light[BOUNCE, channel] * (0.5 - 0.5 * upwards)
            if material == LAMP:
                lit = max(lit, 0.9)
            colour = colours[index, channel] * lit
            if mirror > 0.0:
                if reflected_up > 0.0:
                    share = np.sqrt(reflected_up)
                    seen = light[HORIZON, channel] * (1.0 - share) + light[ZENITH, channel] * share
                else:
                    seen = 150.0 * light[BOUNCE, channel]
                colour += mirror * (seen - colour) + gleam * light[SUN, channel]
            shaded[index, channel] = colour


@njit(cache=True, nogil=True, error_model="numpy")
def _smooth(tile, x, y):  # noqa: ANN001, ANN202
    """Return the bilinear value of a periodic noise tile."""
    low_x, low_y = np.floor(x), np.floor(y)
    x, y = x - low_x, y - low_y
    column, row = int(low_x), int(low_y)
    left, right, top, bottom = column & _MASK, (column + 1) & _MASK, row & _MASK, (row + 1) & _MASK
    above = tile[top, left] + (tile[top, right] - tile[top, left]) * x
    below = tile[bottom, left] + (tile[bottom, right] - tile[bottom, left]) * x
    return above + (below - above) * y


@njit(cache=True, nogil=True, error_model="numpy")
def _first_ray(rays, row):  # noqa: ANN001, ANN202
    """Return the direction in world of the leftmost pixel of a row."""
    return (
        rays[0, 1] * row + rays[0, 2],
        rays[1, 1] * row + rays[1, 2],
        rays[2, 1] * row + rays[2, 2],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _sky(x, y, z, sky, clouds, light):  # noqa: ANN001, ANN202
    """Return the colour of the sky in a direction, the sine of its elevation, and its azimuth on the skyline."""
    scale = 1.0 / np.sqrt(x * x + y * y + z * z)
    up = z * scale
    level = min(max(up, 0.0) * 255.0, 254.999)
    index = int(level)
    share = level - index
    far = 28.0 * scale / (abs(up) + 0.12)
    cloud = min(max(_smooth(clouds, x * far, y * far) * 1.6 + 2.0 * light[WEATHER, CLOUDS] - 0.9, 0.0), 1.0)
    cloud *= 0.75 * min(1.0, abs(up) * 6.0 + 0.25)
    red = sky[index, 0] + (sky[index + 1, 0] - sky[index, 0]) * share
    green = sky[index, 1] + (sky[index + 1, 1] - sky[index, 1]) * share
    blue = sky[index, 2] + (sky[index + 1, 2] - sky[index, 2]) * share
    red += cloud * (light[CLOUD, 0] - red)
    green += cloud * (light[CLOUD, 1] - green)
    blue += cloud * (light[CLOUD, 2] - blue)
    turn = (np.arctan2(y, x) / (2.0 * np.pi) + 0.5) * SKYLINE_SIZE if up < 2.0 * _HILLS else 0.0
    return red, green, blue, up, turn


@njit(cache=True, nogil=True, error_model="numpy")
def _sky_row(row, rays, eye_height, air, light, surface, depth, line):  # noqa: ANN001, ANN202
    """Colour the sky of one row into `line` (3 W,); `surface` (W,) tells where something stands before it.

    Between points a hundredth of the width apart everything is interpolated. Hills stand at the horizon.
    """
    sky, clouds, skyline, _ = air
    width = len(surface)
    x0, y0, z0 = _first_ray(rays, row)
    dx, dy, dz = rays[0, 0], rays[1, 0], rays[2, 0]
    if max(z0, z0 + width * dz) < 0.0 and eye_height > 0.0:
        return
    hill = (
        12.6 * (light[SUN, 0] + light[SKY, 0]),
        15.8 * (light[SUN, 1] + light[SKY, 1]),
        14.0 * (light[SUN, 2] + light[SKY, 2]),
    )
    known, old = -1, (0.0, 0.0, 0.0, 0.0, 0.0)
    step = max(width // _SKY_STEPS, 4)
    for start in range(0, width, step):
        end = min(start + step, width)
        anything = False
        for column in range(start, end):
            anything |= surface[column] < 0
        if not anything or (max(z0 + start * dz, z0 + end * dz) < 0.0 and eye_height > 0.0):
            continue
        if known != start:
            old = _sky(x0 + start * dx, y0 + start * dy, z0 + start * dz, sky, clouds, light)
        new = _sky(x0 + end * dx, y0 + end * dy, z0 + end * dz, sky, clouds, light)
        _blend_sky(start, end, old, new, surface, depth, line)
        if min(old[3], new[3]) < _HILLS:
            _raise_hills(start, end, old, new, skyline, hill, line)
        known, old = end, new


@njit(cache=True, nogil=True, error_model="numpy")
def _blend_sky(start, end, old, new, surface, depth, line):  # noqa: ANN001, ANN202
    """Go from one colour of the sky to the next, also behind things: what stands before it is coloured later."""
    scale = np.float32(1.0 / (end - start))
    red, green, blue = np.float32(old[0]), np.float32(old[1]), np.float32(old[2])
    more_red, more_green, more_blue = np.float32(new[0]) - red, np.float32(new[1]) - green, np.float32(new[2]) - blue
    for index in range(end - start):
        share, column = np.float32(index) * scale, start + index
        line[3 * column] = red + more_red * share
        line[3 * column + 1] = green + more_green * share
        line[3 * column + 2] = blue + more_blue * share
        depth[column] = np.float32(np.inf) if surface[column] < 0 else depth[column]


@njit(cache=True, nogil=True, error_model="numpy")
def _raise_hills(start, end, old, new, skyline, hill, line):  # noqa: ANN001, ANN202
    """Darken the sky where hills stand before it."""
    bend = new[4] - old[4]
    bend -= SKYLINE_SIZE * np.round(bend / SKYLINE_SIZE)
    for column in range(start, end):
        share = (column - start) / (end - start)
        up = old[3] + (new[3] - old[3]) * share
        if up < _HILLS and up < _height_of_hills(skyline, old[4] + bend * share):
            for channel in range(3):
                line[3 * column + channel] = 0.55 * line[3 * column + channel] + hill[channel]


@njit(cache=True, nogil=True, error_model="numpy")
def _height_of_hills(skyline, turn):  # noqa: ANN001, ANN202
    low = np.floor(turn)
    left, right = skyline[int(low) & (SKYLINE_SIZE - 1)], skyline[int(low + 1.0) & (SKYLINE_SIZE - 1)]
    return left + (right - left) * (turn - low)


@njit(cache=True, nogil=True, error_model="numpy")
def _copy_of_map(depth, focal, height, metres, levels):  # noqa: ANN001, ANN202
    """Return the number of the copy whose texels are as large as a pixel on the ground."""
    # A pixel is much longer along the view than across it; the geometric mean keeps lines both calm and sharp.
    footprint = depth / focal * np.sqrt(max(depth / height, 1.0)) / metres
    level = 0
    while footprint > 1.3 and level < levels - 1:
        footprint *= 0.5
        level += 1
    return level


@njit(cache=True, nogil=True, error_model="numpy")
def _meet_ground(start, count, stride, rays, row, eye, origin, depth, east, north):  # noqa: ANN001, ANN202
    """Write the depths (count,) at which every `stride`-th pixel meets the ground, and where, from the map's rim.

    What looks above the horizon gets a depth of 1e6 m or more.
    """
    x0, y0, z0 = _first_ray(rays, row)
    x0, y0 = np.float32(x0 + start * rays[0, 0]), np.float32(y0 + start * rays[1, 0])
    z0, dz = np.float32(z0 + start * rays[2, 0]), np.float32(stride * rays[2, 0])
    dx, dy = np.float32(stride * rays[0, 0]), np.float32(stride * rays[1, 0])
    height, flat = np.float32(eye[2]), np.float32(1e-6)
    from_x, from_y = np.float32(eye[0] - origin[0]), np.float32(eye[1] - origin[1])
    for index in range(count):
        step = np.float32(index)
        distance = height / max(-(z0 + step * dz), flat)
        depth[index] = distance
        east[index] = from_x + distance * (x0 + step * dx)
        north[index] = from_y + distance * (y0 + step * dy)


@njit(cache=True, nogil=True, error_model="numpy")
def _sample_ground(count, scale, offset, packed, place, east, north, albedo):  # noqa: ANN001, ANN202
    """Write 256 times the bilinear means (3, count) of packed RGB of one copy of the ground map."""
    first, rows, columns = np.int32(place[0]), np.int32(place[1]), np.int32(place[2])
    even, byte, low_half = np.uint32(0xFF00FF), np.uint32(0xFF), np.uint32(0xFFFF)
    scale, offset, least, fine = np.float32(scale), np.float32(offset), np.float32(0.0), np.float32(16.0)
    right_rim, low_rim = np.float32(columns - 1.001), np.float32(rows - 1.001)
    for index in range(count):
        x = min(max(east[index] * scale - offset, least), right_rim)
        y = min(max(north[index] * scale - offset, least), low_rim)
        column, row = np.int32(x), np.int32(y)
        right, low = np.uint32((x - np.float32(column)) * fine), np.uint32((y - np.float32(row)) * fine)
        # Unsigned, so that no index is looked at for being negative.
        here = np.uintp(np.uint32(first + row * columns + column))
        below = here + np.uintp(columns)
        one, two = packed[here], packed[here + np.uintp(1)]
        three, four = packed[below], packed[below + np.uintp(1)]
        d = np.uint32(right * low)
        b, c = np.uint32((right << 4) - d), np.uint32((low << 4) - d)
        a = np.uint32(256 - b - c - d)
        # Red and blue lie 16 bits apart, so one product serves both.
        both = np.uint32((one & even) * a + (two & even) * b + (three & even) * c + (four & even) * d)
        green = np.uint32(
            (one >> 8 & byte) * a + (two >> 8 & byte) * b + (three >> 8 & byte) * c + (four >> 8 & byte) * d
        )
        albedo[0, index] = np.float32(np.int32(both & low_half))
        albedo[1, index] = np.float32(np.int32(green))
        albedo[2, index] = np.float32(np.int32(both >> 16))


@njit(cache=True, nogil=True, error_model="numpy")
def _roughen(count, grain, depth, east, north, albedo):  # noqa: ANN001, ANN202
    """Multiply the albedo by the grain of the ground, which fades with the depth; grass is rougher than the road."""
    if min(depth[0], depth[count - 1]) > _GRAIN_REACH:
        return
    shift, coarse, fine = np.float32(4096.0), np.float32(7.0), np.float32(40.0)
    one, least, fall, far = np.float32(1.0), np.float32(0.0), np.float32(0.01), np.float32(1.0 / 22.0)
    share, grass, road, greener = np.float32(0.6), np.float32(0.45), np.float32(0.16), np.float32(1500.0)
    for index in range(count):
        distance = depth[index]
        x, y = east[index] + shift, north[index] + shift
        rough = _tile(grain, x * coarse, y * coarse) * max(share - distance * fall, least)
        rough += _tile(grain, x * fine, y * fine) * max(one - distance * far, least)
        factor = one + rough * (grass if albedo[1, index] > albedo[0, index] + greener else road)
        albedo[0, index] *= factor
        albedo[1, index] *= factor
        albedo[2, index] *= factor


@njit(cache=True, nogil=True, error_model="numpy")
def _tile(tile, x, y):  # noqa: ANN001, ANN202
    """Return the value of a periodic noise tile nearest to (x, y)."""
    return tile[np.uintp(np.int32(y) & _MASK), np.uintp(np.int32(x) & _MASK)]


@njit(cache=True, nogil=True, error_model="numpy")
def _ground_row(row, rays, eye, ground, haze, light, surface, shade, depths, line, scratch):  # noqa: ANN001, ANN202
    """Colour the ground of one row into `line` (3 W,), block by block; `scratch` is (4, _BLOCK) and (3, _BLOCK)."""
    packed, places, origin, grain, lit = ground
    _, _, z0 = _first_ray(rays, row)
    dz, width = rays[2, 0], len(surface)
    if eye[2] <= 0.0 or min(z0, z0 + width * dz) >= 0.0:
        return
    depth, east, north, clear, albedo = scratch[0][0], scratch[0][1], scratch[0][2], scratch[0][3], scratch[1]
    for start in range(0, width, _BLOCK):
        length = min(_BLOCK, width - start)
        anything = False
        for column in range(start, start + length):
            anything |= surface[column] < 0
        if not anything:
            continue
        farthest = eye[2] / max(-max(z0 + start * dz, z0 + (start + length) * dz), 1e-6)
        # Close by, a pixel is smaller than any grain: every other one will do.
        stride = 2 if farthest < _FINE * origin[3] else 1
        count = (length + stride - 1) // stride
        _meet_ground(start, count, stride, rays, row, eye, origin, depth, east, north)
        level = _copy_of_map(min(depth[0], depth[count - 1]), origin[3], eye[2], origin[2], len(places))
        place = (places[level, 0], places[level, 1], places[level, 2])
        size = 1 << level
        _sample_ground(count, 1.0 / (origin[2] * size), 0.5 - 0.5 / size, packed, place, east, north, albedo)
        _roughen(count, grain, depth, east, north, albedo)
        last = np.float32(HAZE_REACH * HAZE_STEPS_PER_METRE - 1)
        for index in range(count):
            clear[index] = haze[np.uintp(np.int32(min(depth[index] * np.float32(HAZE_STEPS_PER_METRE), last)))]
        if light[WEATHER, WETNESS] > 0.0:
            _mirror_sky(start, count, stride, rays, row, light[WEATHER, WETNESS], clear)
        far = (np.float32(light[HORIZON, 0]), np.float32(light[HORIZON, 1]), np.float32(light[HORIZON, 2]))
        _light_ground(start, length, stride, (z0, dz), eye[2], surface, shade, lit, far, clear, albedo, depths, line)


@njit(cache=True, nogil=True, error_model="numpy")
def _mirror_sky(start, count, stride, rays, row, wet, clear):  # noqa: ANN001, ANN202
    """Take from `clear` what wet ground shows of the horizon instead of itself: the more, the flatter the view."""
    x0, y0, z0 = _first_ray(rays, row)
    for index in range(count):
        column = float(start + stride * index)
        x, y, z = x0 + column * rays[0, 0], y0 + column * rays[1, 0], z0 + column * rays[2, 0]
        rest = 1.0 + min(z, 0.0) / np.sqrt(x * x + y * y + z * z)
        clear[index] *= 1.0 - wet * rest * rest * rest * rest * rest


@njit(cache=True, nogil=True, error_model="numpy")
def _light_ground(start, length, stride, slope, height, surface, shade, lit, far, clear, albedo, depths, line):  # noqa: ANN001, ANN202
    """Write depths of the ground where it is seen, and its colour wherever it is: what stands on it is coloured later.

    `lit` (256, 3) is the light by value of `shade`.
    """
    z0, dz = slope
    first, last = start, start + length
    while first < last and z0 + first * dz >= 0.0:
        first += 1
    while first < last and z0 + (last - 1) * dz >= 0.0:
        last -= 1
    z0, dz, height, shift = np.float32(z0 + first * dz), np.float32(dz), np.float32(height), stride - 1
    for index in range(last - first):
        column = first + index
        known = np.uintp(column - start >> shift)
        depth = height / -(z0 + np.float32(index) * dz)
        depths[column] = depth if surface[column] < 0 else depths[column]
        kind, share = np.uintp(shade[column]), clear[known]
        line[3 * column] = far[0] + (albedo[0, known] * lit[kind, 0] - far[0]) * share
        line[3 * column + 1] = far[1] + (albedo[1, known] * lit[kind, 1] - far[1]) * share
        line[3 * column + 2] = far[2] + (albedo[2, known] * lit[kind, 2] - far[2]) * share


@njit(cache=True, nogil=True, error_model="numpy")
def _texture(x, y, z, depth, material, clouds, grain):  # noqa: ANN001, ANN202
    """Return the factor by which the surface of scenery differs from its mean colour at a point in world."""
    near = max(1.0 - depth / 70.0, 0.0)
    if material == FOLIAGE:
        leaves = grain[int(np.floor((y + z) * 9.0)) & _MASK, int(np.floor((x - y + z) * 9.0)) & _MASK]
        return 1.0 + 0.55 * leaves * near + 0.5 * _smooth(clouds, (x + y) * 9.0, (x - y + 2.0 * z) * 9.0)
    bricks = grain[int(np.floor(z * 11.0)) & _MASK, int(np.floor((x + 2.3 * y) * 5.0)) & _MASK]
    return 1.0 + 0.14 * bricks * near + 0.12 * _smooth(clouds, (x + 1.7 * y) * 4.0, z * 4.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _surface_row(row, rays, eye, table, textures, haze, light, surface, depths, line):  # noqa: ANN001, ANN202
    """Colour the triangles of one row into `line` (3 W,), and name their owners."""
    colours, materials, slots, identities = table
    clouds, grain = textures
    far = light[HORIZON].astype(np.float32)
    x0, y0, z0 = _first_ray(rays, row)
    dx, dy, dz = rays[0, 0], rays[1, 0], rays[2, 0]
    down, drop, eye_height = np.float32(z0), np.float32(dz), np.float32(eye[2])
    one, least, low, more = np.float32(1.0), np.float32(0.0), np.float32(0.8), np.float32(0.2)
    scale, end = np.float32(HAZE_STEPS_PER_METRE), np.float32(HAZE_REACH * HAZE_STEPS_PER_METRE - 1)
    for column in range(len(surface)):
        index = surface[column]
        if index < 0:
            surface[column] = 0
            continue
        known = np.uintp(index)
        depth = one / depths[column]
        depths[column] = depth
        surface[column] = identities[np.uintp(slots[known])]
        above = eye_height + depth * (down + np.float32(column) * drop)
        factor = low + more * min(max(above, least), one)  # less light reaches what is close to the ground
        material = materials[known]
        if material >= MASONRY:
            x, y = eye[0] + depth * (x0 + column * dx), eye[1] + depth * (y0 + column * dy)
            factor *= np.float32(_texture(x, y, above, depth, material, clouds, grain))
        clear = haze[np.uintp(np.int32(min(depth * scale, end)))]
        line[3 * column] = far[0] + (colours[known, 0] * factor - far[0]) * clear
        line[3 * column + 1] = far[1] + (colours[known, 1] * factor - far[1]) * clear
        line[3 * column + 2] = far[2] + (colours[known, 2] * factor - far[2]) * clear


@njit(cache=True, nogil=True, error_model="numpy")
def colour_pixels(
    inverse_depth: NDArray,
    surface: NDArray,
    shade: NDArray,
    table: tuple,
    rays: NDArray,
    eye: NDArray,
    ground: tuple,
    air: tuple,
    light: NDArray,
    noise: NDArray,
    first_noise: NDArray,
    image: NDArray,
    counts: NDArray,
    boxes: NDArray,
) -> None:
    """Write `image`, turn `inverse_depth` into depth and `surface` into identities, and count what is seen.

    `table` is (colours (T, 3), materials (T,), slots (T,), identities by slot), `rays` (3, 3) maps (column, row, 1) to
    directions in world of depth 1, `ground` is (packed, places, (x, y, metres, focal length), grain, light by value of
    `shade` (256, 3)), `air` is (sky table, clouds, skyline, haze table). `counts` (S,) and `boxes` (S, 4), the first
    and last column and row, are filled in by slot.
    """
    height, width = surface.shape
    haze, textures = air[3], (air[1], ground[3])
    line = np.empty(3 * width, np.float32)
    scratch = (np.empty((4, _BLOCK), np.float32), np.empty((3, _BLOCK), np.float32))
    fall = light[WEATHER, VIGNETTE] / (0.25 * (width * width + height * height))
    bend = np.empty(3 * width, np.float32)
    for index in range(3 * width):
        bend[index] = fall * (index // 3 - 0.5 * width) ** 2
    for row in range(height):
        names, depths = surface[row], inverse_depth[row]
        _sky_row(row, rays, eye[2], air, light, names, depths, line)
        _ground_row(row, rays, eye, ground, haze, light, names, shade[row], depths, line, scratch)
        count_row(row, names, table[2], counts, boxes)
        _surface_row(row, rays, eye, table, textures, haze, light, names, depths, line)
        centre = np.float32(1.0 - fall * (row - 0.5 * height) ** 2)
        _finish(line, centre, bend, noise[first_noise[row] : first_noise[row] + 3 * width], image[row])


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(line, centre, bend, noise, pixels):  # noqa: ANN001, ANN202
    """Write one row of bytes, with vignette and noise."""
    pixels = pixels.reshape(-1)
    zero, most = np.float32(0.0), np.float32(255.0)
    for index in range(len(line)):
        value = line[index] * (centre - bend[index]) + noise[index]
        pixels[index] = np.uint8(np.int32(min(max(value, zero), most)))
