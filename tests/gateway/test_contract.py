"""One suite for both doors: what a client sees is the same on the edge and on Django's own port.

WSGI_CANNOT names what the DRF door cannot do behind a WSGI server; each entry has its own test.
"""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from gateway import bucket, edits, hooks, issuers, plugins, views
from gateway.calls import Refusal
from gateway.conf import conf
from gateway.limiter import Limiter
from gateway.plugins import Failure, Reply, Request, Response
from gateway.pool import Target
from gateway.tally import Tally
from gateway.transforming import Transforms

from .client import Answer, Client, eventually, request
from .conftest import Still, calm, route, service, serving, snapshot, target
from .odd_upstream import COOKIES, OddUpstream, running

WSGI_CANNOT = {
    "chunked request bodies": "411",
    "WebSocket": "answered as a request without the upgrade",
    "trailers": "not passed on",
    "the spelling of a path": "passed on in one canonical spelling; bytes that are no UTF-8 are 400",
    "headers that come twice": "read as one with both values",
}


class Sorry:
    """A plugin that fails where it is told to, and answers in place of failures."""

    def on_request(self, request: Request) -> None:
        if request.header("x-fail") == "request":
            raise LookupError

    def on_response(self, request: Request, response: Response) -> None:
        if request.header("x-fail") == "response":
            raise LookupError

    def on_error(self, request: Request, failure: Failure) -> Reply | None:
        assert not views._rules.locked()  # all requests of the process would wait for it
        return None if request.header("x-mute") else Reply(203, failure.code.encode())


