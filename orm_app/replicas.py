"""What this process knows about the replicas of each primary, and which of them may answer a read.

    probes (a thread a server) → Cluster (positions → freshness) → available() → router

Nothing runs before the first read of a cluster that has replicas, and nothing in a process that has none.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import monotonic

import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from . import freshness, replica_probes
from .conf import conf
from .freshness import Limits, Position, Positions, Seen
from .topology import topology

log = structlog.get_logger(__name__)

_UNASKED = "it has not been asked yet"
_PATIENCE_S = 3.0  # for an answer: a server that is silent for longer, and one look, is out
_FIRST_LOOK_S = 1.0  # what whoever asks for the states waits for, when the process has just begun to look


@dataclass(frozen=True, slots=True)
class State:
    """One replica for the command line, the admin and the metrics. reason: why it gets no reads; "" when it does.

    lag_s: how old its answers may be; None: nobody knows.
    """

    alias: str
    cluster: str
    usable: bool
    lag_s: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Clock:
    """How far the primary's is ahead of time.monotonic() here, at most and at least: an answer takes its time."""

    most_s: float
    least_s: float


class Cluster:
    """A primary and its replicas. The probes' threads tell it, and readers take what is there without a lock."""

    def __init__(self, primary: str, replicas: tuple[str, ...]) -> None:
        self.primary, self.replicas = primary, replicas
        self.began_at = monotonic()
        self.seen = {alias: Seen(alias, -math.inf, None, _UNASKED) for alias in replicas}
        self.clock: Clock | None = None
        self.answered_at = -math.inf  # by the primary
        self.primary_trouble = ""
        self._identity = ""
        self._positions = Positions()
        self._replayed: dict[str, Position] = {}
        self._lock = threading.Lock()

    def primary_said(self, answer: replica_probes.FromPrimary) -> None:
        with self._lock:
            if answer.is_first:  # it may be another server than before, whose log went another way
                self._positions = Positions()
            self._positions.add(answer.asked_at, answer.position)
            self._identity = answer.identity
            self.clock = Clock(answer.moment - answer.asked_at, answer.moment - answer.answered_at)
            self.answered_at, self.primary_trouble = answer.answered_at, ""
            for alias in self._replayed:
                self._learn(alias)

    def primary_failed(self, reason: str) -> None:
        with self._lock:
            if not self.primary_trouble:
                log.warning("primary_lost", alias=self.primary, reason=reason)
            self.primary_trouble = reason

    def replica_said(self, alias: str, answer: replica_probes.FromReplica) -> None:
        with self._lock:
            trouble = answer.trouble
            if not trouble and self._identity and answer.identity != self._identity:
                trouble = f"it is no replica of {self.primary}: its data has another origin"
            if not trouble and not answer.is_streaming and self.has_primary(answer.answered_at):
                trouble = f"it receives nothing from {self.primary}"
            self._replayed[alias] = answer.position
            self._change(replace(self.seen[alias], answered_at=answer.answered_at, trouble=trouble))
            self._learn(alias)

    def replica_failed(self, alias: str, reason: str) -> None:
        """Also when a query met it: until it answers again."""
        with self._lock:
            self._change(replace(self.seen[alias], trouble=reason))

    def has_primary(self, now: float) -> bool:
        return not self.primary_trouble and now - self.answered_at <= _silence_s()

    def limits(self, now: float) -> Limits:
        settings = conf()
        is_known = bool(self.primary_trouble) or self.answered_at > -math.inf  # else it has just been asked
        is_alone = settings.ON_PRIMARY_DOWN == "replicas" and is_known and not self.has_primary(now)
        return Limits(math.inf if is_alone else settings.REPLICA_MAX_LAG_S, _silence_s())

    def available(self, since: float | None) -> list[str]:
        """The replicas for a read that must see what was committed before `since`."""
        now = monotonic()
        limits = self.limits(now)
        return [
            one.alias
            for one in self.seen.values()
            if freshness.has_seen(one, since) and not freshness.trouble(one, now, limits)
        ]

    def states(self) -> list[State]:
        now = monotonic()
        limits = self.limits(now)
        return [_state(self.primary, one, now, limits) for one in self.seen.values()]

    def _learn(self, alias: str) -> None:
        known = self._positions.fresh_as_of(self._replayed[alias])
        seen = self.seen[alias]
        # What it had once it has for good; a new primary's log tells nothing about the time before.
        if known is not None and (seen.fresh_as_of is None or known > seen.fresh_as_of):
            self.seen[alias] = replace(seen, fresh_as_of=known)

    def _change(self, seen: Seen) -> None:
        before = self.seen[seen.alias]
        self.seen[seen.alias] = seen
        if seen.trouble and seen.trouble != before.trouble:
            log.warning("replica_out", alias=seen.alias, reason=seen.trouble)
        elif before.trouble not in ("", _UNASKED) and not seen.trouble:
            log.info("replica_in", alias=seen.alias)


