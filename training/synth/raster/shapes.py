"""Meshes of all things, by name: the ten detection classes, and the scenery."""

from functools import lru_cache

import numpy as np

from streampetr_core.errors import StreampetrError
from training.synth.raster.cars import CAR_VARIANTS, car
from training.synth.raster.cycles import BICYCLE_VARIANTS, MOTORCYCLE_VARIANTS, bicycle, motorcycle
from training.synth.raster.heavy import BUS_VARIANTS, TRAILER_VARIANTS, TRUCK_VARIANTS, bus, trailer, truck
from training.synth.raster.mesh import Mesh, fit
from training.synth.raster.palette import PALETTES
from training.synth.raster.people import PEDESTRIAN_VARIANTS, pedestrian
from training.synth.raster.structures import STRUCTURES
from training.synth.raster.works import BARRIER_VARIANTS, CONE_VARIANTS, MACHINE_VARIANTS, barrier, cone, machine

FAMILIES = tuple(PALETTES)
VARIANTS = {
    "car": CAR_VARIANTS,
    "truck": TRUCK_VARIANTS,
    "bus": BUS_VARIANTS,
    "trailer": TRAILER_VARIANTS,
    "construction_vehicle": MACHINE_VARIANTS,
    "pedestrian": PEDESTRIAN_VARIANTS,
    "motorcycle": MOTORCYCLE_VARIANTS,
    "bicycle": BICYCLE_VARIANTS,
    "traffic_cone": CONE_VARIANTS,
    "barrier": BARRIER_VARIANTS,
}
# Mean length, width, height in m of the classes in nuScenes, as published with many detectors.
TYPICAL_SIZES = {
    "car": (4.63, 1.97, 1.74),
    "truck": (6.93, 2.51, 2.84),
    "bus": (10.5, 2.94, 3.47),
    "trailer": (12.29, 2.90, 3.87),
    "construction_vehicle": (6.37, 2.85, 3.19),
    "pedestrian": (0.73, 0.67, 1.77),
    "motorcycle": (2.11, 0.77, 1.47),
    "bicycle": (1.70, 0.60, 1.28),
    "traffic_cone": (0.41, 0.41, 1.07),
    "barrier": (0.50, 2.53, 0.98),
}
STRUCTURE_KINDS = tuple(STRUCTURES)
_PHASES = 16  # poses in one cycle of steps or pedals; between them nobody sees a difference
_LONGEST_STRIDE = (0.25, 0.75)
_BUILDERS = {"car": car, "truck": truck, "bus": bus, "trailer": trailer}

Size = tuple[float, float, float]
Colour = tuple[float, float, float]


def object_mesh(
    kind: str,
    variant: int,
    size: Size,
    colour: Colour,
    rng_seed: int,
    phase: float = 0.0,
    *,
    family: str = "train",
    with_rider: bool | None = None,
) -> Mesh:
    """Return the mesh of one thing of a detection class, whose bounds are exactly `size` (length, width, height).

    `variant` counts the shapes of a class and wraps round; the smaller choices come from `rng_seed`. `colour` is RGB
    from 0 to 255; construction vehicles, cones and barriers choose their own. `phase` (0 to 1) moves legs and pedals,
    0 is standing; a walker fills its length only at the longest stride. `with_rider` is for bicycles and motorcycles;
    None gives even variants one. Meshes are kept for the next call.

    Raises StreampetrError for an unknown class or family.
    """
    if kind not in VARIANTS:
        raise StreampetrError(f"no meshes of class {kind}; there are {', '.join(VARIANTS)}")
    _check_family(family)
    rider = variant % 2 == 0 if with_rider is None else bool(with_rider)
    step = int(phase * _PHASES) % _PHASES if phase != 0.0 else -1
    size, colour = tuple(float(value) for value in size), tuple(float(value) for value in colour)
    return _object_mesh(kind, variant % VARIANTS[kind], size, colour, int(rng_seed), step, family, rider)


@lru_cache(maxsize=2048)
def _object_mesh(
    kind: str, variant: int, size: Size, colour: Colour, seed: int, step: int, family: str, with_rider: bool
) -> Mesh:
    phase = 0.0 if step < 0 else (step + 0.5) / _PHASES
    if kind == "pedestrian":
        return _walker(variant, size, colour, seed, phase, family)
    rng, paint = np.random.default_rng([seed, 3]), np.array(colour)
    if kind in _BUILDERS:
        mesh = _BUILDERS[kind](variant, np.array(size), paint, rng, family)
    elif kind == "bicycle":
        mesh = bicycle(variant, paint, rng, family, with_rider, phase)
    elif kind == "motorcycle":
        mesh = motorcycle(variant, paint, rng, family, with_rider)
    else:
        build = {"construction_vehicle": machine, "traffic_cone": cone, "barrier": barrier}[kind]
        mesh = build(variant, rng, family)
    return fit(mesh, size)


def _walker(variant: int, size: Size, colour: Colour, seed: int, phase: float, family: str) -> Mesh:
    mesh = _at_phase(variant, size, colour, seed, phase, family)
    # Legs together are no reason to stretch the body: the length is that of the longest stride.
    reach = max(_reach(mesh), _stride_reach(variant, size, colour, seed, family))
    low, high = (corner.astype(np.float64) for corner in mesh.bounds)
    return fit(mesh, size, (-reach, *low[1:]), (reach, *high[1:]))


def _at_phase(variant: int, size: Size, colour: Colour, seed: int, phase: float, family: str) -> Mesh:
    rng = np.random.default_rng([seed, 3])
    return pedestrian(variant, np.array(size), np.array(colour), rng, family, phase)


@lru_cache(maxsize=512)
def _stride_reach(variant: int, size: Size, colour: Colour, seed: int, family: str) -> float:
    return max(_reach(_at_phase(variant, size, colour, seed, phase, family)) for phase in _LONGEST_STRIDE)


def _reach(mesh: Mesh) -> float:
    return float(np.abs(mesh.vertices[:, 0]).max())


def structure_mesh(kind: str, seed: int, size: Size, *, family: str = "train") -> Mesh:
    """Return a piece of scenery whose bounds are exactly `size` (length, width, height); `seed` makes its looks.

    Kinds: building, tree, bush, lamp_post, sign, traffic_light, wall, fence. Raises StreampetrError for another one.
    """
    if kind not in STRUCTURES:
        raise StreampetrError(f"no scenery of kind {kind}; there are {', '.join(STRUCTURES)}")
    _check_family(family)
    return _structure_mesh(kind, int(seed), tuple(float(value) for value in size), family)


@lru_cache(maxsize=1024)
def _structure_mesh(kind: str, seed: int, size: Size, family: str) -> Mesh:
    rng = np.random.default_rng([seed, 4])
    return fit(STRUCTURES[kind](np.array(size), rng, family), size)


def _check_family(family: str) -> None:
    if family not in FAMILIES:
        raise StreampetrError(f"no meshes of family {family}; there are {', '.join(FAMILIES)}")
