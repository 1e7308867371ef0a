"""When somebody is told: a rule and what was seen → pending → firing → resolved, and who is told of it when.

One (rule, subject) is one alert, however often it is looked at. The subject is a queue, or "" where a rule is about none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from .recurrence import span


class Condition(StrEnum):
    LATENCY = "latency"  # seconds that the oldest due job of a queue has waited
    FAILURES = "failures"  # share of a queue's runs in the window that failed, 0 to 1
    NEW_DEAD = "new_dead"  # jobs of a queue that became dead letters in the window
    DEAD = "dead"  # dead letters that a queue has now
    NO_WORKER = "no_worker"  # seconds that a due job of a queue has waited that no living worker consumes
    SCHEDULE = "schedule"  # seconds that the schedule is late which should have fired first
    RECORDER = "recorder"  # seconds that the oldest event of broker delivery waits to be recorded


class State(StrEnum):
    PENDING = "pending"  # it has not held for `for_s` yet
    FIRING = "firing"
    RESOLVED = "resolved"


class Kind(StrEnum):
    """Of a notice."""

    FIRING = "firing"
    REMINDER = "reminder"
    RESOLVED = "resolved"


OF_NO_QUEUE = frozenset({Condition.SCHEDULE, Condition.RECORDER})
WINDOWED = frozenset({Condition.FAILURES, Condition.NEW_DEAD})
LONGEST_S = 30 * 86_400
LONGEST_WINDOW_S = 86_400
MOST_NAMED = 100  # alerts in one notice; the others are counted
_HIGHEST = 1e12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,98}[A-Za-z0-9]|[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Rule:
    """It fires while a value is at or above `threshold` (see Condition for its unit).

    queue: the only one it is about; "": every queue that no other rule of its condition names. window_s, at_least: of
    FAILURES and NEW_DEAD, the time looked back on, and the fewest runs that say anything. for_s: the value has held
    this long before it fires; clear_s: it has been below this long before that is over. repeat_s: between two
    reminders; 0: none.
    """

    id: int
    name: str
    condition: Condition
    threshold: float
    queue: str = ""
    window_s: int = 600
    at_least: int = 1
    for_s: float = 0.0
    clear_s: float = 0.0
    repeat_s: float = 0.0


class Minute(NamedTuple):
    """What ended in a minute that began then. failed: dead ones too."""

    began: datetime
    ended: int
    failed: int
    dead: int


@dataclass(frozen=True, slots=True)
class Sight:
    """One look. None: that could not be seen, or was not looked at, and the rules about it stand still.

    waited_s: by queue that is not paused, how long its oldest due job has waited. consumed: queues with a worker.
    """

    waited_s: Mapping[str, float] | None = None
    consumed: Collection[str] | None = None
    minutes: Mapping[str, Sequence[Minute]] | None = None
    dead: Mapping[str, int] | None = None
    overdue_s: float | None = None
    overdue: str = ""  # the schedule's name
    recorder_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How an alert stands. told_at: of the last notice that said it fires; calm_since: below the threshold since then."""

    state: State
    since: datetime
    value: float
    fired_at: datetime | None = None
    calm_since: datetime | None = None
    told_at: datetime | None = None


class Step(NamedTuple):
    """standing: None when the alert never fired and is no more. kind: of the notice that is due, if one is."""

    standing: Standing | None
    kind: Kind | None = None


# --- what was seen -----------------------------------------------------------------------------------------------------
def values(rule: Rule, rules: Iterable[Rule], sight: Sight, now: datetime) -> dict[str, float] | None:
    """By subject; a subject that is not in it is calm. None: nobody can say now."""
    if rule.condition == Condition.SCHEDULE:
        return None if sight.overdue_s is None else {"": sight.overdue_s}
    if rule.condition == Condition.RECORDER:
        return None if sight.recorder_s is None else {"": sight.recorder_s}
    seen = _by_queue(rule, sight, now)
    if seen is None:
        return None
    others = {other.queue for other in rules if other.condition == rule.condition and other.queue}
    return {
        queue: value
        for queue, value in seen.items()
        if (queue == rule.queue if rule.queue else queue not in others)
    }


