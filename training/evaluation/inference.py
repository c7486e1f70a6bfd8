"""Running a checkpoint over a split: scene after scene in order, on one process or several.

A scene is never cut, so the number of processes changes no result beyond the rounding that PyTorch's number of threads
brings on a CPU. Each process takes one GPU, or its share of the cores; images are read and resized in threads while the
network works.
"""

import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from streampetr_core.checkpoint import Checkpoint, load_checkpoint
from streampetr_core.config import ModelConfig
from streampetr_core.decode import Detections, decode_detections
from streampetr_core.errors import StreampetrError
from streampetr_core.heads import admitted_queries
from streampetr_core.memory import is_due
from streampetr_core.runtime import REFERENCE, RuntimeOptions, open_runtime
from training.data.batch import Batch, Moment, collate
from training.data.dataset import EvaluationData
from training.data.infos import Infos
from training.data.sequences import split_among_ranks

_MOST_READERS = 8
_POLL = 0.2  # seconds between two looks at how far the processes are


@dataclass(frozen=True)
class InferenceConfig:
    """How a checkpoint is run."""

    checkpoint: Path
    pixels: str = "exact"  # one of `image_path.PATHS`
    use_memory: bool = True  # False: every frame by itself
    dropped_cameras: tuple[str, ...] = ()  # as if these had delivered no image
    memory_interval: float = 0.0  # seconds between entries of the memory; 0: every frame enters it
    memory_phase: float = 0.0  # seconds from the first entry of a scene to the second, if not as long; 0: as long
    runtime: RuntimeOptions = RuntimeOptions(REFERENCE)
    jobs: int = 1  # processes
    threads: int | None = None  # CPU threads of each process; None: as PyTorch likes, or its share of the cores


@dataclass(frozen=True)
class FrameOutput:
    """What is found in one sample, in ref, on the CPU."""

    detections: Detections
    admitted_K: Tensor | None  # the queries that entered the memory; None where none is kept


@dataclass(frozen=True)
class SplitOutput:
    """What is found in a split, sample after sample as its infos have them."""

    model: ModelConfig
    frames: tuple[FrameOutput, ...]


def infer(infos: Infos, dataroot: Path, config: InferenceConfig) -> SplitOutput:
    """Return what the checkpoint finds in every sample of a split; shows a progress bar.

    Raises:
        StreampetrError: before the first frame where it can be known then: the checkpoint is unreadable or knows other
            classes, an image is missing, or no camera is left. Later: a damaged image, or a process that died.
    """
    checkpoint = load_checkpoint(config.checkpoint)
    _present_cameras(infos.header.cameras, config.dropped_cameras)
    data = EvaluationData(infos, dataroot, checkpoint.config, config.pixels)
    with tqdm(
        total=len(infos), desc=f"{infos.header.version} {infos.header.split}", unit="sample", disable=None
    ) as bar:
        if config.jobs == 1:
            frames = _infer_frames(checkpoint, data, infos, range(len(infos)), config, bar.update)
        else:
            shares = [share for share in split_among_ranks(data.sequence_F, config.jobs) if len(share)]
            frames = _infer_in_processes(shares, infos, dataroot, config, bar)
    return SplitOutput(checkpoint.config, tuple(frames))


