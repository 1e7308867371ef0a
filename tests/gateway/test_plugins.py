from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import hooks, plugins
from gateway.errors import PluginFailed
from gateway.hooks import Row, Watch
from gateway.plugins import Failure, Reply, Request, Response

MODULE = "a_teams_plugins"


class Calls:
    """Writes down who was called; `do` is what the hook does."""

    seen: list[str] = []

    def __init__(self, name: str = "", **do: Any) -> None:
        self.name, self.do = name, do

    def on_request(self, request: Request) -> Any:
        return self._done("on_request", request)

    def on_response(self, request: Request, response: Response) -> Any:
        return self._done("on_response", response)

    def on_error(self, request: Request, failure: Failure) -> Any:
        return self._done("on_error", request)

    def _done(self, kind: str, *arguments: Any) -> Any:
        Calls.seen.append(self.name)
        return self.do[kind](*arguments) if kind in self.do else None


class Deaf:
    pass


class Late:
    async def on_request(self, request: Request) -> None: ...


class Greedy:
    def on_request(self, request: Request, more: int) -> None: ...


class Strict:
    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("size is from 1")

    def on_request(self, request: Request) -> None: ...


@pytest.fixture(autouse=True)
def module() -> Iterator[None]:
    found = ModuleType(MODULE)
    for each in (Calls, Deaf, Late, Greedy, Strict):
        setattr(found, each.__name__, each)
    found.not_a_class = 1  # type: ignore[attr-defined]
    sys.modules[MODULE] = found
    Calls.seen = []
    yield
    del sys.modules[MODULE]


def chain(*rows: Row, clock: Any = None) -> tuple[hooks.Hooks, Watch]:
    watch = Watch(clock) if clock else Watch()
    found = hooks.compile(rows, watch, [row.plugin for row in rows])
    assert found is not None
    return found, watch


def calls(name: str, on_failure: str = "continue", **do: Any) -> Row:
    return Row(name, f"{MODULE}.Calls", {"name": name, **do}, on_failure)


def failing(*arguments: Any) -> None:
    raise KeyError("the caller's token")


# --- loading ---


@pytest.mark.parametrize(
    ("path", "given", "told"),
    [
        (f"{MODULE}.Nobody", {}, "has no class Nobody"),
        (f"{MODULE}.not_a_class", {}, "has no class not_a_class"),
        ("no_such_module.X", {}, "plugin: no_such_module cannot be imported: ModuleNotFoundError"),
        (f"{MODULE}.Deaf", {}, "has none of the hooks on_request, on_response, on_error"),
        (f"{MODULE}.Late", {}, "on_request is async"),
        (f"{MODULE}.Greedy", {}, "on_request takes other arguments: missing a required argument: 'more'"),
        (f"{MODULE}.Strict", {"size": 0}, "settings: a_teams_plugins.Strict does not take them: ValueError: size is from 1"),
        (f"{MODULE}.Strict", {"sise": 1}, "unexpected keyword argument 'sise'"),
        (f"{MODULE}.Strict", ["size"], "settings: is a mapping of names, not ['size']"),
    ],
)  # fmt: skip
def test_problems__something_wrong__told(path: str, given: Any, told: str) -> None:
    found = plugins.problems(path, given, [path])
    assert len(found) == 1
    assert told in found[0]


def test_load__not_allowed__not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.importlib, "import_module", lambda name: pytest.fail("imported"))
    told = plugins.problems("os.system", {}, ("examples.plugins.SignRequests",))
    assert told == [
        "plugin: 'os.system' is not in BRAIN['GATEWAY']['PLUGINS'] (there: examples.plugins.SignRequests)"
    ]
    assert "(there: none)" in plugins.problems("a.B", {}, ())[0]


def test_load__good__made_with_its_settings() -> None:
    path = f"{MODULE}.Strict"
    assert plugins.problems(path, {"size": 1}, [path]) == []
    assert isinstance(plugins.load(path, {"size": 1}, [path]), Strict)


