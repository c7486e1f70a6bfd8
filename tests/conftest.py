"""Every run of the tests gets a ROS domain of its own and keeps to this machine; no test fails for being slow."""

import os
import socket

from hypothesis import settings


def _reserve_domain() -> tuple[int, socket.socket]:
    """Return a ROS domain id, and the socket that keeps other runs from taking it while this one lives."""
    for domain in range(1, 102):
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", 19_000 + domain))
        except OSError:
            guard.close()
        else:
            return domain, guard
    raise RuntimeError("101 test runs at once: no ROS domain is left")


DOMAIN, _GUARD = _reserve_domain()
os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores; threads beside them would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("streampetr", deadline=None)
settings.load_profile("streampetr")
