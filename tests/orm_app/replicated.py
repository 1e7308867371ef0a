"""A PostgreSQL primary with two streaming standbys, and the aliases of two clusters on them.

clone (ContentType lives there): clone_replica1, clone_replica2 · other (Session): other_replica1, another database
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import psycopg
import pytest
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db import connections
from django.test import override_settings

from orm_app import replicas
from orm_app.databases import from_url
from tests.servers import Missing, PostgresCluster

CLONE, ONE, TWO = "clone", "clone_replica1", "clone_replica2"
OTHER, OTHER_ONE = "other", "other_replica1"
PROBE_S = 0.03


T = TypeVar("T")


@contextlib.contextmanager
def started(servers_of: AbstractContextManager[T]) -> Iterator[T]:
    """Skips where a server is not installed, and fails under CI."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(servers_of)
        except Missing as missing:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{missing} is not installed")
        yield found


@contextlib.contextmanager
def site_of(cluster: PostgresCluster) -> Iterator[None]:
    """Settings with both clusters, and tables with nothing in them."""
    urls = {CLONE: cluster.primary.url, OTHER: other(cluster.primary.url)}
    with psycopg.connect(cluster.primary.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE other")
    entries = {alias: from_url(url) for alias, url in urls.items()}
    for number, standby in enumerate(cluster.standbys, start=1):
        entries[f"{CLONE}_replica{number}"] = from_url(standby.url, replica_of=CLONE)
    entries[OTHER_ONE] = from_url(other(cluster.standbys[0].url), replica_of=OTHER)
    with aliases(entries), patient(), chosen():
        for alias, model in ((CLONE, ContentType), (OTHER, Session)):
            with connections[alias].schema_editor() as editor:
                editor.create_model(model)
        try:
            yield
        finally:
            replicas.stop()


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """A machine that stalls for seconds makes no replica silent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas, "_PATIENCE_S", 60.0)
        patch.setattr(replicas, "_FIRST_LOOK_S", 60.0)
        yield


@contextlib.contextmanager
def aliases(entries: dict[str, Any]) -> Iterator[None]:
    filled = connections.configure_settings({"default": {}, **entries})
    connections.settings.update({alias: filled[alias] for alias in entries})
    try:
        yield
    finally:
        for alias in entries:
            connections[alias].close()
            connections[alias].close_pool()  # type: ignore[attr-defined]
            del connections[alias], connections.settings[alias]


def chosen(**more: Any) -> Any:
    """READ_FROM_PRIMARY holds the platform's apps, one of which stands in for a user's here.

    A replica that must get reads may be far behind, since it looks so whenever nobody has asked it for a while.
    """
    apps = {"contenttypes": CLONE, "sessions": OTHER}
    database = {"APPS": apps, "REPLICA_PROBE_S": PROBE_S, "READ_FROM_PRIMARY": ("auth",)}
    database |= {"REPLICA_MAX_LAG_S": 60.0} | more
    return override_settings(BRAIN={"DATABASE": database})


def other(url: str) -> str:
    return url.rpartition("/")[0] + "/other"


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, replicas.states()
        time.sleep(0.01)


def state(alias: str) -> replicas.State:
    found = replicas.state(alias)
    assert found is not None
    return found


def until_usable(*names: str) -> None:
    until(lambda: all(state(alias).usable for alias in names))


def until_caught_up(*names: str) -> None:
    """Everything that is committed now is known to be in them."""
    began = time.monotonic()

    def caught_up() -> bool:
        return all(
            found.usable and found.lag_s is not None and time.monotonic() - found.lag_s >= began
            for found in map(state, names)
        )

    until(caught_up)


@contextlib.contextmanager
def replay_paused(*standbys: Any) -> Iterator[None]:
    for standby in standbys:
        tell(standby, "SELECT pg_wal_replay_pause()")
    try:
        yield
    finally:
        for standby in standbys:
            tell(standby, "SELECT pg_wal_replay_resume()")


def tell(node: Any, *statements: str) -> None:
    with psycopg.connect(node.url, autocommit=True) as connection:
        for sql in statements:
            connection.execute(sql)
