"""How large the things to detect are: the class statistics of nuScenes, and draws from them.

Source: means and standard deviations over all annotations of v1.0-trainval, as `NuScenes.list_categories()` of
nuscenes-devkit prints them (vehicle.bus.rigid stands for bus, human.pedestrian.adult for pedestrian).
"""

import numpy as np

Size = tuple[float, float, float]

# Detection class: (mean, standard deviation) of length, width and height in metres.
STATISTICS = {
    "car": ((4.62, 0.46), (1.95, 0.19), (1.73, 0.24)),
    "truck": ((6.93, 2.17), (2.51, 0.45), (2.84, 0.84)),
    "bus": ((11.23, 2.07), (2.93, 0.33), (3.47, 0.52)),
    "trailer": ((12.29, 4.52), (2.90, 0.53), (3.87, 0.75)),
    "construction_vehicle": ((6.37, 3.13), (2.85, 1.06), (3.19, 1.02)),
    "pedestrian": ((0.73, 0.19), (0.67, 0.13), (1.77, 0.18)),
    "motorcycle": ((2.11, 0.32), (0.77, 0.17), (1.47, 0.23)),
    "bicycle": ((1.70, 0.26), (0.60, 0.16), (1.28, 0.34)),
    "traffic_cone": ((0.41, 0.14), (0.41, 0.13), (1.07, 0.27)),
    "barrier": ((0.50, 0.17), (2.53, 0.64), (0.98, 0.15)),
}
CLASSES = tuple(STATISTICS)

# What fits into a lane of 3.5 m and looks like its class; the tails beyond are cut off.
_LIMITS = {
    "truck": ((5.0, 11.0), (2.0, 2.8), (2.0, 3.9)),
    "bus": ((8.0, 14.0), (2.5, 3.0), (2.8, 4.2)),
    "trailer": ((6.0, 14.0), (2.2, 2.9), (2.8, 4.2)),
    "construction_vehicle": ((4.2, 9.5), (2.0, 3.0), (2.3, 4.4)),
    "pedestrian": ((0.45, 1.1), (0.45, 0.95), (1.35, 2.05)),
    "traffic_cone": ((0.25, 0.7), (0.25, 0.7), (0.6, 1.5)),
    "barrier": ((0.25, 0.8), (1.4, 3.6), (0.75, 1.3)),
}
_MOST = 1.6  # standard deviations from the mean, elsewhere
# The statistics mix cycles with and without rider; a rider puts the box into the upper part of the spread.
_HEIGHT_WITH_RIDER = {"bicycle": (1.65, 0.10), "motorcycle": (1.62, 0.10)}
_HEIGHT_WITHOUT_RIDER = {"bicycle": (1.08, 0.08), "motorcycle": (1.27, 0.10)}


def draw_size(rng: np.random.Generator, kind: str, with_rider: bool = False) -> Size:
    """Return a length, width and height in metres for a thing of class `kind`."""
    rows = list(STATISTICS[kind])
    if kind in _HEIGHT_WITH_RIDER:
        rows[2] = (_HEIGHT_WITH_RIDER if with_rider else _HEIGHT_WITHOUT_RIDER)[kind]
    limits = _LIMITS.get(kind) or [(mean - _MOST * spread, mean + _MOST * spread) for mean, spread in rows]
    # Length, width and height of one thing go together: large ones are large all round.
    common = rng.standard_normal()
    draws = 0.75 * common + 0.66 * rng.standard_normal(3)
    length, width, height = (
        float(np.clip(mean + spread * draw, low, high))
        for (mean, spread), draw, (low, high) in zip(rows, draws, limits, strict=True)
    )
    if kind == "traffic_cone":
        width = length
    return (length, width, height)