def _infer_frames(
    checkpoint: Checkpoint,
    data: EvaluationData,
    infos: Infos,
    indices: Sequence[int],
    config: InferenceConfig,
    on_frame: Callable[[], object],
) -> list[FrameOutput]:
    """Run through whole scenes, one after the other."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    runtime = open_runtime(checkpoint, config.runtime)
    model = runtime.config
    present_1N = torch.tensor([_present_cameras(infos.header.cameras, config.dropped_cameras)])
    memory, writing, outputs = runtime.fresh_memory(), _Writing(config), []
    for batch in _read_ahead(data, indices, _num_readers(config)):
        batch = batch.to(runtime.device)
        frame = batch.frame(model, writing.written)
        frame = frame if present_1N.all() else replace(frame, present_BN=present_1N)
        predictions, after = runtime.step(frame, memory)
        admitted_K = None
        if writing.admits(batch):
            memory, admitted_K = after, admitted_queries(predictions, model.num_admitted)[0].cpu()
        outputs.append(FrameOutput(decode_detections(predictions, model)[0].to("cpu"), admitted_K))
        on_frame()
    return outputs


class _Writing:
    """Which frames enter the memory, and where and when the last one did; None: nothing is remembered."""

    def __init__(self, config: InferenceConfig) -> None:
        self.written: Moment | None = None
        self._last: Moment | None = None
        self._config, self._interval = config, 0.0  # to the next entry

    def admits(self, batch: Batch) -> bool:
        """Say whether a frame enters the memory, and take note of it; what begins a scene always does."""
        if not self._config.use_memory:
            return False
        begins = self.written is None or bool(batch.is_first_B[0])
        enters = begins or not self._interval or self._is_due(batch)
        self._last = batch.moment
        if enters:
            self.written = batch.moment
            self._interval = (begins and self._config.memory_phase) or self._config.memory_interval
        return enters

    def _is_due(self, batch: Batch) -> bool:
        elapsed, period = (float(batch.time_B[0] - moment.time_B[0]) for moment in (self.written, self._last))
        return is_due(elapsed, period, self._interval)


def _read_ahead(data: EvaluationData, indices: Sequence[int], readers: int) -> Iterator[Batch]:
    """Yield batches of one frame; threads prepare the next ones in the meantime, since all they do frees the GIL."""
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque = deque()
        for index in indices:
            waiting.append(pool.submit(data.__getitem__, int(index)))
            if len(waiting) > readers:
                yield collate([waiting.popleft().result()])[0]
        while waiting:
            yield collate([waiting.popleft().result()])[0]


def _infer_in_processes(
    shares: Sequence[Sequence[int]], infos: Infos, dataroot: Path, config: InferenceConfig, bar: tqdm
) -> list[FrameOutput]:
    """Run every share of the frames in a process of its own; the first error stops all of them."""
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
    progress = _Progress(context.Value("q"), context.Event())
    with ProcessPoolExecutor(len(shares), context, _use_progress, (progress,)) as pool:
        futures = [
            pool.submit(_infer_share, infos, dataroot, _config_of_process(config, rank, len(shares)), share)
            for rank, share in enumerate(shares)
        ]
        try:
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, timeout=_POLL)
                bar.update(progress.frames.value - bar.n)
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise StreampetrError("a process of --jobs died, maybe for lack of memory; use fewer --jobs") from error
        finally:
            progress.stop.set()
        return [output for future in futures for output in pickle.loads(future.result())]


@dataclass(frozen=True)
class _Progress:
    """What the processes share."""

    frames: Synchronized
    stop: Event

    def count(self) -> None:
        """Say that a frame is done; raises StreampetrError when another process has failed."""
        with self.frames.get_lock():
            self.frames.value += 1
        if self.stop.is_set():
            raise StreampetrError("stopped, since another process failed")


def _use_progress(progress: _Progress) -> None:
    # Synchronised values reach a process only while it begins.
    global _progress
    _progress = progress


def _infer_share(infos: Infos, dataroot: Path, config: InferenceConfig, indices: Sequence[int]) -> bytes:
    checkpoint = load_checkpoint(config.checkpoint)
    data = EvaluationData(infos, dataroot, checkpoint.config, config.pixels)
    outputs = _infer_frames(checkpoint, data, infos, indices, config, _progress.count)
    # Left to itself, PyTorch would send every tensor as a file descriptor, of which there are too few.
    return pickle.dumps(outputs)


def _config_of_process(config: InferenceConfig, rank: int, processes: int) -> InferenceConfig:
    """Give each process its GPU, in turn, and its share of the cores."""
    gpus = torch.cuda.device_count() if config.runtime.device == "auto" else 0
    runtime = replace(config.runtime, device=f"cuda:{rank % gpus}") if gpus else config.runtime
    return replace(config, runtime=runtime, threads=config.threads or max(1, _num_cores() // processes))


def _num_readers(config: InferenceConfig) -> int:
    return min(_MOST_READERS, config.threads or _num_cores())


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


def _present_cameras(cameras: Sequence[str], dropped: Sequence[str]) -> list[bool]:
    unknown = [name for name in dropped if name not in cameras]
    if unknown:
        raise StreampetrError(f"--drop-cameras {' '.join(unknown)}: no such camera; there are: {', '.join(cameras)}")
    if set(cameras) <= set(dropped):
        raise StreampetrError("--drop-cameras: all cameras are dropped; leave at least one")
    return [name not in dropped for name in cameras]
