"""How the kernel notices that nobody is at the other end any more, where it can be told."""

from __future__ import annotations

import socket

_IDLE_S, _PROBE_EVERY_S, _PROBES = 10, 5, 3
_UNACKNOWLEDGED_MS = (
    10_000  # what was sent and is not even received by then: the kernel gives the connection up
)

_WANTED = {
    "TCP_KEEPIDLE": _IDLE_S,
    "TCP_KEEPINTVL": _PROBE_EVERY_S,
    "TCP_KEEPCNT": _PROBES,
    "TCP_USER_TIMEOUT": _UNACKNOWLEDGED_MS,
}
# Each system has some of them; BSD and Windows have no TCP_USER_TIMEOUT.
OPTIONS = {getattr(socket, name): value for name, value in _WANTED.items() if hasattr(socket, name)}
