"""Tracking in a cluster: a line to each primary, and memory unused while one of them is missing or the map is old.

    any node → map of the primaries → a Line each → Tracker

The heartbeat of a line is CLUSTER INFO. Its epoch rises with every failover and every slot that moves, so that a line
learns within ping_s and the gossip's second that keys may be where nobody listens; then the map is asked for again.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
import structlog
from redis.connection import AbstractConnection
from redis.exceptions import ClusterDownError

from . import seldom
from .addresses import Node
from .tracking import Listener, Tracker
from .tracking_line import Connect, Line, opener

log = structlog.get_logger(__name__)

_AGAIN_S = 0.2  # between two questions for the map, while it does not come or does not fit


@dataclass(frozen=True, slots=True)
class Primaries:
    """epoch: of the cluster, read before the map was. connect: name of each primary that has slots → a connection."""

    epoch: int
    connect: Mapping[str, Connect]


class ClusterTracker(Tracker):
    """discover: asks any node for the map; raises redis.RedisError. rediscover_s: asked at least so often, seconds."""

    heartbeat = ("CLUSTER", "INFO")

    def __init__(
        self,
        discover: Callable[[], Primaries],
        prefix: str,
        listener: Listener,
        *,
        ping_s: float,
        on_loss: Callable[[], None] = lambda: None,
        rediscover_s: float = 10.0,
    ) -> None:
        super().__init__({}, prefix, listener, ping_s=ping_s, on_loss=on_loss)
        self._discover, self._rediscover_s = discover, rediscover_s
        self._epoch = 0
        self._overseer: threading.Thread | None = None
        self._wake = threading.Event()

    def close(self) -> None:
        super().close()
        self._wake.set()

    def accepts(self, answer: Any) -> bool:
        state, epoch = state_and_epoch(answer)
        return state == "ok" and epoch <= self._epoch  # a smaller one: the gossip has not come there yet

    def lost(self, line: Line, error: Exception, *, was_live: bool) -> None:
        super().lost(line, error, was_live=was_live)
        self._wake.set()

    # --- parts -------------------------------------------------------------------------------------------------------
    def _runs(self) -> bool:
        return self._overseer is not None and self._overseer.is_alive()

    def _start(self) -> None:
        if not self._runs():
            self._overseer = threading.Thread(target=self._oversee, name="cache-tracker-map", daemon=True)
            self._overseer.start()

    def _oversee(self) -> None:
        while not self._is_closed:
            try:
                self._adopt(self._discover())
            except Exception as error:  # noqa: BLE001  (whatever it was: the lines that there are go on)
                seldom.warn(log, "cache_tracker_map_unknown", error=type(error).__name__)
            self._wake.wait(self._rediscover_s if self._connect else _AGAIN_S)
            if self._wake.is_set():
                self._wake.clear()
                time.sleep(_AGAIN_S)  # several lines fail together, and a failover takes its time

    def _adopt(self, primaries: Primaries) -> None:
        with self._lock:
            if self._is_closed:
                return
            gone = [name for name in self._lines if name not in primaries.connect]
            ended = [self._lines.pop(name) for name in gone]
            self._epoch, self._connect = primaries.epoch, dict(primaries.connect)
            super()._start()
            self._weigh()
        for line in ended:
            line.close()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._overseer, self._wake, self._connect = None, threading.Event(), {}


def dialler(pools: Callable[[], Mapping[str, redis.ConnectionPool]]) -> Callable[[Node], AbstractConnection]:
    """Connections to any node, like those of the pools, which are asked for when one is needed."""
    templates: list[redis.ConnectionPool] = []

    def dial(node: Node) -> AbstractConnection:
        if not templates:
            templates.extend(pools().values())
        return opener(templates[0], host=node[0], port=node[1])()

    return dial


def discovery(seeds: Sequence[Node], dial: Callable[[Node], AbstractConnection]) -> Callable[[], Primaries]:
    """Asks the primaries that it knows, then the seeds. dial: a connection to a node that is not connected yet."""
    known: list[Node] = []

    def discover() -> Primaries:
        error: Exception = redis.ConnectionError("the cluster has no nodes")
        for node in [*known, *seeds]:
            try:
                epoch, primaries = _asked(node, dial(node))
            except (redis.RedisError, OSError) as failed:
                error = failed
                continue
            known[:] = primaries
            return Primaries(
                epoch, {f"{host}:{port}": partial(dial, (host, port)) for host, port in primaries}
            )
        raise error

    return discover


def _asked(node: Node, connection: AbstractConnection) -> tuple[int, list[Node]]:
    try:
        connection.connect()
        connection.send_command("CLUSTER", "INFO")
        state, epoch = state_and_epoch(connection.read_response())
        connection.send_command("CLUSTER", "SLOTS")
        slots = connection.read_response()
        connection.send_command("CLUSTER", "SHARDS")
        shards = connection.read_response()
    finally:
        connection.disconnect()
    if state != "ok":
        raise ClusterDownError(f"{node[0]}:{node[1]} says that the cluster is {state or 'none'}")
    return epoch, primaries_of(slots, shards, node)


def primaries_of(slots: Sequence[Any], shards: Sequence[Mapping[Any, Any]], told_by: Node) -> list[Node]:
    """Of CLUSTER SLOTS those that serve slots, also if others take them for dead; of CLUSTER SHARDS (RESP3) those that
    have none yet: keys come there before the first slot does."""
    owners = [(owner[0], owner[1]) for _, _, owner, *_ in slots]
    members = [member for shard in shards for member in shard[b"nodes"]]
    ready = [
        (member.get(b"endpoint"), member.get(b"port") or member[b"tls-port"])
        for member in members
        if member[b"role"] == b"master" and member[b"health"] == b"online"
    ]
    return sorted({(_host(host, told_by), int(port)) for host, port in [*owners, *ready]})


def _host(told: Any, told_by: Node) -> str:
    """A node that does not know its own address leaves it out."""
    return told_by[0] if _text(told) in ("", "?") else _text(told)


def state_and_epoch(answer: Any) -> tuple[str, int]:
    """Of CLUSTER INFO. (`txt:` may stand before it: RESP3's verbatim strings.)"""
    text = _text(answer)
    state = re.search(r"cluster_state:(\w+)", text)
    epoch = re.search(r"cluster_current_epoch:(\d+)", text)
    return state[1] if state else "", int(epoch[1]) if epoch else -1


def _text(read: Any) -> str:
    return read.decode() if isinstance(read, bytes) else str(read or "")