class _Watched:
    """The clusters that this process looks at, and the threads that do."""

    def __init__(self) -> None:
        self.clusters: dict[str, Cluster] = {}
        self.probes: list[replica_probes.Probe] = []
        self.lock = threading.Lock()


_watched = _Watched()
_abandoned: list[
    _Watched
] = []  # of the process that forked this one: its connections must not be closed here


def cluster(primary: str, replicas: tuple[str, ...]) -> Cluster:
    """Begins to look at it when nobody does yet."""
    found = _watched.clusters.get(primary)
    return found if found is not None and found.replicas == replicas else _begin(primary, replicas)


def failed(alias: str, reason: str) -> None:
    """A query met a replica that is away: no more of them before it has answered a probe."""
    for one in _watched.clusters.values():
        if alias in one.replicas:
            one.replica_failed(alias, reason)


def states() -> list[State]:
    """Of every replica, as this process sees them. The first call waits for the first answers."""
    known = topology()
    found = [cluster(primary, replicas) for primary, replicas in known.replicas.items()]
    if any(monotonic() - one.began_at < _PATIENCE_S for one in found):
        replica_probes.wait_for_first(_watched.probes, _FIRST_LOOK_S)
    return [state for one in found for state in one.states()]


def state(alias: str) -> State | None:
    """None: it is no replica."""
    if alias not in topology().primaries:
        return None
    return next((one for one in states() if one.alias == alias), None)


def families() -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "brain_database_replica_lag_seconds", "How old a replica's answers may be", labels=["alias"]
    )
    usable = GaugeMetricFamily(
        "brain_database_replica_usable", "1: it gets reads of this process", labels=["alias"]
    )
    for one in states():
        usable.add_metric([one.alias], float(one.usable))
        if one.lag_s is not None:
            lag.add_metric([one.alias], one.lag_s)
    yield from (lag, usable)


def moment_of(primary: str) -> float | None:
    """Now, or a little later, by the primary's clock, which all processes share; None: it has not answered yet."""
    clock = cluster(primary, topology().replicas[primary]).clock
    return None if clock is None else monotonic() + clock.most_s


def moment_here(primary: str, moment: float | None) -> float:
    """The same by this process's time.monotonic(), or a little later; never later than now."""
    found, now = _watched.clusters.get(primary), monotonic()
    if moment is None or found is None or found.clock is None:
        return now
    return min(now, moment - found.clock.least_s)


def stop() -> None:
    """The threads end; the next read begins anew."""
    global _watched
    ending, _watched = _watched, _Watched()
    replica_probes.stop(ending.probes)


def _begin(primary: str, replicas: tuple[str, ...]) -> Cluster:
    watched = _watched
    with watched.lock:
        found = watched.clusters.get(primary)
        if found is not None and found.replicas == replicas:
            return found
        made = Cluster(primary, replicas)
        new = replica_probes.of_cluster(made)
        mine = {primary, *(found.replicas if found else ())}
        replica_probes.stop([probe for probe in watched.probes if probe.alias in mine])
        watched.probes = [probe for probe in watched.probes if probe.alias not in mine]
        watched.clusters[primary] = made
        watched.probes += new
        for probe in new:
            probe.start()
        return made


def _state(primary: str, seen: Seen, now: float, limits: Limits) -> State:
    reason = freshness.trouble(seen, now, limits)
    lag_s = None if seen.fresh_as_of is None else max(0.0, now - seen.fresh_as_of)
    return State(seen.alias, primary, not reason, lag_s, reason)


def _silence_s() -> float:
    return _PATIENCE_S + conf().REPLICA_PROBE_S


def _after_fork() -> None:
    """Threads do not come along; the next read of the child starts its own."""
    global _watched
    _abandoned.append(_watched)
    _watched = _Watched()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(stop)
