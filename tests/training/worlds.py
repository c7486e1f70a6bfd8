"""Small synthetic worlds for tests of the data set and the evaluation."""

import json

from training.synth import WorldOptions, write_world

VERSION, SPLIT = "v1.0-synth", "everything"


def write_small_world(root, **options):
    """Write a world of two scenes, both in one split."""
    write_world(root, WorldOptions(scenes=2, **options))
    scenes = json.loads((root / VERSION / "scene.json").read_text())
    (root / VERSION / "splits.json").write_text(json.dumps({SPLIT: [scene["name"] for scene in scenes]}))
    return root
