"""Pictures and LiDAR scans of things made of triangles: a z-buffer rasteriser compiled by numba.

`object_mesh` and `structure_mesh` make the things, `Instance` puts one into the world, `GroundMap` and `Light` are what
is below and above, `render` takes the picture and `scan` the LiDAR's turn. Everything is a pure function of its
arguments: equal arguments give equal bytes in every process.
"""

from training.synth.raster.ground import GroundMap
from training.synth.raster.lidar import scan
from training.synth.raster.light import WEATHERS, Air, Light
from training.synth.raster.mesh import Mesh
from training.synth.raster.palette import PALETTES, Palette
from training.synth.raster.picture import Instance, Picture, Visibility, Workspace, render, visibility
from training.synth.raster.shapes import FAMILIES, STRUCTURE_KINDS, TYPICAL_SIZES, VARIANTS, object_mesh, structure_mesh

__all__ = [
    "FAMILIES",
    "PALETTES",
    "STRUCTURE_KINDS",
    "TYPICAL_SIZES",
    "VARIANTS",
    "WEATHERS",
    "Air",
    "GroundMap",
    "Instance",
    "Light",
    "Mesh",
    "Palette",
    "Picture",
    "Visibility",
    "Workspace",
    "object_mesh",
    "render",
    "scan",
    "structure_mesh",
    "visibility",
]
