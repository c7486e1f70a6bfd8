"""Quality of service in bags: what is written, and how it reads in one line."""

from collections.abc import Sequence

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

_UNSPECIFIED = QosTime(0, 0)


def reliable(depth: int, *, latched: bool = False) -> Qos:
    """Return the profile of a reliable publisher; `latched` (transient local) serves late subscribers."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=depth,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_UNSPECIFIED,
        lifespan=_UNSPECIFIED,
        liveliness=QosLiveliness.SYSTEM_DEFAULT,
        liveliness_lease_duration=_UNSPECIFIED,
        avoid_ros_namespace_conventions=False,
    )


def strongest(profiles: Sequence[Qos], message_count: int) -> Qos:
    """Return the one offer that reaches every subscriber that any recorded publisher reached.

    Reliable and transient local win, as they also match subscribers that ask for less. Deadline, lifespan and
    liveliness are left unspecified: a player that pauses would break the first and lose messages by the second.

    Args:
        profiles: the profiles recorded for one topic; none at all means reliable, depth 10.
        message_count: messages of the topic. A latched topic keeps as many (up to 1000), because the player stands in
            for all of its recorded publishers, each of which latched its own last message.
    """
    if not profiles:
        return reliable(10)
    latched = any(profile.durability is QosDurability.TRANSIENT_LOCAL for profile in profiles)
    sure = any(profile.reliability is not QosReliability.BEST_EFFORT for profile in profiles)
    keep_all = any(profile.history is QosHistory.KEEP_ALL for profile in profiles)
    # A recorder that could not discover the history writes depth 0 or an unknown history: the default of 10 stands in.
    depth = max(profile.depth if profile.history is QosHistory.KEEP_LAST else 10 for profile in profiles) or 10
    return reliable(max(depth, min(message_count, 1000)) if latched else depth, latched=latched)._replace(
        history=QosHistory.KEEP_ALL if keep_all else QosHistory.KEEP_LAST,
        reliability=QosReliability.RELIABLE if sure else QosReliability.BEST_EFFORT,
        avoid_ros_namespace_conventions=any(profile.avoid_ros_namespace_conventions for profile in profiles),
    )


def describe(profiles: Sequence[Qos]) -> str:
    """Return profiles in words, such as `reliable, volatile, keep last 5`; several are joined by ` / `."""
    return " / ".join(dict.fromkeys(_words(profile) for profile in profiles)) or "not recorded"


def _words(profile: Qos) -> str:
    history = profile.history.name.lower().replace("_", " ")
    depth = f" {profile.depth}" if profile.history is QosHistory.KEEP_LAST else ""
    reliability, durability = profile.reliability.name.lower(), profile.durability.name.lower()
    return f"{reliability}, {durability}, {history}{depth}".replace("_", " ")
