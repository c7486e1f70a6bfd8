"""How fast training data comes: samples per second, and the share of each step.

A sample is six 1600x900 JPEGs, decoded, resized to 256x704, augmented, with its truth. Without --infos a synthetic
world is written for it. Steps are timed in one thread, in processor time, which other work on the machine hardly
changes; the rate is what a data loader with worker processes gives by the clock, collated.

Example:
  python -m bench.data_loading --workers 2
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader

from streampetr_core.config import ModelConfig, load_config
from streampetr_core.preprocess import normalise
from training.data.augment import draw_augmentation
from training.data.batch import collate
from training.data.dataset import DataConfig, TrainingData, make_sample, make_truth
from training.data.gridmask import draw_grid_mask
from training.data.images import augment_image, read_image
from training.data.infos import Infos
from training.data.infos_file import load_infos
from training.data.prepare import prepare
from training.data.sampler import Request
from training.provenance import device_name
from training.synth import WorldOptions, write_world

_BATCH = 2
_GOAL = 8.0  # samples per second on two cores
_ON_DEVICE = "normalise"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infos", type=Path, help="info file; needs --dataroot")
    parser.add_argument("--dataroot", type=Path)
    parser.add_argument("--model", default="r50_704_428q")
    parser.add_argument("--pixels", default="fast", choices=("fast", "exact"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        root, infos = _data(args, Path(folder))
        model, config = load_config(args.model), DataConfig(pixels=args.pixels)
        steps = _time_steps(infos, root, model, config, args.samples)
        rate = _rate(TrainingData(infos, root, model, config), args.workers, args.samples)
    on_device = steps.pop(_ON_DEVICE)
    total = sum(steps.values())
    print(f"{device_name(torch.device('cpu'))}, {len(os.sched_getaffinity(0))} cores; PyTorch {torch.__version__}")
    print(f"{'step':<34}{'ms per sample':>14}{'share':>8}")
    for name, seconds in steps.items():
        print(f"{name:<34}{1e3 * seconds:>14.1f}{seconds / total:>8.1%}")
    print(f"{'all, one thread':<34}{1e3 * total:>14.1f}")
    print(f"{_ON_DEVICE:<34}{1e3 * on_device:>14.1f}, on the GPU in training, if there is one; no part of loading")
    print(f"{args.workers} worker processes: {rate:.1f} samples/s (goal on two cores: {_GOAL:.0f})")


def _data(args: argparse.Namespace, folder: Path) -> tuple[Path, Infos]:
    if args.infos is not None:
        return args.dataroot, load_infos(args.infos)
    write_world(folder / "world", WorldOptions(scenes=2, samples=4, val_scenes=2))
    (path,) = prepare(folder / "world", "v1.0-synth", folder / "infos")
    return folder / "world", load_infos(path)


def _time_steps(infos: Infos, root: Path, model: ModelConfig, config: DataConfig, count: int) -> dict[str, float]:
    """Return processor seconds per sample of every step, the median over `count` samples."""
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[[], object]) -> object:
        start = time.thread_time()
        result = function()
        times.setdefault(name, []).append(time.thread_time() - start)
        return result

    for number in range(count):
        keyframe = timed("info", lambda number=number: infos[number % len(infos)])
        images = timed("read and decode JPEG", lambda k=keyframe: [read_image(root / c.path) for c in k.cameras])
        height, width = images[0].shape[:2]
        augmentation = draw_augmentation(np.random.RandomState(number), width, height, model, config.augmentation)
        pixels = timed(
            f"augment: resize, crop, flip ({config.pixels})",
            lambda images=images, a=augmentation: np.stack([augment_image(i, a.image, config.pixels) for i in images]),
        )
        truth = timed("augment: boxes", lambda k=keyframe, a=augmentation: make_truth(k, a, model))
        images_NHW3 = torch.from_numpy(pixels)
        rng = np.random.RandomState(number)
        mask = timed("grid mask", lambda r=rng: draw_grid_mask(r, model.input_height, config.grid_mask_probability))
        extras = {"truth": truth, "grid_mask": mask}
        sample = timed(
            "matrices",
            lambda k=keyframe, i=images_NHW3, a=augmentation, e=extras: make_sample(k, i, a, is_first=True, **e),
        )
        timed("collate", lambda s=sample: collate([(s,)]))
        timed(_ON_DEVICE, lambda i=images_NHW3: normalise(i, model))
    return {name: float(np.median(values)) for name, values in times.items()}


def _rate(data: TrainingData, workers: int, count: int) -> float:
    """Return samples per second of a data loader, the start of its workers included."""
    requests = list(_requests(len(data), count))
    start = time.perf_counter()
    batches = DataLoader(data, batch_sampler=requests, collate_fn=collate, num_workers=workers)
    seen = sum(len(batch.tokens) for (batch,) in batches)
    return seen / (time.perf_counter() - start)


def _requests(num_frames: int, count: int) -> Iterator[list[Request]]:
    for step in range(count // _BATCH):
        yield [Request((step * _BATCH + slot) % num_frames, (0, step, slot)) for slot in range(_BATCH)]


if __name__ == "__main__":
    main()
