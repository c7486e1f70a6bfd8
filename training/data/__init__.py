"""nuScenes as training data: info files, augmentation, samples and the order in which they come."""