@dataclass
class Door:
    """logged: statuses in its access log, from now on."""

    name: str
    port: int
    targets: list[Target]
    tally: Callable[[], Tally]
    logged: Callable[[pytest.MonkeyPatch], list[int]]

    def counted(self, route: str) -> dict[int, int]:
        """Its requests by class of status."""
        found = dict.fromkeys(range(6), 0)
        for key, cell in list(self.tally().cells.items()):
            if key[0] == route:
                found[key[4]] += cell.count
        return found

    def ask(self, data: bytes, *, head: bool = False) -> Answer:
        with Client(self.port) as client:
            answer = client.send(data).answer(head=head)
            assert answer is not None
            return answer

    def inflight(self) -> int:
        return sum(one.inflight for one in self.targets)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """wsgiref speaks HTTP/1.0 and sets no default that would hide what the door does."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.parse_request():
            handler = ServerHandler(
                self.rfile, self.wfile, self.get_stderr(), self.get_environ(), multithread=True
            )
            handler.request_handler = self  # type: ignore[attr-defined]
            with contextlib.suppress(ConnectionError):
                handler.run(self.server.get_app())  # type: ignore[attr-defined]


def routes(upstream: OddUpstream, dead: OddUpstream) -> list[Any]:
    to, gone = service([target(upstream.port)]), service([target(dead.port)])
    hour = (bucket.per_window("hour", 60, 3600, capacity=2),)
    static = Refusal(200, "no_target", "", body=b"static", content_type="text/plain")
    return [
        route("/api", to),
        route("/silent", to, timeout_s=0.2),
        route("/idle", to, idle_timeout_s=0.2),
        route("/open", to, auth_required=False),
        route("/limited", to, limits=hour),
        route("/admins", to, roles=frozenset({"admin"})),
        route("/scoped", to, scopes=frozenset({"write"})),
        route("/reading", to, methods=frozenset({"GET", "HEAD"})),
        route("/stripped", to, strip=1, keeps_host=True),
        route("/total", to, total_timeout_s=0.5),
        route("/dead", gone),
        route("/fallback", gone, fallback=static),
        route("/sorry", to, transforms=apologetic()),
        route("/sorry/idle", to, transforms=apologetic(), idle_timeout_s=0.2),
        route("/sorry/total", to, transforms=apologetic(), total_timeout_s=0.5),
        route("/sorry/dead", gone, transforms=apologetic()),
    ]


def apologetic() -> Transforms:
    """Its responses are held until they are whole, as their bodies are changed."""
    plugged = [hooks.Hook("sorry", kind, getattr(Sorry(), kind), True) for kind in plugins.HOOKS]
    edited = edits.compile([edits.Spec(response={"body": {"set": {"edited": True}}})])
    return Transforms(edited, hooks.Hooks(plugged, hooks.Watch()))


@contextlib.contextmanager
def edge_door(made: list[Any], prefix: str) -> Iterator[Door]:
    with serving(made, prefix) as edge:
        worker = edge.worker

        def logged(patch: pytest.MonkeyPatch) -> list[int]:
            found: list[int] = []
            patch.setattr(worker, "over", lambda exchange: found.append(exchange.status))
            return found

        yield Door("edge", edge.port, edge.targets, lambda: worker.tally, logged)


@contextlib.contextmanager
def django_door(made: list[Any], prefix: str) -> Iterator[Door]:
    holder, before = Still(), (issuers.holder, views.holder, views._limiter)
    holder.snapshot = snapshot(made)
    issuers.holder = views.holder = holder
    views._limiter = Limiter(prefix=prefix)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.set_app(WSGIHandler())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with override_settings(ALLOWED_HOSTS=["*"]):
            yield Door(
                "django", server.server_port, list(holder.snapshot.targets), lambda: views.tally, _logged
            )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        issuers.holder, views.holder, views._limiter = before


def _logged(patch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    conf.bind(replace(conf(), ACCESS_LOG=True))
    patch.setattr(views.log, "info", lambda event, **fields: found.append(fields["status"]))
    return found


DOORS = {"edge": edge_door, "django": django_door}


@pytest.fixture(scope="module", params=list(DOORS))
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Door, OddUpstream]]:
    with running(2) as (upstream, dead):
        dead.die()
        with DOORS[request.param](routes(upstream, dead), f"test:contract:{request.param}:") as door:
            yield door, upstream


@pytest.fixture
def door(opened: tuple[Door, OddUpstream], gateway_conf: Callable[..., None]) -> Door:
    for one in opened[0].targets:
        calm(one)
    opened[1].seen.clear()
    return opened[0]


@pytest.fixture
def behind(opened: tuple[Door, OddUpstream]) -> OddUpstream:
    return opened[1]


# --- passing through
# -------------------------------------------------------------------------------------------------------------
def test_door__request_and_answer__pass_through_with_who_and_where(door: Door) -> None:
    data = request("/api/echo?q=1&r=%2F", "X-Keep: 1", "Content-Type: text/plain", method="POST", body=b"abc")
    answer = door.ask(data)
    seen = answer.json()
    assert (answer.status, seen["method"], seen["target"], seen["bytes"]) == (
        200,
        "POST",
        "/api/echo?q=1&r=%2F",
        3,
    )
    headers = seen["headers"]
    assert headers["x-keep"] == ["1"]
    assert headers["x-consumer-id"] == ["key:tester"]
    assert headers["x-consumer-roles"] == ["operator"]
    assert headers["host"] == [door.targets[0].name]
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["x-forwarded-host"] == ["edge.test"]
    assert headers["x-request-id"] == [answer.headers["x-request-id"]]
    assert len(headers["traceparent"][0]) == 55
    assert headers["via"] == ["1.1 brain"]
    assert answer.headers["x-upstream"] == door.targets[0].name
    assert "x-api-key" not in headers


def test_door__what_a_client_may_not_claim__taken_off(door: Door) -> None:
    claimed = (
        "X-Consumer-Id: root", "X_Consumer_Id: root", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6",
        "Proxy-Authorization: x", "Keep-Alive: 5",
    )  # fmt: skip
    headers = door.ask(request("/open/x", *claimed, key=None)).json()["headers"]
    assert not {"x-consumer-id", "x_consumer_id", "x-real-ip", "proxy-authorization", "keep-alive"} & set(
        headers
    )
    assert headers["x-forwarded-for"] == ["127.0.0.1"]


@pytest.mark.parametrize("kind", ["plain", "chunked", "close"])
def test_door__response_framings__whole_body_arrives(door: Door, kind: str) -> None:
    assert door.ask(request(f"/api/{kind}")).json()["target"] == f"/api/{kind}"


def test_door__head_and_bodiless_answers(door: Door) -> None:
    answer = door.ask(request("/api/x", method="HEAD"), head=True)
    assert (answer.status, answer.body) == (200, b"")
    assert door.ask(request("/api/nothing")).status == 204


def test_door__hop_by_hop_and_false_headers_of_the_target__do_not_get_through(door: Door) -> None:
    headers = door.ask(request("/api/hop")).headers
    assert not {"x-hop", "keep-alive"} & set(headers)
    assert headers["x-upstream"] == door.targets[0].name
    assert headers["x-request-id"] != "lie"
    assert headers["set-cookie"].startswith("a=1")


def test_door__upstreams_own_error__passed_on_as_it_is(door: Door) -> None:
    answer = door.ask(request("/api/busy"))
    assert (answer.status, answer.body) == (503, b"busy")
    assert "x-brain-error" not in answer.headers


@pytest.mark.parametrize("status", [299, 451, 599, 600, 999])
def test_door__status_that_has_no_name__passed_on_and_given_back(door: Door, status: int) -> None:
    answer = door.ask(request(f"/api/status-{status}"))
    assert (answer.status, answer.body) == (status, b"odd")
    assert eventually(lambda: door.inflight() == 0)


def test_django_door__own_failure_behind_the_target_s_answer__given_back(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError

    monkeypatch.setattr(views._Visit, "_dressed", fail)
    answer = door.ask(request("/api/chunked"))
    assert answer.status == (500 if door.name == "django" else 200)
    assert eventually(lambda: door.inflight() == 0)


def test_door__prefix_and_host__as_the_route_says(door: Door) -> None:
    seen = door.ask(request("/stripped/a/b?q=1")).json()
    assert (seen["target"], seen["headers"]["host"]) == ("/a/b?q=1", ["edge.test"])


# --- refusals
# ---------------------------------------------------------------------------------------------------------------------
REFUSALS = {
    "unknown route": (request("/nowhere"), 404, "route_not_found"),
    "wrong method": (request("/reading/x", method="POST", body=b"x"), 405, "method_not_allowed"),
    "no credentials": (request("/api/x", key=None), 401, "credentials_missing"),
    "bad key": (request("/api/x", key="bad"), 401, "credentials_invalid"),
    "bad token": (request("/api/x", "Authorization: Bearer a.b.c", key=None), 401, "credentials_invalid"),
    "role": (request("/admins/x"), 403, "role_missing"),
    "scope": (request("/scoped/x"), 403, "scope_missing"),
    "ambiguous path": (request("/api/%2e%2e/admins"), 400, "path_ambiguous"),
    "dead target": (request("/dead/x"), 502, "connect_failed"),
    "silent target": (request("/silent/hang"), 504, "response_timeout"),
    "target that drips its head": (request("/silent/drip"), 504, "response_timeout"),
    "silent target, in all": (request("/total/hang"), 504, "total_timeout"),
    "unknown coding": (
        request("/api/x", "Transfer-Encoding: gzip", method="POST") + b"GET /open/x HTTP/1.1\r\n\r\n",
        400,
        "coding_unsupported",
    ),
    "answer that no number is long enough for": (request("/api/endless-length"), 502, "upstream_malformed"),
    "answer in an unknown coding": (request("/api/odd-coding"), 502, "upstream_malformed"),
    "target breaks off before its answer": (
        request("/api/die", method="POST", body=b"x"),
        502,
        "upstream_closed",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_door__refusals__problem_json_with_a_reason(door: Door, name: str) -> None:
    data, status, code = REFUSALS[name]
    answer = door.ask(data)
    problem = answer.json()
    assert (answer.status, problem["status"], answer.headers["x-brain-error"]) == (status, status, code)
    assert problem["code"] == code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer ")
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD"
    assert eventually(lambda: door.inflight() == 0)


def test_door__limit__its_headers_and_429(door: Door) -> None:
    answers = [door.ask(request("/limited/x")) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert all(answer.headers["ratelimit-policy"] == '"hour";q=60;w=3600' for answer in answers)
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].headers["x-brain-error"] == "rate_limited"


def test_door__fallback__static_answer(door: Door) -> None:
    answer = door.ask(request("/fallback/x"))
    assert (answer.status, answer.body, answer.headers["x-brain-error"]) == (200, b"static", "no_target")


def test_door__body_above_the_limit__413(door: Door, gateway_conf: Callable[..., None]) -> None:
    gateway_conf(MAX_BODY_BYTES=10)
    answer = door.ask(request("/api/x", method="POST", body=b"x" * 11))
    assert (answer.status, answer.headers["x-brain-error"]) == (413, "body_too_large")


def test_door__response_that_breaks_off__a_cut_connection_and_given_back(door: Door) -> None:
    with Client(door.port) as client:
        client.send(request("/api/half"))
        with contextlib.suppress(ConnectionResetError):
            assert b"half" in client.reader.read()
    assert eventually(lambda: door.inflight() == 0)


@pytest.mark.parametrize(
    ("path", "code"), [("/idle/stall", "upstream_idle_timeout"), ("/total/stall", "total_timeout")]
)
def test_door__response_that_stalls__cut_in_time_with_the_reason(door: Door, path: str, code: str) -> None:
    name = door.targets[0].name
    before = door.tally().upstream_errors.get((name, code), 0)

    def had_begun() -> bool:
        """Its total time is short: it may be over before the answer's head has come."""
        calm(door.targets[0])
        with Client(door.port) as client, contextlib.suppress(ConnectionResetError):
            return b"half" in client.send(request(path)).reader.read()
        return False

    assert eventually(had_begun)
    assert eventually(lambda: door.tally().upstream_errors.get((name, code), 0) > before)
    assert eventually(lambda: door.inflight() == 0)


