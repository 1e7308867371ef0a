"""enqueue: the job's row in the caller's transaction, the broker told after its commit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict, Unpack, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone

from foundation import request_id as request_ids

from . import clock, failures, lineage, payloads, policies, queues, selection, states, storing, unique, wakeup
from .broker import handlers
from .conf import conf
from .models import Delivery, Job, Queue
from .publication import Wakeup
from .registry import Task, refuse_unknown, resolve
from .states import Priority, State, Turn
from .unique import Unique
from .uuid7 import uuid7

_LONGEST_S = 10 * 365 * 86_400
_LONGEST_TENANT = 64
_LONGEST_REQUEST_ID = 128

Seconds = float | timedelta


class Options(TypedDict, total=False):
    """Of `enqueue` and its like."""

    queue: str | None  # another queue than the task's
    priority: int  # 0..9 or a Priority; NORMAL
    delay: Seconds  # not before so many seconds (or a timedelta) from now
    run_at: datetime | None  # aware; not before
    expires: Seconds | None  # not started later than this after its time
    unique: Unique | unique.Key | None  # one job for all enqueues with this key; see Unique
    tenant: str
    tags: Iterable[str]  # to be found by
    parent: Job | UUID | None  # by default the running job whose handler enqueues
    request_id: str | None  # by default the current one
    max_retries: int | None  # runs after the first one; by default the task's, the queue's, the conf's


def enqueue(target: Any, payload: Any, **options: Unpack[Options]) -> Job:
    """Store a job and have a worker run it; inside a transaction it exists when that commits, and only then.

    target: a `@task` function, a Celery task, the name of either, or the name of a queue with one task. payload: a dict
    of JSON values, or an instance of the pydantic model that the handler takes. options: `Options`.

    With `unique` the job may be one that was there before: `job.is_duplicate`.

    ValueError (UnknownTask, UnknownQueue, BadPayload, BadUnique, BadParent, UnknownOption) stores nothing; nor does a
    DatabaseError. A broker that is down does not matter.
    """
    (job,) = enqueue_many(target, [payload], **options)
    return job


def enqueue_many(target: Any, payloads_: Iterable[Any], **options: Unpack[Options]) -> list[Job]:
    """A job for each payload: stored by few statements, published in one go after the commit. All of them or none.

    The options are those of `enqueue`; `unique` wants a function of the payload as its key.
    """
    task, given = resolve(target), list(payloads_)
    refuse_unknown(options, Options, "enqueue")
    terms = unique.terms(options.get("unique"))
    common = _common(task, options, terms)
    limit = conf().MAX_PAYLOAD_BYTES
    texts = [task.accept(payload, max_bytes=limit) for payload in given]
    if not given:
        return []
    values = given if not task.secret_fields else [payloads.parse(text) for text in texts]
    if common["delivery"] == Delivery.BROKER:
        return _send(task, common, texts, values, terms)
    if terms is None:
        jobs = made = storing.store(common, texts, values)
    else:
        jobs = storing.store_unique(common, texts, values, terms.keys(given), terms)
        made = [job for job in jobs if not job.is_duplicate]
    publish_on_commit(made)
    return jobs


aenqueue = sync_to_async(enqueue)
aenqueue_many = sync_to_async(enqueue_many)


class Prepared(NamedTuple):
    """A job that is ready to be stored: its columns, its payload's text, and what `Job.payload` is to be."""

    common: dict[str, Any]
    text: str
    value: Any


def prepare(target: Any, payload: Any, options: Mapping[str, Any]) -> Prepared:
    """Everything that `enqueue` does before it stores, `unique` left out; raises what it raises."""
    task = resolve(target)
    refuse_unknown(options, Options, "call")
    common = _common(task, cast("Options", options), None)
    text = task.accept(payload, max_bytes=conf().MAX_PAYLOAD_BYTES)
    return Prepared(common, text, payload if not task.secret_fields else payloads.parse(text))


