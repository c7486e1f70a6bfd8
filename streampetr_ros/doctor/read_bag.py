"""Evidence from a bag; a message arrives when it was recorded."""

from pathlib import Path

from rclpy.serialization import deserialize_message
from rosbags.interfaces import QosDurability, QosReliability
from tqdm import tqdm

from streampetr_ros.bag.reading import open_bag, read_messages
from streampetr_ros.doctor.evidence import Offer, Topic
from streampetr_ros.doctor.gather import Gatherer, type_name, wanted_topics
from streampetr_ros.parameters import Parameters

_PAIRS = 12  # of pictures of each camera
_CLOSEST_PAIRS_NS = 500_000_000


def read_bag(bag: Path, expected: Parameters) -> Gatherer:
    """Read a bag from end to end; raises StreampetrError if there is none, or if it is broken."""
    wanted = wanted_topics(expected)
    with open_bag(bag) as reader:
        gatherer = Gatherer(expected, str(bag), max(_CLOSEST_PAIRS_NS, reader.duration // _PAIRS))
        topics = gatherer.evidence.topics
        for connection in reader.connections:
            topic = topics.setdefault(connection.topic, Topic(count=0))
            topic.msgtypes.add(connection.msgtype)
            topic.count += connection.msgcount
            for profile in connection.ext.offered_qos_profiles:
                reliable = profile.reliability is not QosReliability.BEST_EFFORT
                topic.offers.add(Offer(reliable, profile.durability is QosDurability.TRANSIENT_LOCAL))
        chosen = [each for each in reader.connections if _fits(each.topic, each.msgtype, wanted)]
        messages = read_messages(reader, bag, chosen) if chosen else ()
        total = sum(connection.msgcount for connection in chosen)
        for connection, arrival_ns, data in tqdm(
            messages, total=total, desc="reading", unit="msg", leave=False, disable=None
        ):
            message = deserialize_message(bytes(data), wanted[connection.topic])
            gatherer.take(connection.topic, message, arrival_ns)
    return gatherer


def _fits(topic: str, msgtype: str, wanted: dict[str, type]) -> bool:
    return topic in wanted and msgtype == type_name(wanted[topic])