def _by_queue(rule: Rule, sight: Sight, now: datetime) -> dict[str, float] | None:
    if rule.condition == Condition.DEAD:
        return None if sight.dead is None else {queue: float(count) for queue, count in sight.dead.items()}
    if rule.condition in WINDOWED:
        return None if sight.minutes is None else _of_window(rule, sight.minutes, now)
    if sight.waited_s is None:
        return None
    if rule.condition == Condition.LATENCY:
        return dict(sight.waited_s)
    if sight.consumed is None:
        return None
    return {queue: waited for queue, waited in sight.waited_s.items() if queue not in sight.consumed}


def _of_window(rule: Rule, minutes: Mapping[str, Sequence[Minute]], now: datetime) -> dict[str, float]:
    since = now - timedelta(seconds=rule.window_s + 60)  # the minute in which the window begins counts whole
    found = {}
    for queue, all_of_it in minutes.items():
        counted = [minute for minute in all_of_it if minute.began > since]
        if rule.condition == Condition.NEW_DEAD:
            found[queue] = float(sum(minute.dead for minute in counted))
            continue
        ended = sum(minute.ended for minute in counted)
        if ended >= max(rule.at_least, 1):
            found[queue] = sum(minute.failed for minute in counted) / ended
    return found


# --- the state machine -------------------------------------------------------------------------------------------------
def step(
    rule: Rule, standing: Standing | None, value: float | None, now: datetime, *, is_silenced: bool
) -> Step:
    """One look at one subject. value: None where it is calm for want of anything to measure."""
    standing = standing and _not_after(now, standing)
    if value is None or value < rule.threshold:
        return _calmer(rule, standing, value, now)
    if standing is None:
        standing = Standing(State.PENDING, now, value)
    standing = replace(standing, value=value, calm_since=None)
    if standing.state == State.PENDING:
        if _passed_s(standing.since, now) < rule.for_s:
            return Step(standing)
        standing = replace(standing, state=State.FIRING, fired_at=now)
    return _told(rule, standing, now, is_silenced=is_silenced)


def _not_after(now: datetime, standing: Standing) -> Standing:
    """The database's clock was set back: what it says is to come is now, or nothing would be told until then."""
    since, calm_since, told_at = standing.since, standing.calm_since, standing.told_at
    return replace(
        standing,
        since=min(since, now),
        calm_since=calm_since and min(calm_since, now),
        told_at=told_at and min(told_at, now),
    )


def end(standing: Standing) -> Step:
    """Its rule is gone or off."""
    if standing.state == State.PENDING:
        return Step(None)
    return _resolved(standing)


def told(standing: Standing, now: datetime) -> Standing:
    """That a notice was written which says that it fires."""
    return replace(standing, told_at=now)


def _calmer(rule: Rule, standing: Standing | None, value: float | None, now: datetime) -> Step:
    if standing is None or standing.state == State.PENDING:
        return Step(None)
    seen = standing.value if value is None else value
    standing = replace(standing, value=seen, calm_since=standing.calm_since or now)
    assert standing.calm_since is not None  # noqa: S101
    if _passed_s(standing.calm_since, now) < rule.clear_s:
        return Step(standing)
    return _resolved(standing)


def _resolved(standing: Standing) -> Step:
    """Told to whoever was told that it fires, also in a silence: an incident that nobody closes stays open elsewhere."""
    resolved = replace(standing, state=State.RESOLVED)
    return Step(resolved, None if standing.told_at is None else Kind.RESOLVED)


def _told(rule: Rule, standing: Standing, now: datetime, *, is_silenced: bool) -> Step:
    if is_silenced:
        return Step(standing)
    if standing.told_at is None:
        return Step(standing, Kind.FIRING)
    if rule.repeat_s and _passed_s(standing.told_at, now) >= rule.repeat_s:
        return Step(standing, Kind.REMINDER)
    return Step(standing)