def _common(task: Task, options: Options, terms: Unique | None) -> dict[str, Any]:
    """The columns that all jobs of the call share."""
    now = timezone.now()
    policy = queues.find(options.get("queue") or task.queue)
    delivery = policy.delivery or str(Delivery.LEDGER)
    since = clock.now() if delivery == Delivery.LEDGER and _is_timed(options, terms) else now
    run_after = _run_after(options, terms, since)
    turn = policies.first_turn(policy, is_due=run_after is None)
    return {
        "name": task.name,
        "queue": policy.name,
        "delivery": delivery,
        "tenant": _text("tenant", options.get("tenant"), _LONGEST_TENANT),
        "priority": states.priority(options.get("priority", Priority.NORMAL)),
        "state": State.PENDING.value,
        "max_attempts": 1 + _max_retries(options.get("max_retries"), task, policy),
        "run_after": run_after,
        "expires_at": _expires_at(options.get("expires"), run_after or since),
        "published_at": None if run_after or turn else now,
        "unique_until": terms.until(since) if terms else None,
        "parent": lineage.parent(options.get("parent")),
        "request_id": _text("request_id", options.get("request_id") or request_ids.current(), _LONGEST_REQUEST_ID),
        "created_at": now,
        "workflow": None,
        "turn": turn,
        "tags": selection.tags(options.get("tags") or ()),
    }  # fmt: skip


def _send(
    task: Task, common: dict[str, Any], texts: Sequence[str], values: Sequence[Any], terms: Unique | None
) -> list[Job]:
    """The queue says broker: messages instead of rows, which the recorder makes."""
    if terms is not None or task.secret_fields or common["tags"]:
        what = "unique" if terms is not None else "secret fields" if task.secret_fields else "tags"
        raise ValueError(f"queue {common['queue']!r} has broker delivery, where {what} cannot be had")
    ids = [uuid7() for _ in texts]
    handlers.publish(common, ids, texts)
    return storing.as_read(common, ids, values)


def publish_on_commit(jobs: Sequence[Job]) -> None:
    """Have workers look at those of these jobs whose time has come, when their rows are committed."""
    messages = [Wakeup(job.id, job.queue, job.priority) for job in jobs if job.published_at is not None]
    in_line = {job.queue for job in jobs if job.turn == Turn.WAITS}
    messages += map(wakeup.look, sorted(in_line))
    if messages:
        transaction.on_commit(lambda: wakeup.publish(messages), robust=True)


def _is_timed(options: Options, terms: Unique | None) -> bool:
    """Whether it says anything that is judged by the ledger's clock, which may differ from this host's."""
    if terms is not None and (terms.for_s or terms.debounce_s):
        return True
    return bool(options.get("delay") or options.get("run_at") or options.get("expires"))


def _run_after(options: Options, terms: Unique | None, now: datetime) -> datetime | None:
    delay, run_at = options.get("delay", 0), options.get("run_at")
    delay_s = seconds("delay", delay) if delay != 0 else 0
    debounce_s = terms.debounce_s if terms else None
    if sum((bool(delay_s), run_at is not None, debounce_s is not None)) > 1:
        raise ValueError("give delay, run_at or a debounce, not two of them")
    if debounce_s is not None or delay_s:
        return now + timedelta(seconds=debounce_s or delay_s)
    if run_at is None:
        return None
    if not isinstance(run_at, datetime) or timezone.is_naive(run_at):
        raise ValueError("run_at is not a datetime with a time zone")
    return run_at if run_at > now else None


def _expires_at(expires: Seconds | None, since: datetime) -> datetime | None:
    if expires is None:
        return None
    expires_s = seconds("expires", expires)
    if expires_s == 0:
        raise ValueError("expires = 0: the job would be over before it starts")
    return since + timedelta(seconds=expires_s)


def seconds(name: str, value: Seconds) -> float:
    """A length of time as seconds. Raises ValueError with the name."""
    found = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"{name} = {value!r} is not a number of seconds or a timedelta")
    if not 0 <= found <= _LONGEST_S:
        raise ValueError(f"{name} = {value!r} is not between 0 and ten years")
    return found


def _text(name: str, value: str | None, longest: int) -> str:
    if value is None:
        return ""
    if not failures.is_clean(value) or len(value) > longest:
        raise ValueError(f"{name} is not a text of up to {longest} characters")
    return value


def _max_retries(asked: int | None, task: Task, queue: Queue) -> int:
    given = next((n for n in (asked, task.max_retries, queue.max_retries) if n is not None), None)
    return conf().MAX_RETRIES if given is None else check_retries(given)


def check_retries(given: int) -> int:
    """Raises ValueError."""
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= 100:
        raise ValueError(f"max_retries = {given!r} is not a whole number from 0 to 100")
    return given
