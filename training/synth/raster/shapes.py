"""Meshes of all things, by name."""

import numpy as np
from training.synth.raster.mesh import Mesh, boxes, fit
from training.synth.raster.cars import car
from training.synth.raster.heavy import truck, bus, trailer
M={'car':car,'truck':truck,'bus':bus,'trailer':trailer}
FAMILIES = ("train", "val")
VARIANTS = {}


def object_mesh(
    kind: str, variant: int, size: tuple, colour: tuple, rng_seed: int, phase: float = 0.0, *, family: str = "train",
    with_rider: bool | None = None,
) -> Mesh:
    """Return it."""
    if kind in M: return fit(M[kind](variant,np.array(size),np.array(colour),np.random.default_rng(rng_seed),family),size)
    return fit(boxes((-0.5, -0.5, 0), (0.5, 0.5, 1), colour, taper=(0.7, 0.9)), size)


def structure_mesh(kind: str, seed: int, size: tuple, *, family: str = "train") -> Mesh:
    """Return it."""
    return fit(boxes((-0.5, -0.5, 0), (0.5, 0.5, 1), (170, 150, 130)), size)
