"""Subcommands of `streampetr` that need the detector alone."""
