"""The ROS 2 side: the lifecycle node, bags, and their subcommands."""
