"""Asks a primary where its log ends and a replica how far it has replayed it: a thread and a connection for each server.

The connections are none of the pools': a pool that is empty must not look like a server that is away. A server that
hangs holds up its own thread, and is found out by its silence.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog
from django.db import connections

from . import freshness, health
from .conf import conf
from .freshness import Position

if TYPE_CHECKING:
    from .replicas import Cluster

log = structlog.get_logger(__name__)

_CONNECT_S, _ANSWER_S = 2, 2
_STOP_S = 0.5
_LOST_S = 0.25  # between two looks at a server that does not answer, at least

# statement_timestamp() is before the position is read, so what was committed by then is in it. The written position
# and not the inserted one: after a page's last record the latter is past what a replica can ever replay.
_PG_PRIMARY = """
    SELECT extract(epoch FROM statement_timestamp())::float8, pg_current_wal_lsn()::text,
           (SELECT system_identifier::text FROM pg_control_system())"""
_PG_REPLICA = """
    SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
           (SELECT system_identifier::text FROM pg_control_system()),
           EXISTS (SELECT FROM pg_stat_wal_receiver)"""


@dataclass(frozen=True, slots=True)
class FromPrimary:
    """asked_at, answered_at: by time.monotonic(); moment: the server's clock. is_first: of a new connection.

    identity: of the data; a replica's is the same. "" where servers do not tell.
    """

    asked_at: float
    answered_at: float
    moment: float
    position: Position
    identity: str
    is_first: bool


@dataclass(frozen=True, slots=True)
class FromReplica:
    answered_at: float
    position: Position
    identity: str
    is_streaming: bool
    trouble: str


class Probe:
    """Looks at one server until it is stopped. Subclasses say what to ask, and whom to tell."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        self.cluster, self.alias = cluster, alias
        self.has_looked = threading.Event()
        self._stopped = threading.Event()
        self._connection: Any = None
        self._is_first = True
        self._dialect = ""
        self._thread = threading.Thread(target=self._run, name=f"probe-{alias}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            interval_s = conf().REPLICA_PROBE_S
            try:
                if self._connection is None:
                    self._connect()
                self._look()
                self._is_first = False
            except Exception as error:  # noqa: BLE001  (the prober: whatever it is, the server is of no use now)
                self._close()
                if self.alias not in connections.settings:
                    return  # in a test, whose databases are gone
                self._failed(health.reason(self.alias, error))
                interval_s = max(_LOST_S, min(interval_s, 1.0))
            self.has_looked.set()
            # Jitter: the processes of a site do not ask in step.
            self._stopped.wait(interval_s * random.uniform(0.8, 1.2))  # noqa: S311
        self._close()

    def _connect(self) -> None:
        wrapper: Any = connections[self.alias]  # this thread's own, never opened: it knows the parameters
        parameters = {
            k: v for k, v in wrapper.get_connection_params().items() if k not in ("pool", "init_command")
        }
        parameters |= {"connect_timeout": _CONNECT_S, "autocommit": True}
        self._dialect = wrapper.vendor
        if wrapper.vendor == "mysql":
            parameters |= {"read_timeout": _ANSWER_S, "write_timeout": _ANSWER_S}
        else:  # no SET of any kind: with a pooler in between it would stay with somebody else's session
            parameters |= {"application_name": "replica probe"}
        self._connection, self._is_first = wrapper.Database.connect(**parameters), True
        if wrapper.vendor == "mysql":
            [version] = self._ask("SELECT VERSION()")
            self._dialect = "mariadb" if "mariadb" in version.lower() else "mysql"

    def _look(self) -> None:
        raise NotImplementedError

    def _failed(self, reason: str) -> None:
        raise NotImplementedError

    def _ask(self, sql: str) -> Any:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


class OfPrimary(Probe):
    def _look(self) -> None:
        asked_at = monotonic()
        if self._dialect == "postgresql":
            moment, text, identity = self._ask(_PG_PRIMARY)
            position = freshness.postgresql(text)
        else:
            variable = "gtid_binlog_pos" if self._dialect == "mariadb" else "gtid_executed"
            moment, text = self._ask(f"SELECT UNIX_TIMESTAMP(NOW(6)), @@global.{variable}")
            position, identity = _gtids(self._dialect, text), ""
        self.cluster.primary_said(
            FromPrimary(asked_at, monotonic(), float(moment), position, identity, self._is_first)
        )

    def _failed(self, reason: str) -> None:
        self.cluster.primary_failed(reason)


class OfReplica(Probe):
    def _look(self) -> None:
        trouble, identity, is_streaming = "", "", True
        if self._dialect == "postgresql":
            is_standby, text, identity, is_streaming = self._ask(_PG_REPLICA)
            position = freshness.postgresql(text or "0/0")
            if not is_standby:
                trouble = "it is a primary itself"
        else:
            variable = "gtid_slave_pos" if self._dialect == "mariadb" else "gtid_executed"
            [text] = self._ask(f"SELECT @@global.{variable}")
            position = _gtids(self._dialect, text)
        answer = FromReplica(monotonic(), position, identity, is_streaming, trouble)
        self.cluster.replica_said(self.alias, answer)

    def _failed(self, reason: str) -> None:
        self.cluster.replica_failed(self.alias, reason)


def of_cluster(cluster: Cluster) -> list[Probe]:
    return [OfPrimary(cluster, cluster.primary), *(OfReplica(cluster, alias) for alias in cluster.replicas)]


def stop(probes: Iterable[Probe]) -> None:
    """Does not wait for a server that hangs."""
    ending, until = list(probes), monotonic() + _STOP_S
    for probe in ending:
        probe.stop()
    for probe in ending:
        probe.join(max(0.0, until - monotonic()))


def wait_for_first(probes: Iterable[Probe], timeout_s: float) -> None:
    until = monotonic() + timeout_s
    for probe in list(probes):
        probe.has_looked.wait(max(0.0, until - monotonic()))


def _gtids(dialect: str, text: str) -> Position:
    """Raises ValueError for none: nothing could be told from it, and every replica would look fresh."""
    position = freshness.mariadb(text) if dialect == "mariadb" else freshness.mysql(text)
    if not position:
        raise ValueError("it has no GTID position: switch the binary log and GTIDs on")
    return position
