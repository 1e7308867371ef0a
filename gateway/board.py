"""What the processes of the fleet know about the targets: each one writes its view down every second, the admin and
the API read them together."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from redis.exceptions import RedisError

from cache_app import connections as store
from cache_app.link import all_good, all_read

from .breaker import CLOSED, HALF_OPEN, OPEN
from .pool import Service, Target
from .ticker import repeat

log = structlog.get_logger(__name__)

PREFIX = "brain:gateway:"
INTERVAL_S = 1.0
FORMAT = 1  # of a report; those of another version of this code are left out
KEPT_S = 5.0  # a view that is not renewed for so long is of a process that is gone
STORE_TIMEOUT_S = 0.5
_BAD = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}


@dataclass(frozen=True, slots=True)
class View:
    """One process's view of one target. why: empty where nothing is wrong. ejected_until: seconds since the epoch,
    0.0 when it is not. ewma_s: 0.0 before the first answer."""

    process: str
    inflight: int
    breaker: str
    why: str
    ejected_until: float
    ewma_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One target as the fleet sees it. checked_at, next_at: of the probes, seconds since the epoch (0.0: none).
    inflight: of all processes; breaker: the worst; ewma_s: the mean. views: one a process, the worst first."""

    service: str
    name: str
    state: str
    health: str
    health_reason: str
    checked_at: float
    next_at: float
    inflight: int
    breaker: str
    ewma_s: float
    panicked: int
    views: tuple[View, ...]


class Board:
    """services: those of the snapshot in use. prefix: of `<prefix>{board}` (a sorted set of the processes, by when they
    wrote last) and `<prefix>{board}:PROCESS`, which a cluster keeps on one node."""

    def __init__(self, services: Callable[[], Iterable[Service]], *, prefix: str = PREFIX) -> None:
        self.process = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:4]}"
        self._services, self._index = services, _index(prefix)
        self._key = f"{self._index}:{self.process}"
        self._up = True
        self.processes = 1  # of the fleet, as of the last writing

    async def run(self, interval_s: float = INTERVAL_S) -> None:
        """Until cancelled; then the view is taken down."""
        try:
            await repeat(self.publish, lambda: interval_s, trouble="board_failed")
        finally:
            with contextlib.suppress(RedisError, OSError):
                async with asyncio.timeout(STORE_TIMEOUT_S):
                    await store.alink(store.default_url()).call("DEL", self._key)

    async def publish(self) -> None:
        """Write this process's view down. A Redis that is away costs a line in the log, once."""
        wall = time.time()  # noqa: TID251  (shown to people)
        view = orjson.dumps(report(self.process, self._services(), time.monotonic(), wall))
        commands = [
            ("SET", self._key, view, "PX", round(KEPT_S * 1000)),
            ("ZADD", self._index, wall, self.process),
            # A minute, because the clocks of the processes may differ; the keys themselves expire in time.
            ("ZREMRANGEBYSCORE", self._index, "-inf", wall - 60 - KEPT_S),
            ("ZCOUNT", self._index, wall - KEPT_S, "+inf"),
        ]
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                replies = all_good(await store.alink(store.default_url()).pipeline(commands))
            self.processes = max(1, replies[-1])
            self._up = True
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            if self._up:
                log.warning("board_not_written", error=type(error).__name__)
            self._up = False


def read(*, prefix: str = PREFIX) -> tuple[Standing, ...] | None:
    """Every target that a process knows, by service and name. None: Redis is away, so nobody can say. Blocks."""
    try:
        link, index = store.link(store.default_url()), _index(prefix)
        processes = [_text(process) for process in all_read(link, [("ZRANGE", index, 0, -1)])[0]]
        reports = link.read("MGET", *(f"{index}:{process}" for process in processes)) if processes else []
    except (RedisError, OSError):
        return None
    found = [orjson.loads(report) for report in reports if report is not None]
    return merge([report for report in found if report["format"] == FORMAT])


def report(process: str, services: Iterable[Service], now: float, wall: float) -> dict[str, Any]:
    """One process's view as JSON types. Monotonic times leave the process as seconds since the epoch."""
    return {
        "format": FORMAT,
        "process": process,
        "at": wall,
        "services": {
            service.name: {
                "panicked": service.panicked,
                "targets": {target.name: _shown(target, now, wall) for target in service.targets},
            }
            for service in services
        },
    }


def _shown(target: Target, now: float, wall: float) -> dict[str, Any]:
    left_s = target.ejected_until - now
    health = target.health
    return {
        "state": target.state,
        "inflight": target.inflight,
        "breaker": target.breaker.state,
        "why": target.why(now),
        "ejected_until": wall + left_s if left_s > 0 else 0.0,
        "ewma_s": target.ewma_s if target.ewma_at else 0.0,
        "health": [health.state, health.reason, health.checked_at, health.next_at],
    }


def merge(reports: list[dict[str, Any]]) -> tuple[Standing, ...]:
    """Reports of `report` as one picture."""
    found: dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    panicked: dict[str, int] = defaultdict(int)
    for one in reports:
        for service, shown in one["services"].items():
            panicked[service] += shown["panicked"]
            for name, target in shown["targets"].items():
                found[service, name].append((one, target))
    return tuple(
        _standing(service, name, seen, panicked[service]) for (service, name), seen in sorted(found.items())
    )


def _standing(
    service: str, name: str, seen: list[tuple[dict[str, Any], dict[str, Any]]], panicked: int
) -> Standing:
    views = [_view(one["process"], target) for one, target in seen]
    views.sort(key=lambda view: (-_BAD[view.breaker], not view.why, view.process))
    # The configuration of whoever wrote last, the health of whoever learnt of the last probe.
    latest = max(seen, key=lambda pair: float(pair[0]["at"]))[1]
    state, reason, checked_at, next_at = max(
        (target["health"] for _, target in seen), key=lambda h: float(h[2])
    )
    measured = [view.ewma_s for view in views if view.ewma_s]
    return Standing(
        service=service,
        name=name,
        state=latest["state"],
        health=state,
        health_reason=reason,
        checked_at=checked_at,
        next_at=next_at,
        inflight=sum(view.inflight for view in views),
        breaker=views[0].breaker,
        ewma_s=math.fsum(measured) / len(measured) if measured else 0.0,
        panicked=panicked,
        views=tuple(views),
    )


def _view(process: str, target: dict[str, Any]) -> View:
    return View(
        process=process,
        inflight=target["inflight"],
        breaker=target["breaker"],
        why=target["why"],
        ejected_until=target["ejected_until"],
        ewma_s=target["ewma_s"],
    )


def _index(prefix: str) -> str:
    return f"{prefix}{{board}}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