def _passed_s(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()


# --- words ---------------------------------------------------------------------------------------------------------------
def words(rule: Rule, subject: str, value: float, *, schedule: str = "") -> str:
    """One line that needs no other: "emails: the oldest due job has waited 1 minute 15 seconds (rule: 1 minute)".

    schedule: the name of the one that is late.
    """
    limit = rule.threshold
    told_ = {
        Condition.LATENCY: lambda: (f"the oldest due job has waited {span(value)}", span(limit)),
        Condition.NO_WORKER: lambda: (
            f"no living worker consumes it, and a job has waited {span(value)}",
            span(limit),
        ),
        Condition.FAILURES: lambda: (
            f"{value:.0%} of the runs in the last {span(rule.window_s)} failed",
            f"{limit:.0%}",
        ),
        Condition.NEW_DEAD: lambda: (
            f"{_dead(value)} in the last {span(rule.window_s)}",
            f"{limit:g}",
        ),
        Condition.DEAD: lambda: (_dead(value), f"{limit:g}"),
        Condition.SCHEDULE: lambda: (
            f"{f'schedule {schedule!r}' if schedule else 'a schedule'} is {span(value)} late",
            span(limit),
        ),
        Condition.RECORDER: lambda: (f"the recorder is {span(value)} behind", span(limit)),
    }[rule.condition]()
    return f"{subject + ': ' if subject else ''}{told_[0]} (rule: {told_[1]})"


def _dead(count: float) -> str:
    return f"{count:g} dead letter{'' if count == 1 else 's'}"


def document(notice_id: str, at: datetime, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a webhook gets, the same at every attempt. items: name, queue, kind, words and more of each alert."""
    status = "firing" if any(item["kind"] != Kind.RESOLVED for item in items) else "resolved"
    named, more = list(items[:MOST_NAMED]), max(0, len(items) - MOST_NAMED)
    return {
        "id": notice_id,
        "version": 1,
        "at": at.isoformat(),
        "status": status,
        "text": _text(named, more),
        "alerts": named,
        "more": more,
    }


def _text(items: Sequence[Mapping[str, Any]], more: int) -> str:
    lines = [_line(f"{str(item['kind']).upper()} {item['rule']}: {item['words']}") for item in items]
    return "\n".join([*lines, *([f"and {more} more"] if more else [])])


def title(body: Mapping[str, Any]) -> str:
    """A mail's subject: state and subject, one line."""
    alerts = body["alerts"]
    count = len(alerts) + body["more"]
    names = list(
        dict.fromkeys(f"{one['rule']}{': ' + one['queue'] if one['queue'] else ''}" for one in alerts)
    )
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 or body["more"] else "")
    if not names:
        return "[TEST] this channel works"
    return _line(f"[{body['status'].upper()}{f' {count}' if count > 1 else ''}] {shown}")[:200]


def _line(text: str) -> str:
    """A queue that another program named may hold line breaks, which would begin a header, or an alert that is none."""
    return " ".join(text.split())


def letter(body: Mapping[str, Any]) -> str:
    """A mail's text."""
    since = [f"  {one['rule']}: since {one['since']}" for one in body["alerts"]]
    return "\n".join([body["text"], *(["", *since] if since else []), "", f"notice {body['id']}"])


# --- what a rule may be ----------------------------------------------------------------------------------------------------
def problems(fields: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with a rule of these fields, by field; nothing when it is fine. Whether the queue exists is not asked."""
    found: dict[str, str] = {}
    if not isinstance(fields["name"], str) or not _NAME.fullmatch(fields["name"]):
        found["name"] = "use up to 100 letters, digits, spaces and . _ -"
    if fields["condition"] not in set(Condition):
        return found | {"condition": f"{fields['condition']!r} is not one of {', '.join(Condition)}"}
    condition = Condition(fields["condition"])
    if not isinstance(fields["queue"], str):
        found["queue"] = "is not a text"
    elif fields["queue"] and condition in OF_NO_QUEUE:
        found["queue"] = f"a rule of {condition} is about no queue"
    highest = 1.0 if condition == Condition.FAILURES else _HIGHEST
    if not _is_number(fields["threshold"], above=0, most=highest):
        unit = "a share above 0, 1 at most" if highest == 1 else "a number above 0"
        found["threshold"] = f"{fields['threshold']!r} is not {unit}"
    if not _is_whole(fields["window_s"], 60, LONGEST_WINDOW_S):
        found["window_s"] = (
            f"{fields['window_s']!r} is not a whole number of seconds from 60 to {LONGEST_WINDOW_S}"
        )
    if not _is_whole(fields["at_least"], 1, 10**9):
        found["at_least"] = f"{fields['at_least']!r} is not a whole number of runs, 1 at least"
    for name in ("for_s", "clear_s", "repeat_s"):
        if not _is_whole(fields[name], 0, LONGEST_S):
            found[name] = f"{fields[name]!r} is not a whole number of seconds from 0 to 30 days"
    return found


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any, *, above: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most