FAILURES = {
    "no connection": ("/sorry/dead/x", "", "connect_failed"),
    "a plugin before the target": ("/sorry/x", "X-Fail: request", "plugin_failed"),
    "a plugin after it": ("/sorry/x", "X-Fail: response", "plugin_failed"),
    "half a response that is held": ("/sorry/half-json", "", "upstream_closed"),
    "one that stalls": ("/sorry/idle/stall-json", "", "upstream_idle_timeout"),
    "one that takes too long": ("/sorry/total/stall-json", "", "total_timeout"),
}


@pytest.mark.parametrize("mute", [False, True], ids=["a plugin answers", "nobody answers"])
@pytest.mark.parametrize("name", FAILURES)
def test_door__plugin_asked_about_a_failure__figures_and_log_say_what_the_client_got(
    door: Door, name: str, mute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, header, code = FAILURES[name]
    place = path.rpartition("/")[0]
    before, logged = door.counted(place), door.logged(monkeypatch)
    answer = door.ask(request(path, *filter(None, (header, "X-Mute: 1" if mute else ""))))
    assert (answer.status, answer.headers["x-brain-error"]) == (
        (504 if "time" in code else 502) if mute else 203,
        code,
    )
    assert mute or answer.body == code.encode()
    kind = answer.status // 100
    assert eventually(lambda: door.counted(place)[kind] == before[kind] + 1)
    assert sum(door.counted(place).values()) == sum(before.values()) + 1
    assert eventually(lambda: logged == [answer.status])
    assert eventually(lambda: door.inflight() == 0)


def test_door__cookies_of_the_target__each_as_it_came(door: Door) -> None:
    with Client(door.port) as client:
        client.send(request("/api/cookies", "Connection: close"))
        lines = client.reader.read().split(b"\r\n")
    found = [line.partition(b":")[2].strip() for line in lines if line.startswith(b"Set-Cookie:")]
    assert found == list(COOKIES)


@pytest.mark.parametrize("path", ["/api/100%25", "/api/%252e%252e/x", "/api;v=1/x", "/api/a;v=1/%C3%A9"])
def test_door__path_with_a_percent_sign_or_parameters__passed_on(door: Door, path: str) -> None:
    assert door.ask(request(path)).json()["target"] == path


def test_door__max_forwards__counted_down_for_options_and_answered_at_zero(
    door: Door, behind: OddUpstream
) -> None:
    seen = door.ask(request("/api/x", "Max-Forwards: 3", method="OPTIONS")).json()["headers"]
    assert seen["max-forwards"] == ["2"]
    assert door.ask(request("/api/x", "Max-Forwards: 3")).json()["headers"]["max-forwards"] == ["3"]
    before = behind.requests
    last = door.ask(request("/reading/x", "Max-Forwards: 0", method="OPTIONS"))
    assert (last.status, last.headers["allow"], behind.requests) == (204, "GET, HEAD", before)


def test_door__trace__goes_on_with_its_state_or_begins_without(door: Door) -> None:
    given, state = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: a=1"
    kept = door.ask(request("/api/x", given, state)).json()["headers"]
    assert (kept["traceparent"][0][:36], kept["tracestate"]) == (given[13:49], ["a=1"])
    assert "tracestate" not in door.ask(request("/api/x", "traceparent: 00-0-0-0", state)).json()["headers"]


def test_door__client_gone__given_back(door: Door) -> None:
    client = Client(door.port).send(request("/api/big"))
    client.reader.read(100_000)
    client.close()
    assert eventually(lambda: door.inflight() == 0)


def test_door__every_request__counted(door: Door) -> None:
    before = sum(cell.count for key, cell in door.tally().cells.items() if key[0] == "/open")
    door.ask(request("/open/x", key=None))
    assert eventually(
        lambda: sum(cell.count for key, cell in door.tally().cells.items() if key[0] == "/open") == before + 1
    )


# --- what WSGI cannot
# -------------------------------------------------------------------------------------------------------------
def test_wsgi__chunked_request__411_and_on_the_edge_200(door: Door) -> None:
    answer = door.ask(request("/api/x", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n0\r\n\r\n")
    assert answer.status == (200 if door.name == "edge" else 411)


def test_wsgi__websocket__a_plain_request_there(door: Door) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket")
    answer = door.ask(request("/api/x", *upgrade))
    assert ("upgrade" in answer.json()["headers"]) == (door.name == "edge")


def test_wsgi__trailers__on_the_edge_alone(door: Door) -> None:
    with Client(door.port) as client:
        client.send(request("/api/trailers", "TE: trailers", "Connection: TE, close"))
        assert (b"X-Sum: 7" in client.reader.read()) == (door.name == "edge")


def test_wsgi__header_twice__one_of_both_values_there(door: Door) -> None:
    answer = door.ask(request("/api/x", "X-API-Key: good-key"))
    code = "credentials_ambiguous" if door.name == "edge" else "credentials_invalid"
    assert (answer.status, answer.headers["x-brain-error"]) == (400 if door.name == "edge" else 401, code)
    seen = door.ask(request("/api/x", "X-A: 1", "X-A: 2")).json()["headers"]["x-a"]
    assert ",".join(seen) == "1,2"


def test_wsgi__path__canonical_there_and_as_it_came_on_the_edge(door: Door) -> None:
    seen = door.ask(request("/api/%61")).json()["target"]
    assert seen == ("/api/%61" if door.name == "edge" else "/api/a")
    no_utf8 = door.ask(request("/api/%ff"))  # of which Django keeps nothing that could be passed on
    assert no_utf8.status == (200 if door.name == "edge" else 400)
