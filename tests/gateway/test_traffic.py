"""Traffic that several processes count: added up in the real Valkey, kept while it is away, never added twice."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from cache_app import connections as store
from cache_app.link import Link
from gateway import traffic, traffic_backlog
from gateway.errors import TrafficUnavailable
from gateway.latency import ERROR
from gateway.tally import RETIRED_AFTER_S, Names, Tally
from gateway.traffic import Traffic, read
from gateway.traffic_backlog import Backlog
from gateway.traffic_report import CLASSES, Step, charts, report

NOW = time.time() // 3600 * 3600 + 1800.0  # half past, so that a few minutes more are the same hour


def request(
    tally: Tally, counted: Traffic, consumer: str, route: str, status: int = 200, took_s: float = 0.02
) -> None:
    tally.finished(route, "tasks", "a:80", "GET", status, "", took_s, took_s / 2)
    counted.count(consumer, route, status)


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def counted(tally: Tally, prefix: str) -> Traffic:
    return Traffic(tally, prefix=prefix)


def requests(prefix: str, **values: Any) -> int:
    return read(NOW - 3600, NOW + 1, NOW, prefix=prefix, **values).total.requests


def test_read__first_second_of_a_minute__that_minute_is_in_it(
    tally: Tally, counted: Traffic, prefix: str
) -> None:
    minute = NOW // 60 * 60
    request(tally, counted, "ann", "/tasks")
    counted.collect(minute + 0.2)
    assert counted.send()
    assert read(minute - 3600, minute + 0.8, minute + 0.8, prefix=prefix).total.requests == 1


def test_read__two_processes__routes_consumers_and_points_added_up(
    tally: Tally, counted: Traffic, prefix: str
) -> None:
    other_tally = Tally()
    other = Traffic(other_tally, prefix=prefix)
    for at in range(100):
        request(tally, counted, "ann", "/tasks", took_s=0.010 if at < 90 else 1.0)
    request(tally, counted, "ann", "/users", 500)
    request(other_tally, other, "bob", "/tasks", 404)
    request(other_tally, other, "", "", 404)
    for process in (counted, other):
        process.collect(NOW)
        assert process.send()
    request(tally, counted, "ann", "/tasks")
    counted.collect(NOW + 60)
    assert counted.send()

    found = read(NOW - 120, NOW + 61, NOW + 60, prefix=prefix)
    assert (found.step_s, found.points[-1][0]) == (60, NOW + 60)
    assert [sums.requests for _, sums in found.points] == [0, 0, 103, 1]
    routes = dict(found.routes)
    assert [(name, sums.requests) for name, sums in found.routes] == [
        ("/tasks", 102),
        ("/users", 1),
        ("unrouted", 1),
    ]
    assert routes["/tasks"].by_class == [0, 0, 101, 0, 1, 0]
    assert routes["/users"].error_ratio == 1.0
    assert [(name, sums.requests) for name, sums in found.consumers] == [
        ("ann", 102),
        ("anonymous", 1),
        ("bob", 1),
    ]
    p50, p95, p99 = routes["/tasks"].quantiles_s
    assert p50 == pytest.approx(0.010, rel=ERROR)
    assert p95 == pytest.approx(1.0, rel=ERROR)
    assert p99 == pytest.approx(1.0, rel=ERROR)

    assert [name for name, _ in read(NOW, NOW + 61, NOW + 60, prefix=prefix, consumer="ann").routes] == [
        "/tasks",
        "/users",
    ]
    of_tasks = read(NOW, NOW + 61, NOW + 60, prefix=prefix, route="/tasks")
    assert [name for name, _ in of_tasks.consumers] == ["ann", "bob"]
    assert of_tasks.total.requests == 102

    by_hours = read(NOW - 86_400, NOW + 61, NOW + 60, prefix=prefix)
    assert (by_hours.step_s, by_hours.total.requests, by_hours.points[-1][1].requests) == (3600, 104, 104)
    assert by_hours.total.quantiles_s == found.total.quantiles_s


def test_send__stored__expires_with_its_minutes_and_hours(
    counted: Traffic, tally: Tally, prefix: str
) -> None:
    request(tally, counted, "ann", "/tasks")
    counted.collect(NOW)
    assert counted.send()
    client = store.client()
    left = {key.decode().removeprefix(prefix): client.ttl(key) for key in client.keys(prefix + "*")}
    assert {key.partition(":")[0] for key in left} == {"m", "h", "added"}
    assert all(0 < ttl <= 7_200 + 3_600 for key, ttl in left.items() if key.startswith("m:"))
    assert all(6 * 86_400 < ttl <= 7 * 86_400 + 7_200 for key, ttl in left.items() if key.startswith("h:"))


def test_send__redis_away__kept_and_added_later_to_the_minute_it_was(
    counted: Traffic, tally: Tally, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nobody = f"unix://{tmp_path}/nobody?db=0"
    with monkeypatch.context() as patch:
        patch.setattr(store, "default_url", lambda: nobody)
        for minute in range(3):
            request(tally, counted, "ann", "/tasks")
            counted.collect(NOW + 60 * minute)
            assert not counted.send()
        with pytest.raises(TrafficUnavailable):
            read(NOW, NOW + 1, NOW)
    request(tally, counted, "ann", "/tasks")
    counted.collect(NOW + 180)
    while not counted.send():
        pass
    counted.send()  # what came while the first batch waited
    points = read(NOW, NOW + 181, NOW + 180, prefix=prefix).points
    assert [sums.requests for _, sums in points] == [1, 1, 1, 1]
    assert [sum(sums.times) for _, sums in points] == [1, 1, 1, 1]
    assert counted.dropped == 0


def test_send__answer_lost__not_added_twice(
    counted: Traffic, tally: Tally, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Link.finish

    def broken(link: Link, *args: Any) -> Any:
        finish(link, *args)
        raise redis.ConnectionError("the answer got lost")

    request(tally, counted, "ann", "/tasks")
    counted.collect(NOW)
    with monkeypatch.context() as patch:
        patch.setattr(Link, "finish", broken)
        assert not counted.send()
    request(tally, counted, "ann", "/tasks")
    counted.collect(NOW)
    assert counted.send()
    assert counted.send()
    found = read(NOW, NOW + 1, NOW, prefix=prefix)
    assert found.total.requests == sum(found.total.times) == 2


def test_send__more_than_one_batch__all_of_it(counted: Traffic, tally: Tally, prefix: str) -> None:
    for number in range(60):
        for consumer in range(20):
            request(tally, counted, f"c{consumer}", f"/r{number}")
    counted.collect(NOW)
    assert counted.send()
    found = read(NOW, NOW + 1, NOW, prefix=prefix)
    assert found.total.requests == sum(found.total.times) == 1200
    assert {sums.requests for _, sums in found.routes} == {20}


def test_count__endless_consumers__the_busiest_by_name_the_rest_as_one(
    counted: Traffic, tally: Tally, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic_backlog, "TOP_CONSUMERS", 3)
    monkeypatch.setattr(traffic, "_MINUTES", traffic._MINUTES._replace(most_counts=5))
    for name in ("busy", "busier", "odd \ud800\n"):
        for _ in range(5):
            request(tally, counted, name, "/tasks")
    for round_ in range(3):
        for number in range(50):
            request(tally, counted, f"{round_} once {number}", "/tasks")
        counted.collect(NOW)
    for number in range(10):  # now and then somebody new
        request(tally, counted, f"late {number}", "/tasks")
        counted.collect(NOW)
        assert counted.send()
    found = read(NOW, NOW + 1, NOW, prefix=prefix)
    names = dict(found.consumers)
    assert found.total.requests == 15 + 150 + 10
    assert len(names) == 5
    assert {"busy", "busier", "odd ?\n"} < set(names)
    assert names["other"].requests == 150 + 10 - 1


def test_backlog__redis_away_for_long__bounded_and_what_is_lost_is_told() -> None:
    backlog = Backlog(max_rows=12, max_minutes=3)
    before, now = [0.0] * 4, [2.0, 1.0, 0.0, 0.5]
    for minute in range(5):
        counts = {("/tasks", f"c{consumer}", 2): 1 for consumer in range(6)}
        backlog.add(minute, counts, [(f"/r{route}", before, now) for route in range(4)])
    left = backlog.take()
    assert [number for number, _ in left] == [2, 3, 4]
    kept = sum(sum(minute.counts.values()) for _, minute in left)
    assert kept + backlog.dropped == 30
    assert kept > 0
    assert (
        sum(len(minute.counts) + len(minute.times) for _, minute in left) <= 12 + 3
    )  # and "other" of each minute
    assert sum(sum(buckets.values()) for _, minute in left for buckets in minute.times.values()) == 3 * 4 * 3
    assert backlog.take() == []
    backlog.add(5, {("/tasks", "ann", 2): 1}, [])
    assert [minute.counts for _, minute in backlog.take()] == [{("/tasks", "ann", 2): 1}]


def test_collect__routes_retired__neither_news_nor_less(counted: Traffic, tally: Tally, prefix: str) -> None:
    request(tally, counted, "ann", "/old")
    counted.collect(NOW)
    tally.retire(Names(), 0.0)
    tally.retire(Names(), RETIRED_AFTER_S)
    counted.collect(NOW)
    request(tally, counted, "ann", "/old")
    counted.collect(NOW)
    assert counted.send()
    found = read(NOW, NOW + 1, NOW, prefix=prefix)
    assert sum(found.total.times) == found.total.requests == 2
    assert [name for name, _ in found.routes] == ["/old"]


def _one_process(prefix: str, url: str) -> None:
    store.default_url = lambda: url
    tally = Tally()
    counted = Traffic(tally, prefix=prefix)
    for _ in range(200):
        request(tally, counted, "ann", "/tasks")
        counted.collect(NOW)
        assert counted.send()


def test_send__processes_at_the_same_time__every_request_once(prefix: str) -> None:
    spawned = multiprocessing.get_context("fork")
    workers = [spawned.Process(target=_one_process, args=(prefix, store.default_url())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    found = read(NOW, NOW + 1, NOW, prefix=prefix)
    assert found.total.requests == sum(found.total.times) == 600


# --- the report


def test_charts__report__lines_as_the_pages_script_draws_them() -> None:
    steps = [
        Step(0, {("/a", "ann", 2): 3, ("/a", "bob", 5): 1}, {"/a": {40: 3, 80: 1}}),
        Step(60, {}, {}),
    ]
    drawn = {chart["id"]: chart for chart in charts(report(steps, 60))}
    assert [chart["kind"] for chart in drawn.values()] == ["bars", "lines", "lines"]
    lines = {line["name"]: line["values"] for chart in drawn.values() for line in chart["lines"]}
    assert [lines[name] for name in CLASSES] == [[3, 0], [0, 0], [0, 0], [1, 0]]
    assert lines["errors"] == [0.25, None]
    assert lines["p50"][1] is None
    assert 0 < lines["p50"][0] < lines["p99"][0]
    assert drawn["errors"]["told"] == "1 of 4 requests failed."


def test_report__of_a_consumer__no_latency_is_made_up() -> None:
    found = report([Step(0, {("/a", "ann", 2): 3}, {"/a": {40: 9}})], 60, consumer="ann")
    assert found.total.requests == 3
    assert found.total.quantiles_s == (None, None, None)
    assert report([], 60).total.error_ratio is None
