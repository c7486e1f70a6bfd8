"""Write info files: what training and evaluation need to know of every sample of a nuScenes-format root.

One file for each split: of v1.0-trainval train and val, of v1.0-test test (without boxes), of v1.0-mini mini_train and
mini_val; of any other version the splits that <dataroot>/<version>/splits.json names. An official
nuscenes2d_temporal_infos_*.pkl serves as well wherever a command takes an info file.

Example:
  streampetr prepare --dataroot data/nuscenes --version v1.0-trainval
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr prepare`."""
    parser.add_argument("--dataroot", type=Path, required=True, help="folder of the version folder and samples/")
    parser.add_argument("--version", required=True, help="folder of the tables, such as v1.0-trainval")
    parser.add_argument("--out", type=Path, help="folder of the info files (default: DATAROOT/infos)")


def run(args: argparse.Namespace) -> None:
    """Write the info files and say where they are."""
    from training.data.infos_file import load_infos
    from training.data.prepare import prepare

    for path in prepare(args.dataroot, args.version, args.out or args.dataroot / "infos"):
        infos = load_infos(path)
        scenes = len(set(infos.columns["scene"].tolist()))
        boxes = f"{len(infos.columns['box'])} boxes" if infos.header.annotated else "no annotations"
        print(f"wrote {path}: {len(infos)} samples of {scenes} scenes, {boxes}")
