"""What a test expects of a job, and how far a job that was stored is from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from unittest.mock import ANY
from uuid import UUID

from queue_app import intake, offload, typed
from queue_app.models import Job
from queue_app.offload import PayloadLost
from queue_app.payloads import parse
from queue_app.registry import Task, find, refuse_unknown, resolve
from queue_app.states import State, priority
from queue_app.unique import Unique

from .matching import Difference, at_time, differences, shown

TOLERANCE_S = 2.0  # the clocks of the database and of this host may differ, and a test takes its time
_SECRET = "not shown, as it is secret"  # noqa: S105


class Terms(TypedDict, total=False):
    """Of the assertions; what is left out may be anything."""

    queue: str
    priority: int
    tenant: str
    run_at: datetime | None  # not before then, within the tolerance; None: at once
    delay: float | timedelta  # not before so many seconds after it was enqueued; 0: at once
    tolerance: float | timedelta  # of run_at and delay; 2 s
    unique: bool | str | Unique  # whether it has a key; the key; the key of this payload
    request_id: str
    parent: Job | UUID | None  # None: no job enqueued it
    max_retries: int
    state: str | Collection[str]  # where it stands now; by default anywhere


_COLUMNS = ("queue", "priority", "tenant", "request_id", "state")


@dataclass(frozen=True)
class Expectation:
    """task: None for any."""

    task: Task | None
    payload: Any
    terms: Terms

    def differences(self, job: Job) -> list[Difference]:
        """Between a job of this task and what is expected."""
        found = _masked(self.task, differences(self.payload, payload_of(job, self.task)))
        for name in _COLUMNS:
            if name in self.terms:
                found += _in_column(name, self.terms[name], getattr(job, name))  # type: ignore[literal-required]
        return found + self._in_time(job) + self._in_key(job) + self._in_origin(job)

    def _in_time(self, job: Job) -> list[Difference]:
        tolerance_s = intake.seconds("tolerance", self.terms.get("tolerance", TOLERANCE_S))
        found: list[Difference] = []
        if "run_at" in self.terms:
            found += at_time("run_at", self.terms["run_at"], job.run_after, tolerance_s)
        if "delay" in self.terms:
            delay_s = intake.seconds("delay", self.terms["delay"])
            due = job.created_at + timedelta(seconds=delay_s) if delay_s else None
            found += at_time("run_at, by its delay", due, job.run_after, tolerance_s)
        return found

    def _in_key(self, job: Job) -> list[Difference]:
        """A job that is over has given its key up."""
        if "unique" not in self.terms:
            return []
        wanted = self.terms["unique"]
        if isinstance(wanted, bool):
            fits = wanted == (job.unique_key is not None)
            return (
                [] if fits else [Difference("unique", "a key" if wanted else "none", shown(job.unique_key))]
            )
        key = wanted if isinstance(wanted, str) else wanted.keys([payload_of(job, self.task)])[0]
        return differences(key, job.unique_key, "unique")

    def _in_origin(self, job: Job) -> list[Difference]:
        found: list[Difference] = []
        if "parent" in self.terms:
            parent = self.terms["parent"]
            found += differences(parent.id if isinstance(parent, Job) else parent, job.parent, "parent")
        if "max_retries" in self.terms:
            found += differences(self.terms["max_retries"], job.max_attempts - 1, "max_retries")
        return found

    def __str__(self) -> str:
        parts = [] if self.payload is ANY else [f"payload {_told(self.payload)}"]
        parts += [f"{name} {_told(value)}" for name, value in self.terms.items() if name != "tolerance"]
        name = "any task" if self.task is None else self.task.name
        return name + (f" with {', '.join(parts)}" if parts else "")


def expectation(target: Any, payload: Any, terms: Terms) -> Expectation:
    """Raises UnknownTask, UnknownOption, or ValueError that names what cannot be expected: a typing error must not pass."""
    refuse_unknown(terms, Terms, "an assertion")
    if typed.is_instance(payload):
        payload = parse(typed.text_of(payload))
    if "priority" in terms:
        priority(terms["priority"])
    run_at = terms.get("run_at")
    if run_at is not None and (not isinstance(run_at, datetime) or run_at.tzinfo is None):
        raise ValueError("run_at is not a datetime with a time zone")
    for state in _states(terms.get("state", ())):
        State(state)
    return Expectation(None if target is None else task_of(target), payload, terms)


def task_of(target: Any) -> Task:
    """As of `enqueue`, or of a task of Django's framework. Raises UnknownTask."""
    path = getattr(target, "module_path", None)
    return find(path) if isinstance(path, str) else resolve(target)


def payload_of(job: Job, task: Task | None) -> Any:
    """As the handler gets it, from wherever it is; None when it is lost."""
    try:
        stored = offload.load(job.id) if job.payload is None else job.payload
    except PayloadLost:
        return None
    return stored if task is None else task.reveal(stored)


def told(job: Job) -> str:
    """A line about a job, without its secrets."""
    at = (
        "held by its workflow"
        if job.is_held
        else f"run_at {job.run_after:%Y-%m-%d %H:%M:%S%z}"
        if job.run_after
        else ""
    )
    said = [f"{job.state} on {job.queue}", f"priority {job.priority}"]
    said += [f"tenant {job.tenant}"] if job.tenant else []
    said += [at] if at else []
    said += [f"unique {job.unique_key!r}"] if job.unique_key else []
    return f"{', '.join(said)}, payload {shown(offload.shown(job))}"


def _in_column(name: str, wanted: Any, found: Any) -> list[Difference]:
    if name == "state":
        states = _states(wanted)
        return [] if found in states else [Difference(name, " or ".join(states), found)]
    return differences(int(wanted) if name == "priority" else wanted, found, name)


def _states(given: str | Collection[str]) -> list[str]:
    return [str(given)] if isinstance(given, str) else [str(state) for state in given]


def _masked(task: Task | None, found: list[Difference]) -> list[Difference]:
    """What is secret in a payload is so in a test's report, which is kept for longer than one thinks."""
    secret = [f"payload.{path}" for path in task.secret_fields] if task is not None else []

    def is_secret(path: str) -> bool:
        plain = "".join(
            part.partition("]")[2] if index else part for index, part in enumerate(path.split("["))
        )
        return any(_is_within(plain, one) or _is_within(one, plain) for one in secret)

    return [Difference(one.path, _SECRET, _SECRET) if is_secret(one.path) else one for one in found]


def _is_within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}.")


def _told(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S%z}"
    if isinstance(value, State):
        return value.value
    return shown(value)
