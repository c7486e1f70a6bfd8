"""A synthetic driving world, written as a nuScenes data set."""

from training.synth.tables import WorldOptions, write_world

__all__ = ["WorldOptions", "write_world"]
