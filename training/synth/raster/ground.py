"""The picture of the flat ground of a scene, with smaller copies of itself for what is far away."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

NOISE_SIZE = 256
_COARSEST = 8  # texels on the shorter side of the smallest copy


@dataclass(frozen=True)
class GroundMap:
    """Albedo of the plane z = 0 in world.

    `image` (H, W, 3) uint8 RGB; the centre of pixel (row 0, column 0) is at `origin` (x, y), columns run along x and
    rows along y, both upwards in metres. Beyond its rim the outermost pixels go on for ever. `texture_seed` chooses
    the fine grain, so training and validation can have different ones.
    """

    image: NDArray[np.uint8]
    metres_per_pixel: float
    origin: tuple[float, float]
    texture_seed: int = 0

    @cached_property
    def mips(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """All copies in one array of packed RGB, and their (start, height, width), (L, 3), each half the one before."""
        packed, places, start, image = [], [], 0, self.image
        while True:
            # Red becomes the lowest byte whatever the machine; the fourth byte is not looked at.
            packed.append(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).reshape(-1, 4).view("<u4")[:, 0].astype(np.uint32))
            places.append((start, *image.shape[:2]))
            start += packed[-1].size
            height, width = image.shape[0] // 2, image.shape[1] // 2
            if min(height, width) < _COARSEST:
                return np.concatenate(packed), np.array(places, dtype=np.int64)
            image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)

    @property
    def grain(self) -> NDArray[np.float32]:
        """Fine periodic noise, see `noise_tile`."""
        return noise_tile(self.texture_seed, 0.0)


@lru_cache(maxsize=16)
def noise_tile(seed: int, smoothness: float) -> NDArray[np.float32]:
    """Return periodic noise (256, 256) from -1 to 1 of spread about 0.35.

    `smoothness` is the exponent with which the amplitude falls with the frequency: 0 is white, 2 is clouds.
    """
    rng = np.random.default_rng([seed, 77])
    spectrum = np.fft.rfft2(rng.standard_normal((NOISE_SIZE, NOISE_SIZE)))
    frequency = np.hypot(np.fft.fftfreq(NOISE_SIZE)[:, None], np.fft.rfftfreq(NOISE_SIZE)) * NOISE_SIZE
    spectrum *= np.maximum(frequency, 1.0) ** -smoothness
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(NOISE_SIZE, NOISE_SIZE))
    # Steps of 1/64 swallow the last bits, in which two builds of the transform may differ.
    return (np.round(np.clip(noise / noise.std() * 0.35, -1, 1) * 64) / 64).astype(np.float32)
