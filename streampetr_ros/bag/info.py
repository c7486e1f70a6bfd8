"""What is in a bag: times, topics, types, quality of service and rates."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from tqdm import tqdm

from streampetr_ros.bag.qos import describe
from streampetr_ros.bag.reading import open_bag, read_messages


@dataclass(frozen=True)
class TopicSummary:
    """One topic of a bag; `median_hz` is None where fewer than two messages, or no time between them, give no rate."""

    topic: str
    msgtype: str
    count: int
    median_hz: float | None
    qos: str


@dataclass(frozen=True)
class BagSummary:
    """A bag as a whole; times in nanoseconds since the epoch, None for a bag without messages."""

    path: Path
    size_bytes: int
    start_ns: int | None
    end_ns: int | None
    topics: tuple[TopicSummary, ...]

    @property
    def count(self) -> int:
        """The number of messages of all topics."""
        return sum(topic.count for topic in self.topics)


def summarise(path: Path) -> BagSummary:
    """Read a bag from end to end and sum it up.

    Raises:
        StreampetrError: there is no bag at this path, or it is broken.
    """
    stamps: dict[tuple[str, str], list[int]] = defaultdict(list)
    profiles = defaultdict(list)
    with open_bag(path) as reader:
        for connection in reader.connections:
            profiles[connection.topic, connection.msgtype] += connection.ext.offered_qos_profiles
        messages = tqdm(
            read_messages(reader, path),
            total=reader.message_count,
            desc="reading",
            unit="msg",
            leave=False,
            disable=None,
        )
        for connection, stamp_ns, _ in messages:
            stamps[connection.topic, connection.msgtype].append(stamp_ns)
    every = [stamp for series in stamps.values() for stamp in series]
    return BagSummary(
        path=path,
        size_bytes=_size(path),
        start_ns=min(every, default=None),
        end_ns=max(every, default=None),
        topics=tuple(
            TopicSummary(*key, len(stamps[key]), median_rate(stamps[key]), describe(profiles[key]))
            for key in sorted(profiles)
        ),
    )


def median_rate(stamps_ns: list[int]) -> float | None:
    """Return the median rate in Hz of messages with these log times; None where they give none."""
    if len(stamps_ns) < 2:
        return None
    period = float(np.median(np.diff(np.sort(np.array(stamps_ns, dtype=np.int64)))))
    return 1e9 / period if period > 0 else None


def format_summary(summary: BagSummary) -> str:
    """Return the summary as text: a head of times, then a table with one row a topic."""
    rows = [("topic", "messages", "median Hz", "type", "QoS")]
    for topic in summary.topics:
        rate = "-" if topic.median_hz is None else f"{topic.median_hz:.2f}"
        rows.append((topic.topic, str(topic.count), rate, topic.msgtype, topic.qos))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [*_head(summary), ""]
    for topic, count, rate, msgtype, qos in rows:
        line = f"{topic:<{widths[0]}}  {count:>{widths[1]}}  {rate:>{widths[2]}}  {msgtype:<{widths[3]}}  {qos}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _head(summary: BagSummary) -> list[str]:
    lines = [f"bag       {summary.path}", f"size      {summary.size_bytes / 1e6:.2f} MB"]
    if summary.start_ns is not None and summary.end_ns is not None:
        lines += [
            f"start     {_moment(summary.start_ns)}",
            f"end       {_moment(summary.end_ns)}",
            f"duration  {(summary.end_ns - summary.start_ns) / 1e9:.3f} s",
        ]
    return [*lines, f"messages  {summary.count} on {len(summary.topics)} topics"]


def _moment(stamp_ns: int) -> str:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanoseconds // 1000:06d} UTC ({stamp_ns} ns)"


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
