"""A synthetic driving world, written as a nuScenes data set."""
