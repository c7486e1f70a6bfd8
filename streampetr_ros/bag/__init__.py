"""ROS 2 bags: nuScenes scenes turned into bags, and playing and describing bags where rosbag2 is missing."""
