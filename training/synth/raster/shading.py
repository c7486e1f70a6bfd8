"""The compiled second half of a picture: light on triangles, then the colour of every pixel.

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
SUN, SKY, BOUNCE, HORIZON, ZENITH, TINT, WEATHER = range(7)
# Columns of the row WEATHER.
CLOUDS, WETNESS, VIGNETTE = range(3)
SKYLINE_SIZE = 1024
_MASK = NOISE_SIZE - 1
_BLOCK = 8  # pixels in a row that share one copy of the ground map


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
    """Return the bilinear mean of packed RGB at column x and row y of one copy of the ground map."""
    x, y = min(max(x, 0.0), width - 1.001), min(max(y, 0.0), height - 1.001)
    column, row = int(x), int(y)
    x, y = x - column, y - row
    here = start + row * width + column
    one, two, three, four = packed[here], packed[here + 1], packed[here + width], packed[here + width + 1]
    a, b, c, d = (1.0 - x) * (1.0 - y), x * (1.0 - y), (1.0 - x) * y, x * y
    red = (one & 255) * a + (two & 255) * b + (three & 255) * c + (four & 255) * d
    green = (one >> 8 & 255) * a + (two >> 8 & 255) * b + (three >> 8 & 255) * c + (four >> 8 & 255) * d
    blue = (one >> 16) * a + (two >> 16) * b + (three >> 16) * c + (four >> 16) * d
    return red, green, blue


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
def _ground(x, y, depth, cosine, shade, place, origin, packed, grain, light):  # noqa: ANN001, ANN202
    """Return the lit colour of the ground at (x, y) in world; `place` is the copy of the map to take."""
    scale = origin[2] * (1 << place[3])
    offset = 0.5 - 0.5 / (1 << place[3])
    red, green, blue = _sample_ground(
        (x - origin[0]) / scale - offset, (y - origin[1]) / scale - offset, packed, place[0], place[1], place[2]
    )
    rough = grain[int(np.floor(y * 40.0)) & _MASK, int(np.floor(x * 40.0)) & _MASK] * max(1.0 - depth / 22.0, 0.0)
    rough += 0.6 * grain[int(np.floor(y * 7.0)) & _MASK, int(np.floor(x * 7.0)) & _MASK] * max(1.0 - depth / 60.0, 0.0)
    factor = 1.0 + rough * (0.45 if green > red + 6.0 else 0.16)
    open_sky = (127 - (shade & OCCLUSION_MASK)) / 127.0
    sun = open_sky if shade < SUN_SHADOW else 0.0
    wet = light[WEATHER, WETNESS]
    mirror = 0.0
    if wet > 0.0:
        factor *= 1.0 - 0.3 * wet
        mirror = wet * (1.0 - cosine) ** 5 * open_sky
    red *= factor * (light[SUN, 0] * origin[3] * sun + light[SKY, 0] * open_sky)
    green *= factor * (light[SUN, 1] * origin[3] * sun + light[SKY, 1] * open_sky)
    blue *= factor * (light[SUN, 2] * origin[3] * sun + light[SKY, 2] * open_sky)
    return (
        red + mirror * (light[HORIZON, 0] - red),
        green + mirror * (light[HORIZON, 1] - green),
        blue + mirror * (light[HORIZON, 2] - blue),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _sky(x, y, up, sky, clouds, skyline, light):  # noqa: ANN001, ANN202
    """Return the colour of the sky, or of the hills at the horizon, in the direction of a unit vector."""
    level = min(max(up, 0.0) * 255.0, 254.999)
    index = int(level)
    share = level - index
    red = sky[index, 0] + (sky[index + 1, 0] - sky[index, 0]) * share
    green = sky[index, 1] + (sky[index + 1, 1] - sky[index, 1]) * share
    blue = sky[index, 2] + (sky[index + 1, 2] - sky[index, 2]) * share
    far = 40.0 / (abs(up) + 0.12)
    cover = light[WEATHER, CLOUDS]
    cloud = min(max(_smooth(clouds, x * far, y * far) * 1.6 + 2.0 * cover - 0.9, 0.0), 1.0) * min(1.0, up * 6.0 + 0.25)
    bright = 0.35 * (light[SUN, 0] + light[SKY, 0]) + 0.62
    cloud *= 0.75
    white = 235.0 * min(bright, 1.05) if light[HORIZON, 0] > 100.0 else 40.0
    if cover > 0.75:
        white = min(white, light[HORIZON, 2])
    red, green, blue = red + cloud * (white - red), green + cloud * (white - green), blue + cloud * (white - blue)
    if up < 0.06:
        turn = (np.arctan2(y, x) / (2.0 * np.pi) + 0.5) * SKYLINE_SIZE
        if up < skyline[int(turn) & (SKYLINE_SIZE - 1)]:
            lit = 0.4 * (light[SUN, 1] + light[SKY, 1])
            red += 0.45 * (70.0 * lit - red)
            green += 0.45 * (86.0 * lit - green)
            blue += 0.45 * (78.0 * lit - blue)
    return red, green, blue


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
def _copy_of_map(depth, focal, height, metres, places):  # noqa: ANN001, ANN202
    """Return (start, height, width, level) of the copy whose texels are as large as a pixel on the ground."""
    # A pixel is much longer along the view than across it; the geometric mean keeps lines both calm and sharp.
    footprint = depth / focal * np.sqrt(max(depth / height, 1.0)) / metres
    level = 0
    while footprint > 1.3 and level < len(places) - 1:
        footprint *= 0.5
        level += 1
    return places[level, 0], places[level, 1], places[level, 2], level


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
    colours, materials, slots, identities = table
    packed, places, origin, grain = ground
    sky, clouds, skyline, haze = air
    height, width = surface.shape
    vignette = light[WEATHER, VIGNETTE] / (0.25 * (width * width + height * height))
    for row in range(height):
        place = (0, 0, 0, 0)
        place_until = 0
        dy = row - 0.5 * height
        for column in range(width):
            x = rays[0, 0] * column + rays[0, 1] * row + rays[0, 2]
            y = rays[1, 0] * column + rays[1, 1] * row + rays[1, 2]
            z = rays[2, 0] * column + rays[2, 1] * row + rays[2, 2]
            index = surface[row, column]
            if index < 0 and z >= 0.0 or eye[2] <= 0.0 and index < 0:
                scale = 1.0 / np.sqrt(x * x + y * y + z * z)
                red, green, blue = _sky(x * scale, y * scale, z * scale, sky, clouds, skyline, light)
                inverse_depth[row, column] = np.inf
                surface[row, column] = 0
            else:
                if index < 0:
                    depth = -eye[2] / z
                    if column >= place_until:
                        place = _copy_of_map(depth, origin[4], eye[2], origin[2], places)
                        place_until = column + _BLOCK
                    cosine = -z / np.sqrt(x * x + y * y + z * z)
                    red, green, blue = _ground(
                        eye[0] + depth * x, eye[1] + depth * y, depth, cosine, shade[row, column], place, origin,
                        packed, grain, light,
                    )
                    surface[row, column] = 0
                else:
                    depth = 1.0 / inverse_depth[row, column]
                    slot = slots[index]
                    red, green, blue = colours[index, 0], colours[index, 1], colours[index, 2]
                    # Less light reaches what is close to the ground.
                    above = eye[2] + depth * z
                    factor = 0.8 + 0.2 * min(max(above, 0.0), 1.0)
                    if materials[index] >= MASONRY:
                        factor *= _texture(
                            eye[0] + depth * x, eye[1] + depth * y, above, depth, materials[index], clouds, grain
                        )
                    red, green, blue = red * factor, green * factor, blue * factor
                    surface[row, column] = identities[slot]
                    counts[slot] += 1
                    boxes[slot, 0] = min(boxes[slot, 0], column)
                    boxes[slot, 1] = min(boxes[slot, 1], row)
                    boxes[slot, 2] = max(boxes[slot, 2], column)
                    boxes[slot, 3] = max(boxes[slot, 3], row)
                inverse_depth[row, column] = depth
                clear = haze[min(int(depth * HAZE_STEPS_PER_METRE), HAZE_REACH * HAZE_STEPS_PER_METRE - 1)]
                red = light[HORIZON, 0] + (red - light[HORIZON, 0]) * clear
                green = light[HORIZON, 1] + (green - light[HORIZON, 1]) * clear
                blue = light[HORIZON, 2] + (blue - light[HORIZON, 2]) * clear
            dx = column - 0.5 * width
            factor = 1.0 - vignette * (dx * dx + dy * dy)
            grit = first_noise[row] + 3 * column
            image[row, column, 0] = _byte(red * light[TINT, 0] * factor + noise[grit & 0xFFFF])
            image[row, column, 1] = _byte(green * light[TINT, 1] * factor + noise[grit + 1 & 0xFFFF])
            image[row, column, 2] = _byte(blue * light[TINT, 2] * factor + noise[grit + 2 & 0xFFFF])


@njit(cache=True, nogil=True, error_model="numpy")
def _byte(value):  # noqa: ANN001, ANN202
    return np.uint8(min(max(value + 0.5, 0.0), 255.0))
