"""Measurements behind `streampetr bench`: ratios between variants that take turns in one process."""
