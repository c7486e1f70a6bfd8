"""Results files, metrics by nuscenes-devkit, and the official tracker."""
