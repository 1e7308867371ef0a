"""The plugins of a route at work: called in order, watched, and contained when they fail.

    edits → on_request (in order) → target → on_response (in reverse) → edits

A plugin is nearest to the target, so it signs what is really sent. Hooks run on the event loop: nothing can interrupt
one that takes long, so it is reported, in the log and in the figures, and not switched off.
"""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import structlog

from . import plugins
from .edit_specs import bodied_status, is_ours
from .errors import PluginFailed
from .heads import Headers, RequestHead, ResponseHead, is_sound
from .plugins import Failure, Reply

log = structlog.get_logger(__name__)

POLICIES = ("continue", "refuse")
SLOW_S = 0.05
TELL_EVERY_S = 60.0

_FAULTS = (*plugins.FAULTS, asyncio.CancelledError)
_FAILED: Any = object()
_PATH = re.compile(rb"/[\x21-\x22\x24-\x3e\x40-\x7e]*")  # without `?` and `#`
_QUERY = re.compile(rb"[\x21-\x22\x24-\x7e]*")


class _Misused(Exception):
    """A hook returned or left behind what cannot be sent. The text is ours, so it can go into the log."""


@dataclass(frozen=True, slots=True)
class Row:
    """One use of a plugin. name: of the transformation, in logs and figures. on_failure: one of POLICIES."""

    name: str
    plugin: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    on_failure: str = "continue"


@dataclass(slots=True)
class Tally:
    """Counts of one plugin in this process. seconds: of all its calls. untold: since it was last logged."""

    calls: int = 0
    failed: int = 0
    slow: int = 0
    seconds: float = 0.0
    told_at: dict[str, float] = field(default_factory=dict)
    untold: dict[str, int] = field(default_factory=dict)


class Watch:
    """The tallies of one process; they outlive the snapshots. clock: seconds, never backwards. on_failure: told the name
    of each plugin that fails."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, on_failure: Callable[[str], None] | None = None
    ) -> None:
        self.clock, self.on_failure = clock, on_failure
        self.tallies: dict[str, Tally] = {}

    def of(self, name: str) -> Tally:
        return self.tallies.setdefault(name, Tally())

    def figures(self) -> list[list[Any]]:
        """[name, calls, failed, slow, seconds] of each, as JSON types."""
        return [[name, t.calls, t.failed, t.slow, t.seconds] for name, t in list(self.tallies.items())]

    def tell(self, name: str, event: str, now: float, **fields: Any) -> None:
        """Log it, at most once a minute for each plugin and event, with how often it was since then."""
        tally = self.of(name)
        tally.untold[event] = tally.untold.get(event, 0) + 1
        if now - tally.told_at.get(event, -TELL_EVERY_S) >= TELL_EVERY_S:
            log.warning(event, plugin=name, times=tally.untold[event], **fields)
            tally.told_at[event], tally.untold[event] = now, 0


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook of one plugin. refuses: its failure is the request's."""

    name: str
    kind: str
    call: Callable[..., Any]
    refuses: bool


def compile(rows: Sequence[Row], watch: Watch, allowed: Collection[str]) -> Hooks | None:
    """Makes each row's plugin; None when there are no rows. Raises ValueError, then their routes are out of service."""
    made = []
    for row in rows:
        if row.on_failure not in POLICIES:
            raise ValueError(f"{row.name}: on_failure: is one of {', '.join(POLICIES)}")
        try:
            made.append((row, plugins.load(row.plugin, row.settings, allowed)))
        except ValueError as error:
            raise ValueError(f"{row.name}: {error}") from error
    return Hooks([hook for row, plugin in made for hook in _hooks(row, plugin)], watch) if made else None


def _hooks(row: Row, plugin: object) -> list[Hook]:
    refuses = row.on_failure == "refuse"
    return [
        Hook(row.name, kind, getattr(plugin, kind), refuses)
        for kind in plugins.HOOKS
        if hasattr(plugin, kind)
    ]


