"""What the API says of the running fleet: targets as edges see them, traffic, and requests that are tried."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from django.test import Client

from cache_app import connections as store
from foundation import roles
from foundation.models import AuditEntry
from gateway import board, issuers, pool
from gateway.board import Board
from gateway.holder import Holder
from gateway.models import Configuration
from gateway.tally import Tally
from gateway.traffic import Traffic
from tests.foundation.people import client_of

from . import api_rows as rows
from .api_rows import pointers, problem, send
from .conftest import calm

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER)


@pytest.fixture
def operator() -> Client:
    return client_of(roles.OPERATOR)


@pytest.fixture
def name() -> str:
    """Of a service or consumer that no other test has: the board and the traffic are the session's."""
    return f"s{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment is no store that is away, and no process that has died."""
    monkeypatch.setattr(board, "STORE_TIMEOUT_S", 30.0)
    monkeypatch.setattr(board, "KEPT_S", 60.0)


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            raise redis.ConnectionError("away")

    for way in ("client", "link"):
        monkeypatch.setattr(store, way, lambda *_: Away())


# --- targets ---------------------------------------------------------------------------------------------------------
def publish(name: str) -> pool.Service:
    """As an edge does for a service with two targets, of which the first fails."""
    first, second = pool.Target(name, "127.0.0.1:9001"), pool.Target(name, "127.0.0.1:9002")
    service = pool.Service(name, [first, second], "round_robin", random=lambda: 0.5)
    first.inflight, first.ewma_s, first.ewma_at = 2, 0.25, 1.0
    first.health.state, first.health.reason = "unhealthy", "connection refused"
    first.health.checked_at, first.health.next_at = 1_800_000_000.0, 1_800_000_005.0
    for _ in range(20):
        first.breaker.failed(first.breaker.epoch, time.monotonic())

    async def once() -> None:
        await Board(lambda: [service]).publish()
        await store.aclient().aclose()

    asyncio.run(once())
    calm(second)
    return service


def test_targets__edges_that_know_them__standing_of_each(viewer: Client, name: str) -> None:
    service = rows.service(name)
    failing, unknown = rows.target(service), rows.target(service, "http://127.0.0.1:9003")
    rows.target(service, "http://127.0.0.1:9002")
    publish(name)
    listed = {
        row["url"]: row["standing"]
        for row in send(viewer, "GET", f"targets?service={name}").json()["results"]
    }
    bad = listed["http://127.0.0.1:9001"]
    why = r"health: connection refused; open since \d+ s: 20 of 20 requests failed; next probe in"
    assert re.match(why, bad.pop("why"))
    assert bad == {
        "health": "unhealthy", "health_reason": "connection refused", "checked_at": "2027-01-15T08:00:00Z",
        "next_probe_at": "2027-01-15T08:00:05Z", "breaker": "open", "ejected_until": None, "inflight": 2,
        "latency_s": 0.25, "processes": 1,
    }  # fmt: skip
    assert (listed["http://127.0.0.1:9002"]["health"], listed["http://127.0.0.1:9002"]["why"]) == (
        "unknown",
        "",
    )
    assert listed["http://127.0.0.1:9003"] is None
    assert send(viewer, "GET", f"targets/{failing.pk}").json()["standing"]["breaker"] == "open"
    assert send(viewer, "GET", f"targets/{unknown.pk}").json()["standing"] is None


def test_targets__standing__no_part_of_the_etag_nor_of_what_is_written(name: str) -> None:
    admin = client_of(roles.ADMIN)
    target = rows.target(rows.service(name))
    before = send(admin, "GET", f"targets/{target.pk}")
    publish(name)
    after = send(admin, "GET", f"targets/{target.pk}")
    assert (before.json()["standing"], before["ETag"]) == (None, after["ETag"])
    changed = send(
        admin, "PATCH", f"targets/{target.pk}", {"weight": 2, "standing": {}}, If_Match=after["ETag"]
    )
    assert (changed.status_code, changed.json()["standing"]) == (200, None)


def test_targets__redis_away__null(viewer: Client, no_store: None, name: str) -> None:
    rows.target(rows.service(name))
    (row,) = send(viewer, "GET", "targets").json()["results"]
    assert row["standing"] is None


# --- traffic ---------------------------------------------------------------------------------------------------------
def count(consumer: str, route: str) -> None:
    """Eight good requests of 20 ms, two that failed."""
    tally = Tally()
    counted = Traffic(tally)
    for status in [200] * 8 + [502] * 2:
        tally.finished(route, "tasks", "a:80", "GET", status, "", 0.02, 0.01)
        counted.count(consumer, route, status)
    counted.collect(time.time())
    assert counted.send()


