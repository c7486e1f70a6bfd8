"""Six cameras of one moment of each kind of scene, as one picture to look at.

Example:
    python -m training.synth.contact_sheet docs/images/synth_scenes.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synth.observe import observe
from training.synth.roads import KINDS
from training.synth.scene import make_scene

_ROW = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
_SIZE = (1600, 900)
_WIDTH = 400  # of one picture on the sheet
_TIME, _DURATION = 6.0, 10.0
_QUALITY = 82


def draw_sheet(seed: int, family: str = "train") -> NDArray[np.uint8]:
    """Return the sheet (H, W, 3), RGB: a row for each kind, with the kind written into its first picture."""
    rows = []
    for index, kind in enumerate(KINDS):
        scene = make_scene(seed, family, index, _DURATION, _SIZE, kind=kind)
        pictures = observe(scene, _TIME, with_lidar=False).pictures
        size = (_WIDTH, _WIDTH * _SIZE[1] // _SIZE[0])
        small = [cv2.resize(pictures[channel].image, size, interpolation=cv2.INTER_AREA) for channel in _ROW]
        row = np.hstack(small)
        for thickness, colour in ((4, (0, 0, 0)), (1, (255, 255, 255))):
            place = (8, 20)
            cv2.putText(row, kind, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, thickness, cv2.LINE_AA)
        rows.append(row)
    return np.vstack(rows)


def main() -> None:
    """Write the sheet that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write, .jpg or .png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", default="train", choices=("train", "val"))
    args = parser.parse_args()
    sheet = cv2.cvtColor(draw_sheet(args.seed, args.family), cv2.COLOR_RGB2BGR)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(cv2.imencode(args.out.suffix, sheet, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())


if __name__ == "__main__":
    main()