class Hooks:
    """What the doors call. Nothing but PluginFailed comes out of it, whatever a plugin does."""

    __slots__ = ("_watch", "errors", "requests", "responses")

    def __init__(self, hooks: Sequence[Hook], watch: Watch) -> None:
        self._watch = watch
        self.requests = tuple(hook for hook in hooks if hook.kind == "on_request")
        self.responses = tuple(hook for hook in reversed(hooks) if hook.kind == "on_response")
        self.errors = tuple(hook for hook in hooks if hook.kind == "on_error")

    def on_request(self, request: RequestHead) -> Reply | None:
        """The first Reply, or None: go on. Raises PluginFailed (502, code plugin_failed)."""
        for hook in self.requests:
            before = (request.method, request.path, request.query, request.headers[:])
            result = self._run(hook, _check_request, before, request)
            if result is _FAILED:
                request.method, request.path, request.query, request.headers = before
                _refuse(hook)
            elif result is not None:
                return result
        return None

    def on_response(self, request: RequestHead, response: ResponseHead) -> None:
        """Raises PluginFailed."""
        for hook in self.responses:
            before = (response.status, response.headers[:])
            if self._run(hook, _check_response, before, request, response) is _FAILED:
                response.status, response.headers = before
                _refuse(hook)

    def on_error(self, request: RequestHead, failure: Failure) -> Reply | None:
        """A Reply to give instead of the failure. A plugin that fails here changes nothing."""
        for hook in self.errors:
            result = self._run(hook, _check_reply, (), request, failure)
            if result is not _FAILED and result is not None:
                return result
        return None

    def _run(self, hook: Hook, check: Callable[..., None], before: tuple[Any, ...], *arguments: Any) -> Any:
        """What the hook returned, once `check` finds that and what it left behind good, or _FAILED."""
        watch, tally = self._watch, self._watch.of(hook.name)
        started = watch.clock()
        try:
            result = hook.call(*arguments)
            check(result, arguments[-1], *before)
        except _Misused as error:
            result = _FAILED
            watch.tell(hook.name, "plugin_failed", started, hook=hook.kind, error=str(error))
        except _FAULTS as error:  # somebody else's code, inside the request path
            result = _FAILED
            # Its text may hold what the request held, so only its kind and place are logged.
            kind, place = type(error).__name__, _place(error)
            watch.tell(hook.name, "plugin_failed", started, hook=hook.kind, error=kind, at=place)
        took_s = watch.clock() - started
        tally.calls += 1
        if result is _FAILED:
            tally.failed += 1
            if watch.on_failure is not None:
                watch.on_failure(hook.name)
        tally.seconds += took_s
        if took_s > SLOW_S:
            tally.slow += 1
            watch.tell(hook.name, "plugin_slow", started, hook=hook.kind, took_ms=round(took_s * 1000, 1))
        return result


def _refuse(hook: Hook) -> None:
    if hook.refuses:
        raise PluginFailed(f"The plugin {hook.name} failed.")


def _check_reply(result: object, about: object) -> None:
    if result is None:
        return
    if not isinstance(result, Reply):
        raise _Misused(f"returned {type(result).__name__}, neither None nor Reply")
    if not _has_body(result.status) or type(result.body) is not bytes:
        raise _Misused("returned a Reply whose status has no body, or whose body is not bytes")
    for name, value in result.headers.items():
        if (
            not isinstance(name, str)
            or not isinstance(value, str)
            or not _may_be_set(name, value, "response")
        ):
            raise _Misused(f"returned a Reply with a header that cannot be sent: {name!r:.60}")


def _has_body(status: object) -> bool:
    return type(status) is int and bodied_status(status) is not None


def _may_be_set(name: str, value: str, phase: str) -> bool:
    try:
        pair = name.encode("latin-1"), value.encode("latin-1")  # as it leaves
    except UnicodeEncodeError:
        return False
    return is_sound(pair) and not is_ours(name.lower(), phase)


def _check_request(
    result: object, request: RequestHead, method: str, path: bytes, query: bytes, headers: Headers
) -> None:
    _check_reply(result, request)
    if request.method != method:
        raise _Misused("changed the method")
    if (request.path is not path and not _fits(_PATH, request.path)) or (
        request.query is not query and not _fits(_QUERY, request.query)
    ):
        raise _Misused("left a path or query that cannot be sent")
    _check_headers(request.headers, headers, "request")


def _check_response(result: object, response: ResponseHead, status: int, headers: Headers) -> None:
    if response.status != status and not (_has_body(status) and _has_body(response.status)):
        raise _Misused(f"changed the status {status} to {response.status!r}")
    _check_headers(response.headers, headers, "response")


def _check_headers(now: Headers, before: Headers, phase: str) -> None:
    """The pairs that stayed are the same objects, so only what came and what went is looked at."""
    if now == before:
        return
    if type(now) is not list or not all(is_sound(pair) for pair in now):
        raise _Misused("left a header that cannot be sent")
    stayed = set(map(id, before)) & set(map(id, now))
    for name, _ in [pair for pair in (*before, *now) if id(pair) not in stayed]:
        if is_ours(name.decode().lower(), phase):
            raise _Misused(f"changed {name.decode()}, which is the gateway's own")


def _fits(pattern: re.Pattern[bytes], value: object) -> bool:
    return type(value) is bytes and pattern.fullmatch(value) is not None


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{PurePath(frame.filename).name}:{frame.lineno}"
