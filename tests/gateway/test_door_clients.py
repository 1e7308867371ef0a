"""The DRF door and its clients: those under ASGI, those that break off, those that say too little or too much."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.test import AsyncClient
from django.test import Client as DjangoClient

from gateway import edits, hooks, issuers, views
from gateway.limiter import Limiter
from gateway.pool import Target
from gateway.transforming import Transforms

from .client import Client, eventually, request
from .conftest import Still, route, service, snapshot, target
from .odd_upstream import OddUpstream
from .test_contract import django_door
from .test_edge_faults import saying

KEY = {"X-API-Key": "good-key"}
WAIT_S = 30.0


def changing(**spec: Any) -> Transforms:
    return Transforms(edits.compile([edits.Spec(**spec)]))


def routes(upstream: OddUpstream) -> list[Any]:
    to = service([target(upstream.port)])
    signed = changing(request={"headers": {"set": {"Authorization": "Basic b3Vycw=="}}})
    bare = changing(request={"headers": {"remove": ["Authorization"]}})
    edited = changing(response={"body": {"set": {"by": "us"}}})
    spoiling = hooks.Hooks([hooks.Hook("no", "on_response", lambda *_: 1 / 0, True)], hooks.Watch())
    counted = replace(edited, untouched=lambda why: views.tally.untouched("/counted", why))
    return [
        route("/api", to, timeout_s=60.0),
        route("/open", to, auth_required=False),
        route("/signed", to, auth_required=False, transforms=signed),
        route("/bare", to, auth_required=False, transforms=bare),
        route("/edited", to, transforms=edited),
        route("/counted", to, transforms=counted),
        route("/mapped", to, transforms=changing(response={"status": {"map": {"503": 404}}})),
        route("/spoilt", to, transforms=Transforms(None, spoiling)),
        route("/both", to, methods=frozenset({"GET"})),
        route("/both", to, methods=frozenset({"POST"})),
    ]


@dataclass
class Door:
    upstream: OddUpstream
    target: Target

    def is_calm(self) -> bool:
        """Nothing under way, and no word against the target."""
        one = self.target
        return (one.inflight, one.failures, one.breaker.failures) == (0, 0, 0)


class HalfJson(OddUpstream):
    """Its `half` says that it is JSON."""

    def _answered(
        self, what: str, method: bytes, target: bytes, headers: dict[str, list[str]], received: tuple[int, int],
        connection: socket.socket,
    ) -> bool:  # fmt: skip
        if what != "half":
            return super()._answered(what, method, target, headers, received, connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        return False


@pytest.fixture
def behind() -> Iterator[OddUpstream]:
    one = HalfJson()
    yield one
    one.close()


@pytest.fixture
def door(
    behind: OddUpstream, monkeypatch: pytest.MonkeyPatch, prefix: str, gateway_conf: Callable[..., None]
) -> Door:
    holder = Still()
    holder.snapshot = snapshot(routes(behind))
    monkeypatch.setattr(views, "holder", holder)
    monkeypatch.setattr(issuers, "holder", holder)
    monkeypatch.setattr(views, "_limiter", Limiter(prefix=prefix))
    return Door(behind, holder.snapshot.targets[0])


def seen(path: str, **headers: str) -> dict[str, list[str]]:
    """The request's headers as the upstream saw them."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    answer: Any = DjangoClient().get(path, headers=KEY | given)
    assert answer.status_code == 200
    found: dict[str, list[str]] = json.loads(answer.getvalue())["headers"]
    return found


# --- behind an ASGI server
# --------------------------------------------------------------------------------------------
async def test_asgi__answer__each_piece_as_it_comes_and_an_early_close_gives_the_target_back(
    door: Door,
) -> None:
    async with asyncio.timeout(WAIT_S):
        answer: Any = await AsyncClient().get("/api/events", headers=KEY)
        assert (answer.status_code, answer.is_async) == (200, True)
        pieces = aiter(answer.streaming_content)
        assert await anext(pieces) == b"data: 0\n\n"
        door.upstream.go.set()  # not before: the first has come alone
        assert await anext(pieces) == b"data: 1\n\n"
        assert door.target.inflight == 1
        await sync_to_async(answer.close, thread_sensitive=False)()
    assert await asyncio.to_thread(eventually, door.is_calm)


async def test_asgi__forty_streams_that_wait__others_are_answered_and_closing_wakes_them(door: Door) -> None:
    streams: list[Any] = [await AsyncClient().get("/api/events", headers=KEY) for _ in range(40)]
    pieces = [aiter(stream.streaming_content) for stream in streams]
    for each in pieces:
        assert await anext(each) == b"data: 0\n\n"
    waiting = [asyncio.ensure_future(anext(each)) for each in pieces]
    try:
        async with asyncio.timeout(WAIT_S):
            answer: Any = await AsyncClient().get("/api/x", headers=KEY)
            assert b"".join([piece async for piece in answer.streaming_content])
    finally:
        for stream in streams:
            await sync_to_async(stream.close, thread_sensitive=False)()
        async with asyncio.timeout(WAIT_S):  # the target may be silent for a minute
            await asyncio.gather(*waiting, return_exceptions=True)
    assert await asyncio.to_thread(eventually, door.is_calm)


