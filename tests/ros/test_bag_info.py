"""Describing bags, the quality of service a player offers, and the command line."""

import argparse
from pathlib import Path

import pytest
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosReliability
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from streampetr_core.errors import StreampetrError
from streampetr_ros.bag.info import format_summary, median_rate, summarise
from streampetr_ros.bag.qos import describe, reliable, strongest
from streampetr_ros.commands import bag as command

SECOND = 1_000_000_000
START_NS = 1_532_402_927 * SECOND
BEST_EFFORT = reliable(3)._replace(reliability=QosReliability.BEST_EFFORT)


def build(path: Path, plugin: StoragePlugin, compression: CompressionMode = CompressionMode.NONE) -> Path:
    store = get_typestore(Stores.ROS2_HUMBLE)
    with_compression = Writer(path, version=8, storage_plugin=plugin)
    with_compression.set_compression(compression, CompressionFormat.ZSTD)
    with with_compression as writer:
        for topic, qos, stamps in (
            ("/fast", BEST_EFFORT, range(START_NS, START_NS + 2 * SECOND, SECOND // 10)),
            ("/latched", reliable(1, latched=True), [START_NS]),
        ):
            connection = writer.add_connection(
                topic, "std_msgs/msg/String", typestore=store, offered_qos_profiles=[qos]
            )
            message = store.types["std_msgs/msg/String"](topic)
            for stamp_ns in stamps:
                writer.write(connection, stamp_ns, store.serialize_cdr(message, "std_msgs/msg/String"))
    return path


@pytest.mark.parametrize(
    ("plugin", "compression"),
    [
        (StoragePlugin.MCAP, CompressionMode.NONE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.SQLITE3, CompressionMode.NONE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    ],
)
def test_a_bag_is_summed_up(tmp_path, plugin, compression):
    bag = build(tmp_path / "bag", plugin, compression)
    summary = summarise(bag)
    assert (summary.start_ns, summary.end_ns, summary.count) == (START_NS, START_NS + 19 * SECOND // 10, 21)
    assert summary.size_bytes == sum(path.stat().st_size for path in bag.iterdir())
    fast, latched = summary.topics
    assert (fast.topic, fast.msgtype, fast.count) == ("/fast", "std_msgs/msg/String", 20)
    assert fast.median_hz == pytest.approx(10.0) and latched.median_hz is None
    text = format_summary(summary)
    assert "2018-07-24 03:28:47.000000 UTC" in text and "duration  1.900 s" in text
    fast_row, latched_row = text.splitlines()[-2:]
    assert fast_row.split(maxsplit=4)[1:] == [
        "20",
        "10.00",
        "std_msgs/msg/String",
        "best effort, volatile, keep last 3",
    ]
    assert latched_row.split(maxsplit=4)[2:] == ["-", "std_msgs/msg/String", "reliable, transient local, keep last 1"]


def test_the_rate_is_a_median_and_only_where_there_is_one():
    assert median_rate([0, SECOND, 2 * SECOND, 9 * SECOND]) == pytest.approx(1.0)
    assert median_rate([]) is None and median_rate([5]) is None and median_rate([5, 5, 5]) is None


def test_an_empty_bag_has_no_times(tmp_path):
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP):
        pass
    summary = summarise(tmp_path / "bag")
    assert (summary.start_ns, summary.end_ns, summary.count) == (None, None, 0)
    assert "messages  0 on 0 topics" in format_summary(summary)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_what_is_no_bag_or_is_broken_is_said_in_one_line(tmp_path, plugin):
    bag = build(tmp_path / "bag", plugin)
    data = next(path for path in bag.iterdir() if path.suffix != ".yaml")
    with pytest.raises(StreampetrError, match="missing: no such bag"):
        summarise(tmp_path / "missing")
    with pytest.raises(StreampetrError, match="metadata.yaml: is no bag"):
        summarise(bag / "metadata.yaml")
    content = data.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"x" * 4096):
        data.write_bytes(broken)
        with pytest.raises(StreampetrError, match="bag is broken or cut off") as error:
            summarise(bag)
        assert "\n" not in str(error.value)
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: 3")
    with pytest.raises(StreampetrError, match="bag is broken or cut off"):
        summarise(bag)
    (bag / "metadata.yaml").unlink()
    with pytest.raises(StreampetrError, match="no metadata.yaml"):
        summarise(bag)


def test_the_player_offers_what_reaches_every_subscriber():
    latched = reliable(1, latched=True)
    assert strongest([reliable(5)], 400) == reliable(5)
    assert strongest([BEST_EFFORT], 400) == BEST_EFFORT
    assert strongest([], 400) == reliable(10)
    both = strongest([BEST_EFFORT, latched], 7)
    assert (both.reliability, both.durability) == (QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL)
    assert both.depth == 7 and strongest([latched], 10**6).depth == 1000
    unknown = reliable(0)._replace(history=QosHistory.UNKNOWN)
    assert (strongest([unknown], 3).history, strongest([unknown], 3).depth) == (QosHistory.KEEP_LAST, 10)
    assert strongest([reliable(5)._replace(history=QosHistory.KEEP_ALL)], 3).history is QosHistory.KEEP_ALL


def test_qos_reads_as_words():
    every: list[Qos] = [reliable(5), BEST_EFFORT, reliable(5)]
    assert describe(every) == "reliable, volatile, keep last 5 / best effort, volatile, keep last 3"
    assert describe([]) == "not recorded"


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args(arguments))


def test_the_command_prints_the_table(tmp_path, capsys):
    bag = build(tmp_path / "bag", StoragePlugin.MCAP)
    run("info", str(bag))
    assert "messages  21 on 2 topics" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["info"],
        ["play", "bag", "--rate", "0"],
        ["play", "bag", "--rate", "fast"],
        ["play", "bag", "--delay", "-1"],
        ["play", "bag", "--wait", "nan"],
        ["play", "bag", "--wait", "1", "--wait-for-subscribers", "/x"],
        ["from-nuscenes", "root", "out"],
    ],
)
def test_bad_usage_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2 and "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["from-nuscenes", "play", "info"])
def test_every_subcommand_has_an_example(name, capsys):
    with pytest.raises(SystemExit):
        run(name, "--help")
    assert f"streampetr bag {name} " in capsys.readouterr().out
