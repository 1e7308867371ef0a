from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from orm_app.databases import from_url
from orm_app.postgresql.base import DatabaseWrapper
from orm_app.postgresql.pool import Pool

pytestmark = pytest.mark.service


class Reachable(psycopg.Connection[Any]):
    """Connects only while the server is said to be up."""

    is_down = False

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.is_down:
            raise psycopg.OperationalError("connection refused")
        return super().connect(*args, **kwargs)


@contextlib.contextmanager
def opened(url: str) -> Iterator[Pool]:
    Reachable.is_down = False
    made = Pool(
        "default", check=ConnectionPool.check_connection, conninfo=url, connection_class=Reachable,
        kwargs={"autocommit": True}, min_size=0, max_size=3, timeout=60,
    )  # fmt: skip
    made.open()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def pool(postgresql_url: str) -> Iterator[Pool]:
    with opened(postgresql_url) as made:
        yield made


def below(limit_s: float, measured: Callable[[], float]) -> None:
    """One of five: a busy machine may add to one."""
    took_s = [measured()]
    while took_s[-1] >= limit_s:
        assert len(took_s) < 5, took_s
        took_s.append(measured())


def test_getconn__server_was_away__a_waiter_is_served_soon_after(postgresql_url: str) -> None:
    def measured() -> float:
        with opened(postgresql_url) as pool:
            return _served_after_s(pool)

    below(1.0, measured)  # psycopg's own third attempt comes after 3 s


def _served_after_s(pool: Pool) -> float:
    """How long somebody who waits already has to wait on, once the server is back."""
    Reachable.is_down = True
    served_at: list[float] = []

    def ask() -> None:
        pool.putconn(pool.getconn())
        served_at.append(time.monotonic())

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1.3)
    Reachable.is_down, back = False, time.monotonic()
    thread.join(60)
    return served_at[0] - back


def test_getconn__all_idle_ones_are_dead__gives_a_live_one_at_once(postgresql_url: str) -> None:
    def measured() -> float:
        with opened(postgresql_url) as pool:
            return _past_dead_ones_s(pool)

    below(0.9, measured)  # psycopg's own sleeps 1 s after the first


def _past_dead_ones_s(pool: Pool) -> float:
    held = [pool.getconn() for _ in range(3)]
    pids = [connection.info.backend_pid for connection in held]
    for connection in held:
        pool.putconn(connection)
    with psycopg.connect(pool.conninfo, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])
        while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", [pids]).fetchall():
            time.sleep(0.01)  # it only asks them to end
    before = pool.get_stats()["requests_num"]
    began = time.monotonic()
    connection = pool.getconn()
    took_s = time.monotonic() - began
    assert connection.execute("SELECT 1").fetchone() == (1,)
    pool.putconn(connection)
    counted = pool.get_stats()
    assert counted["requests_num"] == before + 1
    assert counted["connections_lost"] >= 1
    assert counted.get("returns_bad", 0) == 0
    return took_s


def test_getconn__all_are_lent__names_the_setting(pool: Pool) -> None:
    held = [pool.getconn() for _ in range(3)]
    with pytest.raises(
        PoolTimeout, match=r"all 3 connections of DATABASES\['default'\].*within 0.1 s.*pool_max_size"
    ):
        pool.getconn(0.1)
    pool.putconn(held.pop())
    held.append(pool.getconn())
    for connection in held:
        pool.putconn(connection)


def test_getconn__server_is_down__says_that_it_could_not_connect(pool: Pool) -> None:
    Reachable.is_down = True
    for timeout_s in (0.3, 3, 30):  # an attempt comes late where the machine is busy
        with pytest.raises(PoolTimeout) as told:
            pool.getconn(timeout_s)
        if "failed" in str(told.value):
            break
    why = rf"could be opened within {timeout_s:g} s: \d+ attempts failed, the last with: connection refused"
    assert re.search(why, str(told.value))


def test_log__server_is_down__each_warning_once_for_a_pool(
    pool: Pool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orm_app.postgresql.pool._LOG_EVERY_S", 600.0)
    pool.name = "logged"  # what is said of others is not counted
    Reachable.is_down = True
    deadline = time.monotonic() + 60
    while pool.get_stats().get("connections_errors", 0) <= 2:
        assert time.monotonic() < deadline
        with pytest.raises(PoolTimeout):
            pool.getconn(1.0)
    said = [one for one in caplog.messages if "error connecting in 'logged'" in one]
    assert len(said) == 1


def test_getconn__whoever_waited_has_given_up__no_caller_is_counted_and_no_attempt_made(pool: Pool) -> None:
    Reachable.is_down = True
    for _ in range(3):
        with pytest.raises(PoolTimeout):
            pool.getconn(0.3)
    assert pool.get_stats()["requests_waiting"] == 0
    attempts, deadline = -1, time.monotonic() + 60
    while pool.get_stats()["connections_num"] != attempts:  # until the last one has ended
        assert time.monotonic() < deadline
        attempts = pool.get_stats()["connections_num"]
        time.sleep(0.7)
    Reachable.is_down = False
    pool.putconn(pool.getconn())


def test_getconn__too_many_wait__names_the_limit(pool: Pool) -> None:
    pool.max_waiting = 1
    held = [pool.getconn() for _ in range(3)]
    thread = threading.Thread(target=lambda: pool.putconn(pool.getconn()))
    thread.start()
    while not pool.get_stats()["requests_waiting"]:
        time.sleep(0.01)
    with pytest.raises(TooManyRequests, match="1 callers wait: max_waiting is 1"):
        pool.getconn()
    for connection in held:
        pool.putconn(connection)
    thread.join(60)


def test_wrapper__entry_of_a_url__lends_from_our_pool(postgresql_url: str) -> None:
    entry = {"TIME_ZONE": None, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False, "TEST": {}} | from_url(
        postgresql_url
    )
    wrapper = DatabaseWrapper(entry, "one_of_a_kind")
    try:
        assert isinstance(wrapper.pool, Pool)
        assert wrapper.pool is wrapper.pool
        assert (wrapper.pool.max_size, wrapper.pool.timeout) == (8, 10)
    finally:
        wrapper.close_pool()