async def test_asgi__answer_read_to_its_end__whole_and_its_connection_kept(door: Door) -> None:
    for _ in range(2):
        answer: Any = await AsyncClient().get("/api/x", headers=KEY)
        body = b"".join([piece async for piece in answer.streaming_content])
        assert json.loads(body)["target"] == "/api/x"
        assert door.is_calm()
    assert door.upstream.connections == 1


async def test_asgi__client_gone_in_the_middle__target_given_back(door: Door) -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/api/events", "query_string": b"", "http_version": "1.1",
        "headers": [(b"x-api-key", b"good-key"), (b"host", b"testserver")],
    }  # fmt: skip
    client = ApplicationCommunicator(ASGIHandler(), scope)
    await client.send_input({"type": "http.request", "body": b""})
    assert (await client.receive_output(WAIT_S))["status"] == 200
    assert (await client.receive_output(WAIT_S))["body"] == b"data: 0\n\n"
    await client.send_input({"type": "http.disconnect"})
    await client.wait(WAIT_S)
    assert await asyncio.to_thread(eventually, door.is_calm)


async def test_asgi__request_body__passed_on(door: Door) -> None:
    answer: Any = await AsyncClient().post("/api/x", b"x" * 200_000, content_type="text/plain", headers=KEY)
    body = b"".join([piece async for piece in answer.streaming_content])
    assert json.loads(body)["bytes"] == 200_000


async def test_asgi__path_that_was_no_utf_8__400_as_the_server_has_lost_what_it_was(door: Door) -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/api/\N{REPLACEMENT CHARACTER}", "query_string": b"", "http_version": "1.1",
        "headers": [(b"x-api-key", b"good-key"), (b"host", b"testserver")],
    }  # fmt: skip
    client = ApplicationCommunicator(ASGIHandler(), scope)
    await client.send_input({"type": "http.request", "body": b""})
    start = await client.receive_output(WAIT_S)
    assert (start["status"], dict(start["headers"])[b"X-Brain-Error"]) == (400, b"path_ambiguous")
    await client.receive_output(WAIT_S)
    await client.wait(WAIT_S)
    assert door.upstream.requests == 0


async def test_asgi__chunked_request__411(door: Door) -> None:
    headers = KEY | {"Transfer-Encoding": "chunked"}
    answer: Any = await AsyncClient().post("/api/x", b"abc", content_type="text/plain", headers=headers)
    assert (answer.status_code, answer["X-Brain-Error"]) == (411, "length_required")
    assert door.upstream.requests == 0


def test_wsgi__chunked_request__411(door: Door) -> None:
    headers = KEY | {"Transfer-Encoding": "gzip, Chunked"}
    answer = DjangoClient().post("/api/x", b"abc", content_type="text/plain", headers=headers)
    assert (answer.status_code, answer["X-Brain-Error"]) == (411, "length_required")
    assert door.upstream.requests == 0


# --- what goes on to the target
# ---------------------------------------------------------------------------------------
def test_via__five_of_ours__508(door: Door) -> None:
    via = ", ".join(["1.1 brain"] * 5)
    answer = DjangoClient().get("/api/x", headers=KEY | {"Via": via})
    assert (answer.status_code, answer["X-Brain-Error"]) == (508, "loop_detected")
    assert answer["Content-Type"] == "application/problem+json"
    assert door.upstream.requests == 0


def test_via__fewer__carried_on(door: Door) -> None:
    assert seen("/api/x")["via"] == ["1.1 brain"]
    assert seen("/api/x", Via="1.0 other")["via"] == ["1.0 other, 1.1 brain"]
    four = ", ".join(["1.1 brain"] * 4)
    assert seen("/api/x", Via=four)["via"] == [f"{four}, 1.1 brain"]


def test_forwarded_for__trusted_proxy_before_the_door__its_chain_goes_on(
    door: Door, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(TRUSTED_PROXIES=("127.0.0.0/8",))
    found = seen("/api/x", X_Forwarded_For="6.6.6.6, 203.0.113.9")
    assert found["x-forwarded-for"] == ["6.6.6.6, 203.0.113.9, 127.0.0.1"]


def test_connection__names_a_header__not_passed_on(door: Door) -> None:
    found = seen("/api/x", Connection="close, X-Hop", X_Hop="1", X_Kept="2")
    assert "x-hop" not in found
    assert found["x-kept"] == ["2"]


def test_authorization__on_an_open_route__the_targets_own_business(door: Door) -> None:
    assert seen("/open/x", Authorization="Basic Y2xpZW50")["authorization"] == ["Basic Y2xpZW50"]


def test_authorization__set_by_a_transform__the_only_one(door: Door) -> None:
    for given in ({"Authorization": "Basic Y2xpZW50"}, {}):
        assert seen("/signed/x", **given)["authorization"] == ["Basic b3Vycw=="]


def test_authorization__removed_by_a_transform__not_seen_at_all(door: Door) -> None:
    assert "authorization" not in seen("/bare/x", Authorization="Basic Y2xpZW50")


# --- who broke off
# ----------------------------------------------------------------------------------------------------
def test_body__shorter_than_announced__400_and_no_word_against_the_target(door: Door, prefix: str) -> None:
    with django_door(routes(door.upstream), prefix) as server:
        (one,) = server.targets
        with Client(server.port) as client:
            client.send(request("/api/x", "Content-Length: 10", method="POST") + b"abc")
            client.socket.shutdown(socket.SHUT_WR)
            answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.json()["code"]) == (400, "body_incomplete")
        assert answer.headers["content-type"] == "application/problem+json"
        assert eventually(Door(door.upstream, one).is_calm)
        assert server.ask(request("/api/x")).status == 200


