"""Pictures of results: what was found on every sample, loss curves, and what the evaluation says."""
