"""A synthetic driving world, written as a nuScenes data set or rendered on the fly."""

from training.synth.options import WorldOptions
from training.synth.write import write_world

__all__ = ["WorldOptions", "write_world"]
