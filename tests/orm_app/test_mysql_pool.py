"""The pool's own rules, with connections that only say what happened to them; test_mysql_pool_django.py has the server."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import Any

import pytest

pytest.importorskip("MySQLdb")

from orm_app.mysql_pool import options
from orm_app.mysql_pool.options import PoolOptions
from orm_app.mysql_pool.pool import Pool, PoolClosed, PoolTimeout, TooManyRequests


class Connection:
    is_open = True
    is_alive = True
    is_abandoned = False
    state = "clean"


class Driver:
    """`made` and `asked` in order; `refuses`: how many further attempts to connect fail."""

    def __init__(self) -> None:
        self.made, self.refuses, self.idle_s = 0, 0, -1.0

    def connect(self) -> Any:
        if self.refuses:
            self.refuses -= 1
            raise ConnectionRefusedError("no server")
        self.made += 1
        return Connection()

    def is_alive(self, connection: Any, idle_s: float) -> bool:
        self.idle_s = idle_s
        return connection.is_alive

    def reset(self, connection: Any) -> Any:
        return connection.state

    def close(self, connection: Any) -> None:
        connection.is_open = False

    def abandon(self, connection: Any, *, is_idle: bool) -> None:
        connection.is_abandoned = True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def made(driver):
    """Makes pools and closes them."""
    pools: list[Pool] = []

    def make(clock: Any = time.monotonic, **chosen: Any) -> Pool:
        pool = Pool(
            "default", driver, PoolOptions(**{"timeout": 60} | chosen), clock=clock, chance=lambda: 0.0
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def in_thread(call: Any) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_getconn__given_back_last__lent_first(made, driver):
    pool = made(max_size=3)
    first, second = pool.getconn(), pool.getconn()
    pool.putconn(first)
    pool.putconn(second)
    assert pool.getconn() is second
    assert pool.getconn() is first
    assert driver.made == 2


def test_getconn__all_in_use__timeout_says_what_to_raise(made):
    pool = made(max_size=1, timeout=0.05)
    held = pool.getconn()
    with pytest.raises(PoolTimeout, match=r"all 1 connections of DATABASES\['default'\].*0\.05 s.*max_size"):
        pool.getconn()
    pool.putconn(held)
    assert pool.getconn() is held
    stats = pool.get_stats()
    assert (stats["requests_num"], stats["requests_queued"], stats["requests_errors"]) == (3, 1, 1)
    assert stats["requests_wait_ms"] >= 50
    assert stats["requests_waiting"] == 0


def test_getconn__max_waiting_wait_already__refused_at_once(made):
    pool = made(max_size=1, max_waiting=1)
    held = pool.getconn()
    waiting = in_thread(lambda: pool.putconn(pool.getconn()))
    until(lambda: pool.get_stats()["requests_waiting"] == 1)
    with pytest.raises(TooManyRequests, match="max_waiting is 1"):
        pool.getconn()
    pool.putconn(held)
    waiting.join(60)
    assert pool.get_stats()["requests_errors"] == 1


def test_getconn__several_wait__served_in_their_order(made):
    pool = made(max_size=1)
    held, order = pool.getconn(), []

    def ask(number: int) -> None:
        connection = pool.getconn()
        order.append(number)
        pool.putconn(connection)

    threads = []
    for number in range(5):
        threads.append(in_thread(lambda number=number: ask(number)))
        until(lambda number=number: pool.get_stats()["requests_waiting"] == number + 1)
    pool.putconn(held)
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2, 3, 4]


def test_getconn__connect_fails__the_error_itself_and_the_place_is_free(made, driver):
    pool = made(max_size=1)
    driver.refuses = 1
    with pytest.raises(ConnectionRefusedError):
        pool.getconn()
    pool.putconn(pool.getconn())
    stats = pool.get_stats()
    assert (stats["pool_size"], stats["connections_num"], stats["connections_errors"]) == (1, 2, 1)


def test_getconn__idle_one_is_dead__replaced_unseen(made):
    pool = made(max_size=1)
    dead = pool.getconn()
    pool.putconn(dead)
    dead.is_alive = False
    fresh = pool.getconn()
    assert fresh is not dead
    assert not dead.is_open
    stats = pool.get_stats()
    assert (stats["pool_size"], stats["connections_lost"]) == (1, 1)


def test_getconn__how_long_it_was_idle__is_what_the_driver_decides_by(made, driver):
    clock = Clock()
    pool = made(clock, max_size=1)
    pool.putconn(pool.getconn())
    clock.now += 45
    pool.getconn()
    assert driver.idle_s == 45


@pytest.mark.parametrize("is_idle", [True, False])
def test_lifetime__over__closed_on_return_or_before_it_is_lent(made, driver, is_idle):
    clock = Clock()
    pool = made(clock, max_lifetime=60)
    old = pool.getconn()
    if is_idle:
        pool.putconn(old)
    clock.now += 60
    if not is_idle:
        pool.putconn(old)
        assert not old.is_open
    fresh = pool.getconn()
    assert fresh is not old
    assert not old.is_open
    assert pool.get_stats()["connections_lost"] == 0


def test_putconn__dirty_or_broken__closed_and_counted(made):
    pool = made()
    for state, counted in (("dirty", "returns_dirty"), ("broken", "returns_bad")):
        connection = pool.getconn()
        connection.state = state
        pool.putconn(connection)
        assert not connection.is_open
        assert pool.get_stats()[counted] == 1
    rejected = pool.getconn()
    pool.putconn(rejected, is_broken=True)
    assert not rejected.is_open
    assert pool.get_stats()["pool_size"] == 0


def test_putconn__broken_and_somebody_waits__the_place_is_handed_on(made):
    pool = made(max_size=1)
    held, got = pool.getconn(), []
    waiting = in_thread(lambda: got.append(pool.getconn()))
    until(lambda: pool.get_stats()["requests_waiting"] == 1)
    pool.putconn(held, is_broken=True)
    waiting.join(60)
    assert got[0] is not held
    assert pool.get_stats()["pool_size"] == 1


def test_putconn__twice__lent_to_one_only(made):
    pool = made(max_size=2)
    connection = pool.getconn()
    pool.putconn(connection)
    pool.putconn(connection)
    assert pool.get_stats()["pool_available"] == 1


def test_getconn__thread_ended_without_giving_back__its_place_is_free_again(made):
    pool = made(max_size=1)
    in_thread(pool.getconn).join(60)
    gc.collect()
    pool.putconn(pool.getconn())
    assert pool.get_stats()["connections_lost"] == 1


def test_getconn__thread_ended_and_the_garbage_was_searched_just_before__searched_again_in_time(made):
    pool = made(max_size=1, timeout=0.6)
    pool._searched_at = time.monotonic()

    def forget() -> None:
        circle = [pool.getconn()]
        circle.append(circle)  # what only the garbage collector can free, as Django's wrapper is

    in_thread(forget).join(60)
    pool.putconn(pool.getconn())
    assert pool.get_stats()["connections_lost"] == 1


def test_shrink__idle_for_long__closed_down_to_min_size(made):
    clock = Clock()
    pool = made(clock, min_size=1, max_size=3, max_idle=10)
    lent = [pool.getconn() for _ in range(3)]
    for connection in lent:
        pool.putconn(connection)
    clock.now += 5
    pool.putconn(pool.getconn())
    clock.now += 6
    pool.shrink()
    assert [connection.is_open for connection in lent] == [False, False, True]
    assert pool.get_stats()["pool_size"] == 1


def test_max_idle__over_and_nobody_asks__closed_by_the_timer(made):
    pool = made(min_size=0, max_idle=0.05)
    connection = pool.getconn()
    pool.putconn(connection)
    until(lambda: not connection.is_open)
    assert pool.get_stats()["pool_size"] == 0


def test_min_size__after_the_first_one__filled_in_the_background(made):
    pool = made(min_size=3, max_size=4)
    held = pool.getconn()
    until(lambda: pool.get_stats()["pool_available"] == 2)
    pool.putconn(held)
    assert pool.get_stats()["pool_size"] == 3


def test_close__idle_end_now_lent_later_and_waiters_are_told(made):
    pool, errors = made(max_size=2), []
    idle, lent = pool.getconn(), pool.getconn()
    pool.putconn(idle)
    pool.close()
    assert (idle.is_open, lent.is_open) == (False, True)
    pool.putconn(lent)
    assert not lent.is_open
    with pytest.raises(PoolClosed):
        pool.getconn()

    pool = made(max_size=1)
    held = pool.getconn()

    def wait() -> None:
        try:
            pool.getconn()
        except PoolClosed as error:
            errors.append(error)

    waiting = in_thread(wait)
    until(lambda: pool.get_stats()["requests_waiting"] == 1)
    pool.close()
    waiting.join(60)
    assert len(errors) == 1
    pool.putconn(held)
    assert pool.get_stats()["pool_size"] == 0


def test_fork__child_starts_empty_and_says_nothing__parent_keeps_all(made, driver):
    pool = made(max_size=2)
    idle, lent = pool.getconn(), pool.getconn()
    pool.putconn(idle)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        silent = idle.is_abandoned and lent.is_abandoned and idle.is_open and lent.is_open
        fresh = pool.getconn()
        pool.putconn(fresh)
        anew = fresh not in (idle, lent) and pool.get_stats()["pool_size"] == 1
        os.write(writing, b"ok" if silent and anew else b"no")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 2) == b"ok"
    os.close(reading)
    os.close(writing)
    assert pool.getconn() is idle
    assert not idle.is_abandoned
    assert driver.made == 2


def test_threads__many_at_once__never_more_than_max_size(made, driver):
    pool, in_use, most = made(max_size=3), [], []

    def work() -> None:
        for _ in range(50):
            with pool.connection() as connection:
                assert connection not in in_use
                in_use.append(connection)
                most.append(len(in_use))
                in_use.remove(connection)

    for thread in [in_thread(work) for _ in range(8)]:
        thread.join(60)
    stats = pool.get_stats()
    assert max(most) <= 3
    assert driver.made <= 3
    assert (stats["requests_num"], stats["requests_errors"]) == (400, 0)
    assert stats["pool_available"] == stats["pool_size"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("yes", "True or a dict"),
        ({"max_sise": 4}, "unknown key 'max_sise': use min_size"),
        ({"timeout": "10"}, "timeout is not a number"),
        ({"max_size": True}, "max_size is not a number"),
        ({"max_idle": -1}, "max_idle is not a number from 0"),
        ({"max_size": 0}, "smaller"),
        ({"min_size": 9}, "smaller"),
    ],
)
def test_options__unusable__a_sentence_names_the_key(given, says):
    with pytest.raises(ValueError, match=says):
        options.read(given)


def test_options__true_or_some__defaults_for_the_rest():
    assert options.read(True) == PoolOptions()
    assert options.read({"max_size": 20}) == PoolOptions(max_size=20)
