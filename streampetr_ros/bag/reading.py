"""Opening and reading bags (rosbag2 folders, .mcap and .db3 files) with one clear line when that fails."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from streampetr_core.errors import StreampetrError


@contextmanager
def open_bag(path: Path) -> Iterator[Reader]:
    """Open a bag for reading.

    Raises:
        StreampetrError: there is no bag at this path, or it is broken.
    """
    if not path.exists() or (path.is_file() and path.suffix not in (".mcap", ".db3")):
        state = "is no bag" if path.exists() else "no such bag"
        raise StreampetrError(f"{path}: {state}; give a rosbag2 folder, or an .mcap or .db3 file")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise StreampetrError(
            f"{path}: no metadata.yaml in this folder: it is no bag, or its recording was cut off, which "
            "'ros2 bag reindex' may mend"
        )
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:  # bytes that are no bag make rosbags and its storages raise errors of every kind
        raise _broken(path, error) from error
    try:
        yield reader
    finally:
        reader.close()


def read_messages(
    reader: Reader, path: Path, connections: Collection[Connection] = ()
) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield (connection, log time in ns, serialised message) in the order of log time; no connections means all.

    Raises:
        StreampetrError: the bag breaks off in the middle.
    """
    messages = reader.messages(connections)
    while True:
        try:
            item = next(messages, None)
        except Exception as error:
            raise _broken(path, error) from error
        if item is None:
            return
        yield item


def _broken(path: Path, error: Exception) -> StreampetrError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return StreampetrError(
        f"{path}: this bag is broken or cut off ({reason}); record it again, or try 'ros2 bag reindex'"
    )
