"""A unit of work: a request, a job or a command, from its first statement to its last.

What outlives one statement and ends with the unit hangs on it: which clusters it has written (later reads must see
that), and which statements it repeats (an N+1). The doors begin and end it: the middleware, the queue's performer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Unit:
    """kind: "request", "job" or "command"; name: what a log line calls it; id: the request's or the job's."""

    kind: str
    name: str
    id: str
    # Reads must see what was committed before this moment (time.monotonic()): a write of the same client's last request,
    # or of whoever enqueued the job. None: nothing in particular.
    since: float | None = None
    written: set[str] = field(default_factory=set)  # primaries' aliases that this unit has written
    sources: dict[str, str] = field(default_factory=dict)  # primary's alias → the replica that its reads take
    read_from_primary: dict[str, float] = field(
        default_factory=dict
    )  # when last, where replicas were not new enough
    repeated: dict[Any, Any] = field(default_factory=dict)  # filled by orm_app.slow
    is_over: bool = False  # a task that a request began and did not wait for goes on within its context

    def must_see(self, primary: str) -> float | None:
        """The moment before which everything must be in what answers a read of this cluster."""
        read = self.read_from_primary.get(primary)
        if read is None or self.since is None:
            return self.since if read is None else read
        return max(read, self.since)


_current: ContextVar[Unit | None] = ContextVar("orm_app_unit_of_work", default=None)
_at_end: list[Callable[[Unit], None]] = []


def current() -> Unit | None:
    return _current.get()


@contextmanager
def unit(kind: str, name: str, id: str, since: float | None = None) -> Iterator[Unit]:
    """The block is one unit of work; tasks and threads that copy its context take part in it. Units do not nest: inside
    another one (a job that a request runs eagerly) the outer one goes on."""
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    begun, token = begin(Unit(kind, name, id, since))
    try:
        yield begun
    finally:
        end(begun, token)


def begin(new: Unit) -> tuple[Unit, Token[Unit | None]]:
    """For a door whose beginning and end are two calls; `end` takes what this returns."""
    return new, _current.set(new)


def end(done: Unit, token: Token[Unit | None]) -> None:
    done.is_over = True
    # What is closed by another task's or thread's hand (a generator that nobody read to its end) has another context.
    with suppress(ValueError):
        _current.reset(token)
    for call in _at_end:
        call(done)


def at_end(call: Callable[[Unit], None]) -> Callable[[Unit], None]:
    """Registers what looks at each unit when it has ended. It must not raise."""
    _at_end.append(call)
    return call
