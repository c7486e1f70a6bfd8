"""Are the topics there that the node will subscribe to, with the types and the quality of service that it asks for?"""

from collections.abc import Iterator
from difflib import get_close_matches

from streampetr_ros.doctor.evidence import Evidence, Topic
from streampetr_ros.doctor.findings import Finding, error, ok
from streampetr_ros.doctor.gather import TF, TF_STATIC, type_name, wanted_topics
from streampetr_ros.parameters import Parameters

_MOST_SUGGESTED = 6
_NAMES = {"CameraInfo": "no CameraInfo", "TFMessage": "no transforms", "Header": "no reference times"}


def check_topics(expected: Parameters, seen: Evidence) -> Iterator[Finding]:
    """Compare the topics that the node will subscribe to with those that are there."""
    for topic, kind in wanted_topics(expected).items():
        name, wanted = _NAMES.get(kind.__name__, "no images"), type_name(kind)
        there = seen.topics.get(topic)
        if there is None:
            remedy = _other_transport(topic, seen) or _suggestion(topic, wanted, seen, expected)
            yield error(name, topic, f"messages of type {wanted}", "no such topic", remedy)
        elif wanted not in there.msgtypes:
            found = " and ".join(sorted(there.msgtypes))
            yield error("wrong type", topic, wanted, found, "publish that type, or name another topic")
        elif len(there.msgtypes) > 1:
            found = " and ".join(sorted(there.msgtypes))
            yield error("wrong type", topic, f"{wanted} alone", found, "stop the publisher of the other type")
        elif not there.count:
            remedy = "start the driver that publishes it, or look whether it waits for something"
            yield error(name, topic, "messages", "a publisher, but no message", remedy)
        else:
            yield from _quality(expected, topic, there)


def _quality(expected: Parameters, topic: str, there: Topic) -> Iterator[Finding]:
    """Check whether the node's subscription matches what is offered; one that asks for more gets nothing."""
    is_tf = topic in (TF, TF_STATIC)
    reliability = "reliable" if is_tf else expected.reliability
    if reliability == "reliable" and any(not offer.reliable for offer in there.offers):
        remedy = "publish it reliably" + ("" if is_tf else ", or set the parameter 'reliability' to best_effort")
        yield error("quality of service", topic, "a reliable publisher", "best effort", remedy)
    elif topic == TF_STATIC and any(not offer.latched for offer in there.offers):
        remedy = "publish it with durability transient local, as StaticTransformBroadcaster does"
        yield error("quality of service", topic, "a latched (transient local) publisher", "volatile", remedy)
    else:
        yield ok("topics", topic, f"{there.count} messages")


def _other_transport(topic: str, seen: Evidence) -> str:
    """Return what to do if the images are there, but transported otherwise."""
    raw = topic.removesuffix("/compressed")
    other, transport = (raw, "raw") if raw != topic else (f"{topic}/compressed", "compressed")
    return f"{other} is there: set the parameter 'transport' to {transport}" if other in seen.topics else ""


def _suggestion(topic: str, wanted: str, seen: Evidence, expected: Parameters) -> str:
    free = set(seen.topics) - set(wanted_topics(expected))
    same_type = sorted(name for name in free if wanted in seen.topics[name].msgtypes)
    near = get_close_matches(topic, same_type, _MOST_SUGGESTED) or same_type[:_MOST_SUGGESTED]
    if near:
        how = "remap it" if topic in (TF, TF_STATIC) else "set 'cameras' and the parameters of topics"
        return f"did you mean {' or '.join(near)}? Then {how}"
    return f"start what publishes it: no other topic of type {wanted} is there"
