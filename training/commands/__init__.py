"""Subcommands of `streampetr` that need data sets."""
