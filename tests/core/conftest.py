"""Settings of all tests that draw examples: the machine's speed decides nothing, and every run draws the same."""

from hypothesis import settings

settings.register_profile("streampetr", deadline=None, derandomize=True)
settings.load_profile("streampetr")
