"""Which jobs are meant: the words that the admin, the API, the command and bulk actions have for it, read into one shape.

texts → Selection → finding.jobs
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from .failures import is_clean
from .states import WAITING, State

SEVERAL = {"waiting": WAITING, "open": (*WAITING, State.PROCESSING)}  # states by one word
LONGEST_TAG = 64
MOST_TAGS = 20
_MOST_PAIRS = 5
_DEEPEST = 10
_SPAN = re.compile(r"([1-9]\d{0,5})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = {"queue": 100, "task": 200, "tenant": 64, "tag": LONGEST_TAG, "fingerprint": 16, "request_id": 128}

_TIMES = (("since", "until"), ("died_since", "died_until"))

Pair = tuple[tuple[str, ...], Any]


class BadSelection(ValueError):
    """errors: field → what is wrong with it."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field} {told}" for field, told in errors.items()))
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True)
class Selection:
    """An empty field leaves all in.

    state: one of State, or of SEVERAL.
    worker: its id, its host, or HOST:PID. arguments: `path=value`, more of them with spaces between, quoted as in a
    shell; `pairs` reads them. since, until: when the job was enqueued; until is left out. died_since, died_until: when it
    became the dead letter that it is.
    """

    queue: str = ""
    task: str = ""
    state: str = ""
    worker: str = ""
    tenant: str = ""
    tag: str = ""
    arguments: str = ""
    fingerprint: str = ""
    request_id: str = ""
    workflow: str = ""
    parent: str = ""
    since: datetime | None = None
    until: datetime | None = None
    died_since: datetime | None = None
    died_until: datetime | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """Those that are meant; none of them: all."""
        if not self.state:
            return ()
        return SEVERAL[self.state] if self.state in SEVERAL else (State(self.state),)

    @property
    def is_empty(self) -> bool:
        return self == Selection()

    @property
    def told(self) -> str:
        """For messages: "queue 'a', state 'FAILED'"."""
        said = (f"{name} {value!r}" for name, value in self.as_texts().items())
        return ", ".join(said) or "all"

    def as_texts(self) -> dict[str, str]:
        """What is set; `read` takes it back."""
        given = {name: value for name, value in asdict(self).items() if value}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()
        }


FIELDS = tuple(field.name for field in fields(Selection))


def read(asked: Mapping[str, str], now: datetime) -> Selection:
    """asked: texts by field, an empty one being none. Times: a span before now (15m, 6h, 30d), or as of ISO 8601.

    Raises BadSelection, also for a field that there is not.
    """
    errors = {name: f"is not one of {', '.join(FIELDS)}" for name in asked if name not in FIELDS}
    given = {name: text for name, text in asked.items() if name in FIELDS and text}
    for name in given:
        problem = _problem(name, given[name])
        if problem:
            errors[name] = problem
    moments = {
        name: _moment(name, given.pop(name), now, errors)
        for since_and_until in _TIMES
        for name in since_and_until
        if name in given
    }
    for since, until in _TIMES:
        first, last = moments.get(since), moments.get(until)
        if first and last and first >= last:
            errors[since] = f"is not before {until}"
    if errors:
        raise BadSelection(errors)
    return Selection(**given, **moments)  # type: ignore[arg-type]


def pairs(arguments: str) -> list[Pair]:
    """`to=a@example.com user.id=42` as [(("to",), "a@example.com"), (("user", "id"), 42)]. Raises ValueError.

    A value that reads as JSON is that value, else a text.
    """
    words = shlex.split(arguments)
    if len(words) > _MOST_PAIRS:
        raise ValueError(f"more than {_MOST_PAIRS} conditions")
    return [_pair(word) for word in words]


def tags(given: Any) -> tuple[str, ...]:
    """The tags of a job, each once, in their order. Raises ValueError."""
    if isinstance(given, str) or not all(isinstance(tag, str) for tag in given):
        raise ValueError("tags are a list of texts")
    found = tuple(dict.fromkeys(given))
    for tag in found:
        if not tag or tag != tag.strip() or len(tag) > LONGEST_TAG or not is_clean(tag):
            raise ValueError(f"tag {tag[:LONGEST_TAG]!r} is not a text of 1 to {LONGEST_TAG} characters")
    if len(found) > MOST_TAGS:
        raise ValueError(f"{len(found)} tags, at most {MOST_TAGS} are allowed")
    return found


def _pair(word: str) -> Pair:
    path, equals, text = word.partition("=")
    steps = tuple(path.split("."))
    if not equals or not all(steps) or len(steps) > _DEEPEST:
        raise ValueError(f"{word[:80]!r} is not path=value, as in user.id=42")
    try:
        return steps, json.loads(text, parse_constant=_refused)
    except ValueError:
        return steps, text


def _refused(constant: str) -> None:
    raise ValueError(constant)  # NaN: a text, then


def _problem(name: str, text: str) -> str:
    if not is_clean(text):
        return "holds a NUL character or half of a surrogate pair"
    if len(text) > _LONGEST.get(name, 1000):
        return f"is longer than {_LONGEST.get(name, 1000)} characters"
    if name == "state" and text not in {*State, *SEVERAL}:
        return f"is not one of {', '.join([*State, *SEVERAL])}"
    if name in ("workflow", "parent"):
        return _unless_id(text)
    if name == "arguments":
        try:
            pairs(text)
        except ValueError as error:  # a quotation that is not closed, too
            return f"cannot be read: {error}"
    return ""


def _unless_id(text: str) -> str:
    try:
        UUID(text)
    except ValueError:
        return f"{text[:40]!r} is not an id"
    return ""


def _moment(name: str, text: str, now: datetime, errors: dict[str, str]) -> datetime | None:
    span = _SPAN.fullmatch(text)
    if span:
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        found = datetime.fromisoformat(text)
        # PostgreSQL and ids know no times outside of these.
        if 1970 <= found.year <= 9000:
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError:
        pass
    errors[name] = f"{text[:40]!r} is not a span like 15m, 6h or 30d, or a time like 2026-11-26T10:00Z"
    return None
