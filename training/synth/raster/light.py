"""Sun, sky, weather and the camera's own weaknesses of one scene."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
WEATHERS = ("day", "overcast", "dusk", "rain", "night")
_WEATHER_SHARES = (0.5, 0.2, 0.15, 0.15, 0.0)
HAZE_STEPS_PER_METRE, HAZE_REACH = 4, 500  # entries per metre of depth, and metres
NOISE_STARTS = 1 << 15


@dataclass(frozen=True)
class Air:
    """What is between and behind the things: colours from 0 to 255, `haze_density` per metre, `clouds` from 0 to 1."""

    horizon: Colour = (206.0, 216.0, 226.0)
    zenith: Colour = (96.0, 146.0, 206.0)
    cloud: Colour = (236.0, 238.0, 240.0)
    haze_density: float = 0.004
    clouds: float = 0.4
    wetness: float = 0.0


@dataclass(frozen=True)
class Light:
    """`sun_direction` (3,) points from the ground to the sun, in world; `sun` and `sky` (3,) multiply the albedo.

    `tint` (3,) multiplies the finished picture, `noise` is the spread of the sensor's noise and `vignette` the loss in
    the corners. Equal lights and equal poses give equal noise.
    """

    sun_direction: tuple[float, float, float] = (0.45, 0.33, 0.83)
    sun: Colour = (0.88, 0.83, 0.74)
    sky: Colour = (0.51, 0.54, 0.60)
    air: Air = Air()
    tint: Colour = (1.0, 1.0, 1.0)
    noise: float = 2.0
    vignette: float = 0.12
    noise_seed: int = 0

    @staticmethod
    def sample(rng: np.random.Generator, weather: str | None = None) -> "Light":
        """Return a random light; `weather` is one of WEATHERS, or None for any but night."""
        weather = weather or str(rng.choice(WEATHERS, p=_WEATHER_SHARES))
        azimuth, high = rng.uniform(0, 2 * np.pi), _ELEVATIONS[weather]
        elevation = np.deg2rad(rng.uniform(*high))
        towards = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation))
        sun, sky, horizon, zenith, cloud, densities, clouds, wetness = _LOOKS[weather]
        strength = rng.uniform(0.9, 1.1)
        air = Air(
            _varied(rng, horizon, 0.03),
            _varied(rng, zenith, 0.05),
            _varied(rng, cloud, 0.02),
            rng.uniform(*densities),
            rng.uniform(*clouds),
            wetness,
        )
        return Light(
            tuple(float(value) for value in towards),
            _varied(rng, sun, 0.03, strength),
            _varied(rng, sky, 0.03, strength),
            air,
            _varied(rng, (1.0, 1.0, 1.0), 0.025),
            rng.uniform(1.0, 3.0),
            rng.uniform(0.05, 0.2),
            int(rng.integers(2**31)),
        )


_ELEVATIONS = {"day": (28, 65), "overcast": (35, 65), "dusk": (10, 18), "rain": (35, 65), "night": (35, 60)}
# sun, sky, horizon, zenith, cloud, haze per metre, share of clouds, wetness
_LOOKS = {
    "day": (
        (0.88, 0.83, 0.74),
        (0.50, 0.53, 0.59),
        (204, 215, 228),
        (88, 138, 204),
        (236, 238, 240),
        (0.002, 0.005),
        (0.1, 0.6),
        0.0,
    ),
    "overcast": (
        (0.18, 0.18, 0.18),
        (0.86, 0.88, 0.91),
        (206, 209, 213),
        (176, 182, 190),
        (212, 215, 219),
        (0.003, 0.008),
        (0.6, 1.0),
        0.0,
    ),
    "dusk": (
        (0.80, 0.56, 0.34),
        (0.36, 0.38, 0.46),
        (236, 190, 146),
        (92, 116, 168),
        (214, 170, 150),
        (0.003, 0.007),
        (0.2, 0.7),
        0.0,
    ),
    "rain": (
        (0.05, 0.05, 0.05),
        (0.62, 0.65, 0.69),
        (172, 178, 185),
        (138, 145, 154),
        (158, 164, 172),
        (0.008, 0.016),
        (0.8, 1.0),
        0.6,
    ),
    "night": (
        (0.05, 0.06, 0.09),
        (0.20, 0.20, 0.24),
        (38, 40, 52),
        (14, 16, 28),
        (36, 38, 48),
        (0.003, 0.006),
        (0.2, 0.6),
        0.1,
    ),
}


def _varied(rng: np.random.Generator, colour: Colour, spread: float, factor: float = 1.0) -> Colour:
    values = np.asarray(colour) * factor * rng.uniform(1 - spread, 1 + spread, 3)
    return tuple(float(value) for value in values)


@lru_cache(maxsize=16)
def haze_table(density: float) -> NDArray[np.float32]:
    """Return how much of the contrast is left, for depths from 0 in steps of 1 / HAZE_STEPS_PER_METRE metres."""
    depths = np.arange(HAZE_REACH * HAZE_STEPS_PER_METRE) / HAZE_STEPS_PER_METRE
    return np.exp(-density * depths).astype(np.float32)


@lru_cache(maxsize=16)
def sky_table(air: Air) -> NDArray[np.float32]:
    """Return the colour (256, 3) of the clear sky for sines of the elevation from 0 to 1."""
    share = np.linspace(0, 1, 256)[:, None] ** 0.55
    return ((1 - share) * np.array(air.horizon) + share * np.array(air.zenith)).astype(np.float32)


@lru_cache(maxsize=64)
def sensor_noise(spread: float, row_length: int) -> NDArray[np.float32]:
    """Return values to add to the picture, in grey levels; a row takes `row_length` of them, from a random start.

    Their mean is a half, which makes cutting off the fraction a rounding.
    """
    values = np.random.default_rng(5).standard_normal(NOISE_STARTS + row_length) * spread + 0.5
    return values.astype(np.float32)