def test_answer_with_the_beginning_of_another__its_connection_is_not_used_again(
    prefix: str, gateway_conf: Callable[..., None]
) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with (
        saying(whole + b"HTTP/1.1 200 OK\r\nX-Ev") as port,
        django_door([route("/api", [target(port)])], prefix) as server,
    ):
        assert server.ask(request("/api/x")).body == b"ok"
        assert not server.targets[0].idle


def test_edited_answer__target_breaks_off__502_problem(door: Door) -> None:
    answer = DjangoClient().get("/edited/half", headers=KEY)
    assert (answer.status_code, answer["X-Brain-Error"]) == (502, "upstream_closed")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 502
    assert (door.target.inflight, door.target.breaker.failures) == (0, 1)


def test_method_that_no_route_takes__405_names_those_of_all_routes_on_the_path(door: Door) -> None:
    answer = DjangoClient().delete("/both/x", headers=KEY)
    assert answer.status_code == 405
    assert {method.strip() for method in answer["Allow"].split(",")} >= {"GET", "POST"}
    assert "DELETE" not in answer["Allow"]


def test_edited_response__larger_than_is_held__goes_on_as_it_is_and_is_counted(
    door: Door, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(MAX_EDITED_BYTES=64)
    answer: Any = DjangoClient().get("/counted/x", headers=KEY)
    assert "by" not in json.loads(answer.getvalue())
    assert views.tally.unedited.pop(("/counted", "too large")) == 1


def test_metrics__ejections_plugins_and_store__the_door_s_own_figures(
    monkeypatch: pytest.MonkeyPatch, door: Door
) -> None:
    monkeypatch.undo()  # the process's own holder and limiter
    events, on_plugin, on_store = (
        views.holder.living.events, views.holder.living.plugins.on_failure, views._limiter.on_failure,
    )  # fmt: skip
    assert events is not None
    assert on_plugin is not None
    assert on_store is not None
    events.ejected("s", "t")
    on_plugin("p")
    on_store()
    figures = {metric.name: metric for metric in views.families()}
    for name in ("ejections", "plugin_failures", "limiter_store_failures"):
        assert figures[f"brain_gateway_{name}"].samples[-1].value >= 1
    views.tally.ejections.clear()
    views.tally.plugin_failures.clear()


@pytest.mark.parametrize(("path", "status", "failures"), [("/mapped/busy", 404, 1), ("/spoilt/x", 502, 0)])
def test_answer__not_the_targets__its_status_for_the_figures_and_the_targets_for_the_breaker(
    door: Door, path: str, status: int, failures: int
) -> None:
    views.tally.cells.clear()
    views.tally._found.clear()
    answer: Any = DjangoClient().get(path, headers=KEY)
    answer.getvalue()
    assert answer.status_code == status
    assert (door.target.breaker.failures, door.target.inflight) == (failures, 0)
    assert [key[4] for key in views.tally.cells] == [status // 100]


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTP_X_A": "a\rX-Consumer-Id: evil"},
        {"HTTP_X_A": "a\nb"},
        {"HTTP_X_A": "a\x00"},
        {"HTTP_X_A": "\x7f"},
        {"HTTP_X_A:B": "c"},
        {"HTTP_X A": "b"},
        {"QUERY_STRING": "a=\rX"},
        {"QUERY_STRING": "a= b"},
        {"QUERY_STRING": "\xff"},
        {"QUERY_STRING": "\x01"},
    ],
)
def test_door__what_a_server_hands_over_that_no_message_may_hold__400(
    door: Door, environment: dict[str, Any]
) -> None:
    """As WSGI servers do that do not look: a target may take a bare CR for the end of a line."""
    before = door.upstream.requests
    answer = DjangoClient().get("/api/x", headers=KEY, **environment)
    assert (answer.status_code, answer["X-Brain-Error"]) == (400, "request_malformed")
    assert door.upstream.requests == before


@pytest.mark.parametrize("value", ["-1", "-0", "+0", "\xb2", ""])
@pytest.mark.parametrize("method", ["get", "post", "options"])
def test_max_forwards__no_number__nobody_s_business(door: Door, method: str, value: str) -> None:
    answer = getattr(DjangoClient(), method)("/api/x", headers=KEY | {"Max-Forwards": value})
    assert answer.status_code == 200
    assert json.loads(answer.getvalue())["headers"]["max-forwards"] == [value]
