"""Draws pictures in several processes and puts them into files and videos."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
from tqdm import tqdm

from streampetr_core.errors import StreampetrError
from training.pictures.compose import compose
from training.pictures.views import SampleView

_PNG_COMPRESSION = 3


def write_pictures(scenes: Sequence[Sequence[SampleView]], folder: Path, jobs: int) -> list[list[Path]]:
    """Write one PNG for each sample to `folder`/<scene>/, in `jobs` processes; return their paths, scene by scene.

    Raises:
        StreampetrError: a damaged image, or a folder that cannot be written.
    """
    paths = [[folder / view.moment.scene / view.moment.file_name for view in of_scene] for of_scene in scenes]
    tasks = [task for views, names in zip(scenes, paths, strict=True) for task in zip(views, names, strict=True)]
    try:
        for names in paths:
            names[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StreampetrError(f"--out {error.filename}: cannot be written: {error.strerror}") from None
    progress = tqdm(total=len(tasks), desc="pictures", unit="picture", disable=None)
    with progress:
        if jobs == 1:
            for view, path in tasks:
                _write_picture(view, path)
                progress.update()
        else:
            _write_in_processes(tasks, jobs, progress)
    return paths


def write_video(pictures: Sequence[Path], path: Path, frames_per_second: float) -> None:
    """Join pictures of one size to an MP4 (MPEG-4 Part 2).

    Raises:
        StreampetrError: a video that cannot be written.
    """
    height, width = cv2.imread(str(pictures[0])).shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), frames_per_second, (width, height))
    if not writer.isOpened():
        raise StreampetrError(f"{path}: OpenCV cannot write this video; choose another --out, or leave out --video")
    for picture in pictures:
        writer.write(cv2.imread(str(picture)))
    writer.release()


def _write_in_processes(tasks: Sequence[tuple[SampleView, Path]], jobs: int, progress: tqdm) -> None:
    # Spawned, since a forked process may inherit locks that OpenCV's threads hold.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        try:
            for done in as_completed([pool.submit(_write_picture, *task) for task in tasks]):
                done.result()
                progress.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_picture(view: SampleView, path: Path) -> None:
    _, content = cv2.imencode(".png", compose(view), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION])
    try:
        path.write_bytes(content.tobytes())
    except OSError as error:
        raise StreampetrError(f"{path}: cannot be written: {error.strerror}") from None
