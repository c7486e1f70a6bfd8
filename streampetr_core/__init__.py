"""The StreamPETR detector: PyTorch and NumPy only, with no knowledge of ROS or of data sets."""