def test_compile__nothing_or_something_wrong() -> None:
    assert hooks.compile([], Watch(), ()) is None
    with pytest.raises(ValueError, match="sign: plugin: 'a.B' is not in"):
        hooks.compile([Row("sign", "a.B")], Watch(), ())
    with pytest.raises(ValueError, match="sign: on_failure"):
        hooks.compile([Row("sign", "a.B", {}, "retry")], Watch(), ("a.B",))


# --- order ---


def test_hooks__several__requests_in_order_responses_in_reverse() -> None:
    found, _ = chain(calls("a"), calls("b"))
    assert found.on_request(Request()) is None
    found.on_response(Request(), Response())
    assert found.on_error(Request(), Failure(502, "upstream", "")) is None
    assert Calls.seen == ["a", "b", "b", "a", "a", "b"]


def test_hooks__a_reply__is_the_last_word() -> None:
    reply = Reply(403, b"no", {"X-A": "1"})
    found, _ = chain(calls("a", on_request=lambda r: reply, on_error=lambda r: reply), calls("b"))
    assert found.on_request(Request()) is reply
    assert found.on_error(Request(), Failure(502, "upstream", "")) is reply
    assert Calls.seen == ["a", "a"]


# --- failures ---


def test_on_request__fails_half_way__request_as_it_was_and_the_next_one_goes_on() -> None:
    def half(request: Request) -> None:
        request.path, request.query = b"/else", b"x"
        request.set_header("X-A", "1")
        failing()

    found, watch = chain(calls("a", on_request=half), calls("b"))
    request = Request("GET", b"/p", b"q=1", [(b"Accept", b"*/*")])
    with capture_logs() as logs:
        assert found.on_request(request) is None
    assert (request.path, request.query, request.headers) == (b"/p", b"q=1", [(b"Accept", b"*/*")])
    assert Calls.seen == ["a", "b"]
    assert (watch.of("a").failed, watch.of("b").failed) == (1, 0)
    assert (
        logs[0].items()
        >= {"event": "plugin_failed", "plugin": "a", "hook": "on_request", "error": "KeyError"}.items()
    )
    assert logs[0]["at"].startswith("test_plugins.py:")
    assert "token" not in str(logs)


def test_on_request__fails_and_refuses__plugin_failed() -> None:
    found, _ = chain(calls("a", "refuse", on_request=failing, on_response=failing, on_error=failing))
    with pytest.raises(PluginFailed, match="The plugin a failed"):
        found.on_request(Request())
    with pytest.raises(PluginFailed):
        found.on_response(Request(), Response())
    assert found.on_error(Request(), Failure(502, "upstream", "")) is None  # it has failed already


@pytest.mark.parametrize("fault", [SystemExit, GeneratorExit, asyncio.CancelledError, RecursionError])
def test_hooks__raise_what_would_end_a_process_or_a_task__contained(fault: type[BaseException]) -> None:
    def leave(*arguments: Any) -> None:
        raise fault

    found, watch = chain(calls("a", on_request=leave, on_response=leave, on_error=leave))
    assert found.on_request(Request()) is None
    found.on_response(Request(), Response())
    assert found.on_error(Request(), Failure(502, "upstream", "")) is None
    assert watch.of("a").failed == 3


def test_load__its_constructor_leaves_the_process__told() -> None:
    setattr(sys.modules[MODULE], "Leaves", type("Leaves", (Calls,), {"__init__": lambda self: sys.exit(3)}))  # noqa: B010
    path = f"{MODULE}.Leaves"
    assert plugins.problems(path, {}, [path]) == [f"settings: {path} does not take them: SystemExit: 3"]


def test_on_response__fails_half_way__response_as_it_was() -> None:
    def half(response: Response) -> None:
        response.status = 500
        response.headers.clear()
        failing()

    found, _ = chain(calls("a", on_response=half))
    response = Response(200, [(b"A", b"b")])
    found.on_response(Request(), response)
    assert (response.status, response.headers) == (200, [(b"A", b"b")])


