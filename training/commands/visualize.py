"""Draw results into the camera images and a bird's-eye view, beside the truth.

RESULTS is a nuScenes result file of detection or tracking. Each of its samples becomes one PNG: six cameras, the scene
from above, and a legend. Coloured boxes are results, white ones the truth; in the cameras results lie over the truth,
so white is left where something was missed. Labels are scores, or the first letters of track ids; in a crowd those of
the best boxes are shown. Truth that no LiDAR or radar point hit is not evaluated: grey from above, not in the cameras.

Pictures go to OUT/<scene>/, videos to OUT/<scene>.mp4.

Example:
  streampetr visualize out/results_nusc.json --dataroot data/nuscenes --scene scene-0103 --video
"""

import argparse
import os
from pathlib import Path

from streampetr_core.errors import StreampetrError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `streampetr visualize`."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results_nusc.json or a tracking result file")
    parser.add_argument("--dataroot", type=Path, required=True, help="nuScenes-format root that the results belong to")
    parser.add_argument("--version", help="its version, as in v1.0-trainval (default: the only one there is)")
    parser.add_argument("--scene", nargs="+", default=[], metavar="NAME", help="only these scenes")
    parser.add_argument("--tokens", nargs="+", default=[], metavar="TOKEN", help="only these samples")
    parser.add_argument("--out", type=Path, help="folder for the pictures (default: beside RESULTS, with its name)")
    parser.add_argument("--score", type=float, default=0.25, help="lowest score that is shown (default: %(default)s)")
    parser.add_argument("--no-truth", action="store_true", help="show results alone")
    parser.add_argument("--video", action="store_true", help="also join the pictures of each scene to an MP4")
    parser.add_argument("--fps", type=float, default=4, help="pictures a second in videos (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes that draw (default: one a core, %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the pictures and, if asked for, the videos."""
    # The devkit takes seconds to import; `streampetr --help` need not wait for it.
    from training.data.tables import open_tables
    from training.pictures.results import read_results
    from training.pictures.samples import Selection, sample_views
    from training.pictures.write import write_pictures, write_video

    if args.jobs < 1:
        raise StreampetrError(f"--jobs {args.jobs}: give a number from 1")
    if not 0 < args.fps <= 120:
        raise StreampetrError(f"--fps {args.fps:g}: give a number above 0, up to 120")
    results = read_results(args.results)
    tables = open_tables(args.dataroot, args.version)
    with_truth = not args.no_truth
    if with_truth and not tables.sample_annotation:
        print(f"{tables.version} has no annotations: the pictures show results without the truth")
        with_truth = False
    scenes = sample_views(tables, results, Selection(args.scene, args.tokens, args.score, with_truth))
    out = args.out or args.results.with_suffix("")
    pictures = write_pictures(scenes, out, args.jobs)
    for of_scene in pictures if args.video else []:
        write_video(of_scene, out / f"{of_scene[0].parent.name}.mp4", args.fps)
    videos = f" and {len(pictures)} MP4" if args.video else ""
    print(f"wrote {sum(map(len, pictures))} pictures{videos} of {results.kind} results to {out}")