def test_traffic__by_route_and_consumer__sums_points_and_quantiles(viewer: Client, name: str) -> None:
    count(name, f"/{name}")
    told = send(viewer, "GET", f"traffic?route=/{name}").json()
    total = told["total"]
    assert (total["requests"], total["errors"], total["error_ratio"]) == (10, 2, 0.2)
    assert total["by_class"] == {"2xx": 8, "3xx": 0, "4xx": 0, "5xx": 2}
    assert 0.017 < total["p50_s"] < 0.023
    assert [row["name"] for row in told["routes"]] == [f"/{name}"]
    assert [(row["name"], row["requests"], row["p50_s"]) for row in told["consumers"]] == [(name, 10, None)]
    assert (told["step_s"], 60 <= len(told["points"]) <= 62) == (60, True)
    assert sum(point["requests"] for point in told["points"]) == 10
    assert datetime.fromisoformat(told["points"][0]["at"]).tzinfo is not None
    mine = send(viewer, "GET", f"traffic?consumer={name}").json()
    assert (mine["total"]["requests"], mine["total"]["p99_s"]) == (10, None)


def test_traffic__times__as_asked_for(viewer: Client, name: str) -> None:
    count(name, f"/{name}")
    now = datetime.now(UTC)
    day = send(
        viewer, "GET", f"traffic?route=/{name}&since={now.replace(year=2020):%Y-%m-%dT%H:%M:%SZ}"
    ).json()
    assert (day["step_s"], day["total"]["requests"], len(day["points"])) == (3600, 10, 169)
    over = send(
        viewer, "GET", f"traffic?route=/{name}&since=2020-01-01&until=2020-01-02T00:00:00+02:00"
    ).json()
    assert (over["since"], over["until"]) == ("2020-01-01T00:00:00Z", "2020-01-01T22:00:00Z")
    assert (over["total"]["requests"], over["total"]["error_ratio"], over["points"]) == (0, None, [])


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("sicne=2020-01-01", "/sicne"), ("since=yesterday", "/since"), ("until=", "/until"),
        ("since=0001-01-01T00:00:00%2B14:00", "/since"), ("since=2020-01-02&until=2020-01-01", "/since"),
    ],
)  # fmt: skip
def test_traffic__what_cannot_be_asked__400_that_names_the_parameter(
    viewer: Client, query: str, at: str
) -> None:
    assert pointers(send(viewer, "GET", f"traffic?{query}")) == [at]


def test_traffic__redis_away__503(viewer: Client, no_store: None) -> None:
    assert "kept in Redis, which does not answer" in problem(send(viewer, "GET", "traffic"), 503)["detail"]


# --- a request that is tried -----------------------------------------------------------------------------------------
@pytest.fixture
def fresh_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "holder", Holder())


def test_test__request__explained_and_its_credentials_nowhere(
    operator: Client, fresh_holder: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    billing = rows.service()
    rows.target(billing)
    rows.route(billing, plan=rows.plan(), roles=["viewer"])
    rows.consumer(roles=["operator"])
    version, audited = Configuration.objects.get().version, AuditEntry.objects.count()
    body = {"method": "POST", "url": "/invoices/7?x=1", "consumer": "robot", "client_ip": "10.0.0.7"}
    answer = send(operator, "POST", "test", body)
    told = answer.json()
    assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
    assert (told["verdict"], told["status"], told["route"]) == (
        "refused with 401: no enabled consumer robot has an API key that is good now", 401, "/invoices",
    )  # fmt: skip
    assert told["targets"] == [{"name": "127.0.0.1:9001", "why": ""}]
    assert [(step["rule"], step["result"]) for step in told["steps"]][:3] == [
        ("match", "ok"), ("method", "ok"), ("authenticate", "refused"),
    ]  # fmt: skip
    secret = "brn_abcdefgh_this-is-a-credential"
    told = send(operator, "POST", "test", {"url": "/invoices", "headers": {"X-API-Key": secret}}).json()
    assert "API key: unknown" in told["verdict"]
    assert secret not in str(told) + caplog.text + "".join(capfd.readouterr())
    assert (Configuration.objects.get().version, AuditEntry.objects.count()) == (version, audited)


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, "/url"),
        ({"url": "/x", "hedaers": {}}, "/hedaers"),
        ({"url": "/x", "headers": ["a"]}, "/headers"),
        ({"url": "/x", "headers": {f"X-{i}": "" for i in range(101)}}, "/headers"),
        ({"url": "ftp://x"}, ""),
        ({"url": "/x", "client_ip": "home"}, ""),
        ({"url": "/x", "headers": {"a b": "c"}}, ""),
    ],
)
def test_test__what_no_client_can_send__400(operator: Client, fresh_holder: None, body: Any, at: str) -> None:
    found = pointers(send(operator, "POST", "test", body))
    assert found == [at] or (at == "" and found[0].strip("/0123456789") == "")