def test_failures__many__logged_once_a_minute_with_their_number() -> None:
    times = itertools.chain.from_iterable((t, t) for t in (0.0, 1.0, 2.0, 61.0, 62.0))
    found, watch = chain(calls("a", on_request=failing), clock=lambda: next(times))
    with capture_logs() as logs:
        for _ in range(5):
            found.on_request(Request())
    assert [entry["times"] for entry in logs] == [1, 3]
    assert watch.figures() == [["a", 5, 5, 0, 0.0]]


def test_slow__over_50_ms__counted_and_told() -> None:
    times = iter((0.0, 0.04, 1.0, 1.2))
    found, watch = chain(calls("a"), clock=lambda: next(times))
    with capture_logs() as logs:
        found.on_request(Request())
        found.on_request(Request())
    assert [(entry["event"], entry["took_ms"]) for entry in logs] == [("plugin_slow", 200.0)]
    assert watch.figures()[0][:4] == ["a", 2, 0, 1]
    assert watch.of("a").seconds == pytest.approx(0.24)


@pytest.mark.parametrize(
    "do",
    [
        lambda request: True,
        lambda request: Reply(204),
        lambda request: Reply(99),
        lambda request: Reply(200, "text"),  # type: ignore[arg-type]
        lambda request: Reply(200, b"", {"X-A": "a\r\nX-B: 1"}),
        lambda request: Reply(200, b"", {"X A": "a"}),
        lambda request: Reply(200, b"", {"Content-Length": "7"}),
        lambda request: setattr(request, "method", "PUT"),
        lambda request: setattr(request, "path", b"no slash"),
        lambda request: setattr(request, "path", b"/a?b"),
        lambda request: setattr(request, "path", b"/a HTTP/1.1\r\nX: 1"),
        lambda request: setattr(request, "path", "/text"),
        lambda request: setattr(request, "query", b"a b"),
        lambda request: setattr(request, "headers", None),
        lambda request: request.headers.append((b"X-A", b"a\r\nX-B: 1")),
        lambda request: request.headers.append(("X-A", "text")),
        lambda request: request.headers.append((b"Transfer-Encoding", b"chunked")),
        lambda request: request.headers.append((b"X-Consumer-Id", b"key:admin")),
        lambda request: request.remove_header("Content-Length"),
        lambda request: request.set_header("X-A", "a\nb"),
        lambda request: request.set_header("X A", "a"),
    ],
)
def test_on_request__leaves_what_cannot_be_sent__failed_and_undone(do: Any) -> None:
    found, watch = chain(calls("a", on_request=do))
    request = Request("POST", b"/p", b"", [(b"Content-Length", b"3")])
    assert found.on_request(request) is None
    assert watch.of("a").failed == 1
    assert (request.method, request.path, request.query, request.headers) == (
        "POST",
        b"/p",
        b"",
        [(b"Content-Length", b"3")],
    )


@pytest.mark.parametrize(
    ("old", "new", "failed"), [(200, 404, 0), (200, 204, 1), (304, 200, 1), (200, "404", 1), (200, 700, 1)]
)
def test_on_response__another_status__only_between_those_with_a_body(old: int, new: Any, failed: int) -> None:
    found, watch = chain(calls("a", on_response=lambda response: setattr(response, "status", new)))
    found.on_response(Request(), Response(old))
    assert watch.of("a").failed == failed


def test_on_request__changes_that_can_be_sent__stay() -> None:
    def change(request: Request) -> None:
        request.path, request.query = b"/x/%20", b"a=%3F?"
        request.set_header("X-A", "grün")
        request.remove_header("cookie")

    found, watch = chain(calls("a", on_request=change))
    request = Request(headers=[(b"Cookie", b"c"), (b"Host", b"h")])
    assert found.on_request(request) is None
    assert watch.of("a").failed == 0
    assert request.headers == [(b"Host", b"h"), (b"X-A", "grün".encode())]
