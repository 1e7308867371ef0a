"""What a worker does beside requests: figures of what happens to targets, the fleet's size, changes as they are told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
import structlog
from django.db import connections

from cache_app import connections as store
from cache_app import seldom
from gateway import board, changes, hooks, watch, worker
from gateway.transforming import Transforms

from .client import eventually, request
from .conftest import SENSITIVE, RunningEdge, route, service, target
from .odd_upstream import OddUpstream, running


def test_worker__what_happens_to_targets__counted(start_edge: Callable[..., RunningEdge]) -> None:
    with running(2) as (one, dead):
        dead.die()
        to = service([target(dead.port), target(one.port)], policy=replace(SENSITIVE, outlier_failures=1))
        edge = start_edge([route("/api", to)])
        to.events = edge.worker.tally
        answers = [edge.ask(request("/api/x")) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        tally = edge.worker.tally
        assert tally.ejections == {("odd", edge.targets[0].name): 1}
        assert tally.retries == {"odd": 1}
        assert tally.upstream_errors == {(edge.targets[0].name, "connect_failed"): 1}
        text = edge.ask(request("/gateway/metrics", key=None)).body.decode()
        assert f'brain_gateway_target_ejected{{service="odd",target="{edge.targets[0].name}"}} 1.0' in text


def test_worker__failing_plugin__counted_and_the_request_goes_on(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no")

    watched = hooks.Watch()
    plugged = hooks.Hooks([hooks.Hook("bad", "on_request", fails, False)], watched)
    edge = start_edge([route("/api", [target(upstream.port)], transforms=Transforms(None, plugged))])
    watched.on_failure = edge.worker.tally.plugin_failed
    assert edge.ask(request("/api/x")).status == 200
    assert edge.worker.tally.plugin_failures == {"bad": 1}


def test_worker__fleet__every_worker_knows_how_many_there_are(start_edge: Callable[..., RunningEdge]) -> None:
    with running(1) as (one,):
        first, second = (start_edge([route("/api", [target(one.port)])]) for _ in range(2))
        assert eventually(lambda: first.worker.limiter.accounts.nodes >= 2)

        def views() -> int:
            mine = [one for one in board.read() or () if one.name == first.targets[0].name]
            return len(mine[0].views) if mine else 0

        assert eventually(lambda: views() == 2)
        assert eventually(lambda: second.worker.limiter.accounts.nodes >= 2)


def test_worker__store_that_fails_in_an_unknown_way__requests_are_served_and_every_timer_lives(
    start_edge: Callable[..., RunningEdge], gateway_conf: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway_conf(TRAFFIC_FLUSH_S=0.05, METRICS_PUBLISH_S=0.05, LAST_USED_S=0.1, SNAPSHOT_POLL_S=0.05)
    policy = replace(SENSITIVE, health_enabled=True, health_interval_s=0.2)
    seldom.forget()
    with running() as (one,), structlog.testing.capture_logs() as lines:
        for name in ("client", "aclient", "link", "alink"):
            monkeypatch.setattr(store, name, _odd)
        edge = start_edge([route("/api", service([target(one.port)], policy=policy))])
        assert edge.ask(request("/api/x")).status == 200  # it has started
        monkeypatch.setattr(edge.worker.holder, "refresh", _odd)
        told = {
            "board_failed", "traffic_failed", "prober_alone", "refresh_failed", "configuration_channel_failed",
        }  # fmt: skip

        def known() -> set[str]:
            edge.ask(request("/api/x"))
            return told & {line["event"] for line in lines}

        assert eventually(lambda: known() == told), known()
        assert edge.ask(request("/api/x")).status == 200
        assert eventually(lambda: edge.targets[0].health.state == "healthy")
    assert not [line for line in lines if line["event"] == "edge_timers_failed"]


async def test_follow__told_change__looked_for_at_once(gateway_conf: Callable[..., None]) -> None:
    gateway_conf(SNAPSHOT_POLL_S=30.0)
    looked: list[float] = []

    async def refresh() -> None:
        looked.append(time.monotonic())

    following = asyncio.ensure_future(watch.follow(refresh))
    try:
        async with asyncio.timeout(25):
            while not looked:  # the one that is due to the beginning of the listening
                await asyncio.sleep(0.01)
            before, told = len(looked), time.monotonic()
            await asyncio.to_thread(changes.announce, 7)
            while len(looked) == before:
                await asyncio.sleep(0.01)
        assert looked[-1] - told < 20.0  # and not SNAPSHOT_POLL_S
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_follow__nothing_told__looked_for_all_the_same(
    gateway_conf: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway_conf(SNAPSHOT_POLL_S=0.05)
    monkeypatch.setattr(store, "aclient", _away)
    looked = 0

    async def refresh() -> None:
        nonlocal looked
        looked += 1

    following = asyncio.ensure_future(watch.follow(refresh))
    async with asyncio.timeout(30):
        while looked < 3:
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def test_announce__first_node_has_died__told_by_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Node:
        def __init__(self, *, is_alive: bool) -> None:
            self.is_alive = is_alive

        def call(self, *command: Any) -> None:
            if not self.is_alive:
                raise redis.ConnectionError
            told.append(command)

        def primaries(self) -> list[Node]:
            return [Node(is_alive=False), Node(is_alive=True), Node(is_alive=True)]

    monkeypatch.setattr(store, "link", lambda *_, **__: Node(is_alive=True))
    monkeypatch.setattr(random, "shuffle", lambda _: None)
    changes.announce(7)
    assert told == [("PUBLISH", changes.CHANNEL, 7)]


async def test_follow__look_that_fails__told_and_looked_again(
    gateway_conf: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway_conf(SNAPSHOT_POLL_S=0.05)
    monkeypatch.setattr(store, "aclient", _odd)
    seldom.forget()
    looked = 0

    async def refresh() -> None:
        nonlocal looked
        looked += 1
        raise TypeError("a bug")

    with structlog.testing.capture_logs() as lines:
        following = asyncio.ensure_future(watch.follow(refresh))
        async with asyncio.timeout(30):
            while looked < 3:
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    told = [line["event"] for line in lines]
    assert sorted(told) == ["configuration_channel_failed", "refresh_failed"]  # once for all of them


async def test_follow__channel_is_refused__said_in_the_log(
    gateway_conf: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise redis.exceptions.NoPermissionError("NOPERM No permissions to access a channel")

    async def refresh() -> None: ...

    monkeypatch.setattr(store, "aclient", refused)
    seldom.forget()
    with structlog.testing.capture_logs() as lines:
        following = asyncio.ensure_future(watch.follow(refresh))
        async with asyncio.timeout(30):
            while not lines:
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    (line,) = lines
    assert line["event"] == "configuration_channel_refused"
    assert "NOPERM" in line["error"]


class Scripted:
    """A channel that says this, in turn."""

    def __init__(self, *messages: str) -> None:
        self.messages, self.pings = list(messages), 0

    async def get_message(self, timeout: float) -> dict[str, str] | None:
        said = self.messages.pop(0)
        return {"type": said} if said else None

    async def ping(self) -> None:
        self.pings += 1


async def test_hear__silence_after_a_question__the_server_is_left() -> None:
    told = asyncio.Event()
    quiet = Scripted("subscribe", "", "pong", "", "message", "", "")
    with pytest.raises(redis.ConnectionError, match="silent"):
        await watch._hear(quiet, told)
    assert (quiet.pings, quiet.messages, told.is_set()) == (3, [], True)


async def test_hear__pong__is_no_news() -> None:
    told = asyncio.Event()
    with pytest.raises(redis.ConnectionError):
        await watch._hear(Scripted("", "pong", "", ""), told)
    assert not told.is_set()


def _odd(*_: Any, **__: Any) -> Any:
    raise TypeError("a bug")


def _away(*_: Any, **__: Any) -> Any:
    raise ConnectionRefusedError


@pytest.mark.parametrize(("given", "expected"), [(30, 2.0), (1, 1)])
def test_run__pool_of_connections__waited_for_less_long_than_by_a_page(
    monkeypatch: pytest.MonkeyPatch, given: float, expected: float
) -> None:
    """Neither the start of an edge nor its end may wait for a database that is away."""
    options = {"pool": {"timeout": given}}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    worker._wait_less_for_the_database()
    assert options["pool"]["timeout"] == expected
