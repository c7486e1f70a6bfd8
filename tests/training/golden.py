"""The golden files that the training package is compared with, and the official conventions they are written in."""

import argparse
import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "data" / "golden"
REPOSITORY = Path(__file__).resolve().parents[2]
KEYFRAME = REPOSITORY.parent / "shared" / "nuscenes_keyframe"  # one real keyframe, where it lies beside the repository


def load_json(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def load_arrays(name):
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def gravity_boxes(official_G9):
    """Official LiDAR boxes carry the height of their bottom face; return them with that of their gravity centre."""
    boxes = official_G9.astype(np.float64)
    boxes[:, 2] += boxes[:, 5] / 2
    return boxes


def run_command(module, *arguments):
    """Run a subcommand's module as `streampetr` would."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    module.run(parser.parse_args([str(argument) for argument in arguments]))
