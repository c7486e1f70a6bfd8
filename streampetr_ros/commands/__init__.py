"""Subcommands of `streampetr` that speak ROS 2."""
