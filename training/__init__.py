"""nuScenes data, the synthetic world, training, evaluation and pictures."""
