"""frozen_time: the queue's clocks stand still, and go where a test moves them.

    clock.now · timezone.now, also as a field's default · Celery's app.now · the database's own, in the text of each statement

Nothing in production asks whether time is frozen: what is replaced here is put back at the end of the block, and the
statements are changed on their way to the driver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from celery import current_app
from django.utils import timezone

from queue_app import clock, firing, shared_tasks
from queue_app.models import Firing

from .replacing import replaced, statements_through

Move = float | timedelta

# How each database is asked for its time, by the queue and by Django's `Now()`; {at}: the moment in UTC.
_ASKED: dict[str, list[tuple[re.Pattern[str], str]]] = {
    "sqlite": [
        # Texts are compared there: six digits, as Django stores them, are not before the three of strftime.
        (re.compile(r"strftime\('[^']*', 'now'\)", re.IGNORECASE), "'{at:%Y-%m-%d %H:%M:%S}.{ms}000'"),
        (re.compile(r"(strftime\('[^']*', )'now'", re.IGNORECASE), r"\g<1>'{at:%Y-%m-%d %H:%M:%S}.{ms}'"),
    ],
    "postgresql": [
        (
            re.compile(r"\b(?:clock|statement)_timestamp\(\)", re.IGNORECASE),
            "'{at:%Y-%m-%d %H:%M:%S}.{ms}+00'::timestamptz",
        )
    ],
    "mysql": [
        (re.compile(r"\bUTC_TIMESTAMP\(6\)"), "TIMESTAMP'{at:%Y-%m-%d %H:%M:%S}.{ms}'"),
        (
            re.compile(r"\bCURRENT_TIMESTAMP\(6\)"),
            "CONVERT_TZ(TIMESTAMP'{at:%Y-%m-%d %H:%M:%S}.{ms}', '+00:00', @@session.time_zone)",
        ),
    ],
}
_clocks: list[FrozenClock] = []  # the last one goes


class FrozenClock:
    """Stands until it is moved. now: in UTC, of whole milliseconds, which is what SQLite's clock has."""

    def __init__(self, at: datetime) -> None:
        self.now = at
        self.move_to(at)

    def move(self, by: Move) -> datetime:
        """On by so many seconds or a timedelta, back by a negative one. The new moment."""
        return self.move_to(self.now + (by if isinstance(by, timedelta) else timedelta(seconds=by)))

    def move_to(self, moment: datetime) -> datetime:
        """Raises ValueError for a moment without a time zone."""
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise ValueError(f"{moment!r} is not a datetime with a time zone")
        at = moment.astimezone(UTC)
        self.now = at.replace(microsecond=at.microsecond // 1000 * 1000)
        return self.now


@contextmanager
def frozen_time(at: datetime | None = None) -> Iterator[FrozenClock]:
    """In the block time stands at `at`, an aware datetime, or at the present; for the whole process, so in other threads too.

    Frozen once more inside the block, the inner clock goes. Not governed: docs/queue-testing.md#time.
    """
    frozen = FrozenClock(datetime.now(UTC) if at is None else at)
    with ExitStack() as stack:
        if not _clocks:
            stack.enter_context(_governed())
        _clocks.append(frozen)
        stack.callback(_clocks.remove, frozen)
        yield frozen


def fire_schedules() -> list[Firing]:
    """Fire every schedule that is due, as a worker does: what came of it, in the order of the moments.

    Of several moments that have passed at once the schedule's own policy says which ones fire.
    """
    before = set(Firing.objects.values_list("id", flat=True))
    while firing.fire_due():
        pass
    return [made for made in Firing.objects.order_by("due_at", "id") if made.id not in before]


def _now() -> datetime:
    return _clocks[-1].now


class _AnyDatetime(type):
    """Whatever is a datetime is one of the class that stands for it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _StandingDatetime(datetime, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return _now().astimezone(tz) if tz is not None else _now().astimezone().replace(tzinfo=None)


@contextmanager
def _governed() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(replaced(clock, "now", _now))
        # Not `timezone.now` itself: fields have it as their default, and modules by its own name.
        for module in (timezone, shared_tasks):
            stack.enter_context(replaced(module, "datetime", _StandingDatetime))
        app = current_app._get_current_object()
        stack.enter_context(replaced(app, "now", lambda: _now().astimezone(app.timezone)))
        stack.enter_context(statements_through(_stated))
        yield


def _stated(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """The statement with the moment in the place of each question for the time."""
    if isinstance(sql, str):
        at = _now()
        for asked, answer in _ASKED.get(context["connection"].vendor, ()):
            sql = asked.sub(answer.format(at=at, ms=f"{at.microsecond // 1000:03}"), sql)
    return execute(sql, params, many, context)
