"""The compiled second half of a picture: light on triangles, then the colour of every pixel, row by row.

Strict IEEE arithmetic on one thread, as in `kernels`. Colours are RGB from 0 to 255, as the eye sees them.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.synth.raster.ground import NOISE_SIZE
from training.synth.raster.kernels import OCCLUSION_MASK, SUN_SHADOW
from training.synth.raster.light import HAZE_REACH, HAZE_STEPS_PER_METRE
from training.synth.raster.mesh import FOLIAGE, GLASS, LAMP, MASONRY, PAINT

# Rows of the array (7, 3) that carries the light into the kernels.
SUN, SKY, BOUNCE, HORIZON, ZENITH, CLOUD, WEATHER = range(7)
# Columns of the row WEATHER.
CLOUDS, WETNESS, VIGNETTE = range(3)
SKYLINE_SIZE = 1024
_MASK = NOISE_SIZE - 1
_BLOCK = 8  # pixels in a row that share one copy of the ground map
_SKY_STEP = 4  # pixels from one computed colour of the sky to the next
_HILLS = 0.06  # sine of the greatest height of the hills


@njit(cache=True, nogil=True, error_model="numpy")
def shade_triangles(
    vertices: NDArray, triangles: NDArray, normals: NDArray, colours: NDArray, materials: NDArray, eye: NDArray,
    sun: NDArray, up: NDArray, light: NDArray, shaded: NDArray,
) -> None:
    """Write the colours (T, 3) of lit triangles to `shaded`; `eye`, `sun` and `up` (3,) are in body."""
    for index in range(len(triangles)):
        normal, origin, material = normals[index], vertices[triangles[index, 0]], materials[index]
        to_sun, upwards, cosine, distance, sun_up, eye_up, eye_sun = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for axis in range(3):
            ray = eye[axis] - origin[axis]
            to_sun += normal[axis] * sun[axis]
            upwards += normal[axis] * up[axis]
            cosine += normal[axis] * ray
            distance += ray * ray
            eye_up += ray * up[axis]
            eye_sun += ray * sun[axis]
            sun_up += sun[axis] * up[axis]
        if cosine <= 0.0:
            continue
        distance = np.sqrt(distance)
        cosine, eye_up, eye_sun = cosine / distance, eye_up / distance, eye_sun / distance
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
def _sample_ground(x, y, packed, start, height, width):  # noqa: ANN001, ANN202
    """Return 256 times the bilinear mean of packed RGB at column x and row y of one copy of the ground map."""
    x, y = min(max(x, 0.0), width - 1.001), min(max(y, 0.0), height - 1.001)
    column, row = int(x), int(y)
    right, low = int((x - column) * 16.0), int((y - row) * 16.0)
    here = start + row * width + column
    one, two = np.int64(packed[here]), np.int64(packed[here + 1])
    three, four = np.int64(packed[here + width]), np.int64(packed[here + width + 1])
    a, b, c, d = (16 - right) * (16 - low), right * (16 - low), (16 - right) * low, right * low
    # Red and blue lie 16 bits apart, so one product serves both.
    both = (one & 0xFF00FF) * a + (two & 0xFF00FF) * b + (three & 0xFF00FF) * c + (four & 0xFF00FF) * d
    green = (one >> 8 & 255) * a + (two >> 8 & 255) * b + (three >> 8 & 255) * c + (four >> 8 & 255) * d
    return both & 0xFFFF, green, both >> 16


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
def _sky(x, y, up, sky, clouds, skyline, light):  # noqa: ANN001, ANN202
    """Return the colour of the sky, or of the hills at the horizon, in the direction of a unit vector."""
    level = min(max(up, 0.0) * 255.0, 254.999)
    index = int(level)
    share = level - index
    far = 40.0 / (abs(up) + 0.12)
    cover = light[WEATHER, CLOUDS]
    cloud = min(max(_smooth(clouds, x * far, y * far) * 1.6 + 2.0 * cover - 0.9, 0.0), 1.0)
    cloud *= 0.75 * min(1.0, up * 6.0 + 0.25)
    red = sky[index, 0] + (sky[index + 1, 0] - sky[index, 0]) * share
    green = sky[index, 1] + (sky[index + 1, 1] - sky[index, 1]) * share
    blue = sky[index, 2] + (sky[index + 1, 2] - sky[index, 2]) * share
    red += cloud * (light[CLOUD, 0] - red)
    green += cloud * (light[CLOUD, 1] - green)
    blue += cloud * (light[CLOUD, 2] - blue)
    if up < _HILLS:
        turn = (np.arctan2(y, x) / (2.0 * np.pi) + 0.5) * SKYLINE_SIZE
        if up < skyline[int(turn) & (SKYLINE_SIZE - 1)]:
            red += 0.45 * (28.0 * (light[SUN, 0] + light[SKY, 0]) - red)
            green += 0.45 * (35.0 * (light[SUN, 1] + light[SKY, 1]) - green)
            blue += 0.45 * (31.0 * (light[SUN, 2] + light[SKY, 2]) - blue)
    return red, green, blue


@njit(cache=True, nogil=True, error_model="numpy")
def _first_ray(rays, row):  # noqa: ANN001, ANN202
    """Return the direction in world of the leftmost pixel of a row."""
    return (
        rays[0, 1] * row + rays[0, 2],
        rays[1, 1] * row + rays[1, 2],
        rays[2, 1] * row + rays[2, 2],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _sky_row(row, rays, eye_height, air, light, surface, depth, line):  # noqa: ANN001, ANN202
    """Colour the sky of one row into `line` (W, 3); `surface` (W,) tells where something stands before it."""
    sky, clouds, skyline, _ = air
    width = len(surface)
    x0, y0, z0 = _first_ray(rays, row)
    dx, dy, dz = rays[0, 0], rays[1, 0], rays[2, 0]
    lowest, highest = min(z0, z0 + width * dz), max(z0, z0 + width * dz)
    if highest < 0.0 and eye_height > 0.0:
        return
    step = 1 if lowest < 2.0 * _HILLS else _SKY_STEP
    known, red, green, blue = -1, 0.0, 0.0, 0.0
    for start in range(0, width, step):
        end = min(start + step, width)
        anything = False
        for column in range(start, end):
            anything |= surface[column] < 0 and (z0 + column * dz >= 0.0 or eye_height <= 0.0)
        if not anything:
            continue
        if known != start:
            x, y, z = x0 + start * dx, y0 + start * dy, z0 + start * dz
            scale = 1.0 / np.sqrt(x * x + y * y + z * z)
            red, green, blue = _sky(x * scale, y * scale, z * scale, sky, clouds, skyline, light)
        if step == 1:
            line[start, 0], line[start, 1], line[start, 2] = red, green, blue
            depth[start] = np.inf
            continue
        x, y, z = x0 + end * dx, y0 + end * dy, z0 + end * dz
        scale = 1.0 / np.sqrt(x * x + y * y + z * z)
        next_red, next_green, next_blue = _sky(x * scale, y * scale, z * scale, sky, clouds, skyline, light)
        for column in range(start, end):
            if surface[column] < 0:
                share = (column - start) / step
                line[column, 0] = red + (next_red - red) * share
                line[column, 1] = green + (next_green - green) * share
                line[column, 2] = blue + (next_blue - blue) * share
                depth[column] = np.inf
        known, red, green, blue = end, next_red, next_green, next_blue


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
def _ground_row(row, rays, eye, ground, haze, light, surface, shade, depths, line):  # noqa: ANN001, ANN202
    """Colour the ground of one row into `line` (W, 3)."""
    packed, places, origin, grain = ground
    if eye[2] <= 0.0:
        return
    eye_x, eye_y, height = eye[0], eye[1], eye[2]
    left, low, metres, focal = origin[0], origin[1], origin[2], origin[4]
    x0, y0, z0 = _first_ray(rays, row)
    dx, dy, dz = rays[0, 0], rays[1, 0], rays[2, 0]
    far_red, far_green, far_blue = light[HORIZON, 0], light[HORIZON, 1], light[HORIZON, 2]
    sky_red, sky_green, sky_blue = light[SKY, 0], light[SKY, 1], light[SKY, 2]
    sun_red, sun_green, sun_blue = light[SUN, 0] * origin[3], light[SUN, 1] * origin[3], light[SUN, 2] * origin[3]
    wet, dark = light[WEATHER, WETNESS], 1.0 - 0.3 * light[WEATHER, WETNESS]
    start, rows, columns, inverse, offset, until = 0, 0, 0, 1.0, 0.0, 0
    for column in range(len(surface)):
        z = z0 + column * dz
        if surface[column] >= 0 or z >= 0.0:
            continue
        depth = -height / z
        ray_x, ray_y = x0 + column * dx, y0 + column * dy
        x, y = eye_x + depth * ray_x, eye_y + depth * ray_y
        if column >= until:
            level = _copy_of_map(depth, focal, height, metres, len(places))
            start, rows, columns = places[level, 0], places[level, 1], places[level, 2]
            inverse = 1.0 / (metres * (1 << level))
            offset = 0.5 - 0.5 / (1 << level)
            until = column + _BLOCK
        red, green, blue = _sample_ground(
            (x - left) * inverse - offset, (y - low) * inverse - offset, packed, start, rows, columns
        )
        strength = 0.45 / 256 if green > red + 1500 else 0.16 / 256
        factor = 1.0 / 256
        if depth < 60.0:
            rough = 0.6 * grain[int(np.floor(y * 7.0)) & _MASK, int(np.floor(x * 7.0)) & _MASK] * (1.0 - depth / 60.0)
            if depth < 22.0:
                fine = grain[int(np.floor(y * 40.0)) & _MASK, int(np.floor(x * 40.0)) & _MASK]
                rough += fine * (1.0 - depth / 22.0)
            factor += rough * strength
        open_sky = (127 - (shade[column] & OCCLUSION_MASK)) * (1.0 / 127.0)
        sun = open_sky if shade[column] < SUN_SHADOW else 0.0
        factor *= dark
        shown_red = red * factor * (sun_red * sun + sky_red * open_sky)
        shown_green = green * factor * (sun_green * sun + sky_green * open_sky)
        shown_blue = blue * factor * (sun_blue * sun + sky_blue * open_sky)
        clear = haze[min(int(depth * HAZE_STEPS_PER_METRE), HAZE_REACH * HAZE_STEPS_PER_METRE - 1)]
        if wet > 0.0:
            # Wet ground mirrors the sky at the horizon, the more the flatter the view.
            rest = 1.0 + z / np.sqrt(ray_x * ray_x + ray_y * ray_y + z * z)
            clear *= 1.0 - wet * rest * rest * rest * rest * rest * open_sky
        line[column, 0] = far_red + (shown_red - far_red) * clear
        line[column, 1] = far_green + (shown_green - far_green) * clear
        line[column, 2] = far_blue + (shown_blue - far_blue) * clear
        depths[column] = depth


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
def _surface_row(row, rays, eye, table, textures, haze, light, surface, depths, line, counts, boxes):  # noqa: ANN001, ANN202
    """Colour the triangles of one row into `line` (W, 3), name their owners and count what is seen of them."""
    colours, materials, slots, identities = table
    clouds, grain = textures
    far_red, far_green, far_blue = light[HORIZON, 0], light[HORIZON, 1], light[HORIZON, 2]
    x0, y0, z0 = _first_ray(rays, row)
    last, ident = -1, 0
    for column in range(len(surface)):
        index = surface[column]
        if index < 0:
            surface[column] = 0
            last = -1
            continue
        depth = 1.0 / depths[column]
        depths[column] = depth
        slot = slots[index]
        if slot != last:
            ident = identities[slot]
            boxes[slot, 0], boxes[slot, 1] = min(boxes[slot, 0], column), min(boxes[slot, 1], row)
            boxes[slot, 3] = max(boxes[slot, 3], row)
            last = slot
        boxes[slot, 2] = max(boxes[slot, 2], column)
        counts[slot] += 1
        surface[column] = ident
        above = eye[2] + depth * (z0 + column * rays[2, 0])
        factor = 0.8 + 0.2 * min(max(above, 0.0), 1.0)  # less light reaches what is close to the ground
        material = materials[index]
        if material >= MASONRY:
            x, y = eye[0] + depth * (x0 + column * rays[0, 0]), eye[1] + depth * (y0 + column * rays[1, 0])
            factor *= _texture(x, y, above, depth, material, clouds, grain)
        clear = haze[min(int(depth * HAZE_STEPS_PER_METRE), HAZE_REACH * HAZE_STEPS_PER_METRE - 1)]
        line[column, 0] = far_red + (colours[index, 0] * factor - far_red) * clear
        line[column, 1] = far_green + (colours[index, 1] * factor - far_green) * clear
        line[column, 2] = far_blue + (colours[index, 2] * factor - far_blue) * clear


@njit(cache=True, nogil=True, error_model="numpy")
def colour_pixels(
    inverse_depth: NDArray, surface: NDArray, shade: NDArray, table: tuple, rays: NDArray, eye: NDArray,
    ground: tuple, air: tuple, light: NDArray, noise: NDArray, first_noise: NDArray, image: NDArray,
    counts: NDArray, boxes: NDArray,
) -> None:
    """Write `image`, turn `inverse_depth` into depth and `surface` into identities, and count what is seen.

    `table` is (colours (T, 3), materials (T,), slots (T,), identities by slot), `rays` (3, 3) maps (column, row, 1) to
    directions in world of depth 1, `ground` is (packed, places, (x, y, metres, sine of the sun's height, focal length),
    grain), `air` is (sky table, clouds, skyline, haze table). `counts` (S,) and `boxes` (S, 4) of first and last
    column and row of each slot are filled in.
    """
    height, width = surface.shape
    haze, textures = air[3], (air[1], ground[3])
    line = np.empty((width, 3), np.float32)
    fall = np.float32(light[WEATHER, VIGNETTE] / (0.25 * (width * width + height * height)))
    bend = np.empty(width, np.float32)
    for column in range(width):
        bend[column] = fall * (column - 0.5 * width) ** 2
    for row in range(height):
        names, depths = surface[row], inverse_depth[row]
        _sky_row(row, rays, eye[2], air, light, names, depths, line)
        _ground_row(row, rays, eye, ground, haze, light, names, shade[row], depths, line)
        _surface_row(row, rays, eye, table, textures, haze, light, names, depths, line, counts, boxes)
        start, rest = first_noise[row], np.float32(1.0 - fall * (row - 0.5 * height) ** 2)
        for column in range(width):
            factor = rest - bend[column]
            for channel in range(3):
                value = line[column, channel] * factor + noise[start + 3 * column + channel]
                image[row, column, channel] = np.uint8(min(max(value, np.float32(0.0)), np.float32(255.0)))
