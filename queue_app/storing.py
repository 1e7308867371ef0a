"""New jobs into their tables: rows, first events and blobs in one transaction, the caller's when there is one.

texts → large ones to blobs → rows where their unique keys are free → the holders of those that are not
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import OperationalError, connection
from django.db.models import BooleanField, ExpressionWrapper, JSONField, Q, Value
from django.db.models.base import ModelState

from orm_app.transactions import transaction

from . import ledger, offload, payloads, publication
from .clock import Clock
from .conf import conf
from .models import Job, Tag
from .states import OVER, WAITING
from .unique import Unique
from .uuid7 import uuid7

_TRIES = (
    10  # a key that was taken a moment ago is free, and taken again: as often as that nobody loses by chance
)
_WINDOW_IS_OVER = ExpressionWrapper(Q(unique_until__lte=Clock()), BooleanField())


def store(common: Mapping[str, Any], texts: Sequence[str], values: Sequence[Any]) -> list[Job]:
    """A job for each payload (its text, and what `Job.payload` is to be). common: the columns that they share."""
    ids = [uuid7() for _ in texts]
    insert(common, ids, texts)
    return as_read(common, ids, values)


def insert(common: Mapping[str, Any], ids: Sequence[UUID], texts: Sequence[str]) -> None:
    """Rows of these ids: what `store` does for its own."""
    is_alone = not common.get("tags") and _is_one_statement(texts)
    if connection.vendor == "postgresql" and not connection.in_atomic_block and is_alone:
        ledger.insert(common, ids, texts)
    else:
        _insert(common, ids, texts, ())


@transaction(savepoint=False)
def store_unique(
    common: Mapping[str, Any],
    texts: Sequence[str],
    values: Sequence[Any],
    keys: Sequence[str],
    unique: Unique,
) -> list[Job]:
    """As `store`, but a payload whose key is taken gets the job that holds it, marked `is_duplicate`."""
    asked: dict[str, int] = {}
    for number, key in enumerate(keys):
        if unique.debounce_s or key not in asked:  # the last payload is the newest
            asked[key] = number
    found: dict[str, Job] = {}
    for _ in range(_TRIES):
        # In the order of the keys: two callers with the same ones wait for each other, and do not deadlock.
        open_ = {key: asked[key] for key in sorted(set(asked) - set(found))}
        if not open_:
            return _each(keys, asked, found)
        found |= _made(common, texts, values, open_)
        for key, holder in _holders(set(open_) - set(found)).items():
            if _is_the_same(holder, unique, common, texts[asked[key]], values[asked[key]]):
                found[key] = holder
    raise OperationalError("the holder of a unique key is out of sight: run the transaction again")


def rewrite(job_id: UUID, text: str) -> None:
    """Another payload for a job whose row the caller has locked, in his transaction."""
    Job.objects.filter(id=job_id).update(payload=_in_row(text))
    offload.replace(job_id, text if _is_large(text) else None)


def _made(
    common: Mapping[str, Any], texts: Sequence[str], values: Sequence[Any], wanted: Mapping[str, int]
) -> dict[str, Job]:
    ids = {key: uuid7() for key in wanted}
    made = _insert(common, list(ids.values()), [texts[number] for number in wanted.values()], list(wanted))
    keys = [key for key, id in ids.items() if id in made]
    jobs = as_read(common, [ids[key] for key in keys], [values[wanted[key]] for key in keys])
    for job, key in zip(jobs, keys, strict=True):
        job.unique_key = key
    return dict(zip(keys, jobs, strict=True))


def _holders(keys: set[str]) -> dict[str, Job]:
    if not keys:
        return {}
    held = Job.objects.filter(unique_key__in=keys).annotate(window_is_over=_WINDOW_IS_OVER)
    return {str(job.unique_key): job for job in held.order_by("unique_key")}


def _is_the_same(holder: Job, unique: Unique, common: Mapping[str, Any], text: str, value: Any) -> bool:
    """Whether the holder stands for this enqueue. False: the key may be free now, try again."""
    mine = Job.objects.filter(id=holder.id, unique_key=holder.unique_key)
    is_over = holder.unique_until is None and holder.state in OVER
    if is_over or getattr(holder, "window_is_over", False):
        mine.update(unique_key=None)
        return False
    if unique.debounce_s is not None and holder.unique_until is None:
        changes = {
            "run_after": common["run_after"],
            "published_at": None,
            "turn": publication.NO_TURN,
            "payload": _in_row(text),
        }
        if not mine.filter(state__in=WAITING).update(**changes):
            mine.exclude(state__in=WAITING).update(
                unique_key=None
            )  # it runs: what is new needs a run of its own
            return False
        offload.replace(holder.id, text if _is_large(text) else None)
        holder.run_after, holder.payload = common["run_after"], value
    holder.is_duplicate = True
    return True


@transaction(savepoint=False)
def _insert(
    common: Mapping[str, Any], ids: Sequence[UUID], texts: Sequence[str], keys: Sequence[str]
) -> set[UUID]:
    large = {id: text for id, text in zip(ids, texts, strict=True) if _is_large(text)}
    if large:
        texts = [offload.ELSEWHERE if id in large else text for id, text in zip(ids, texts, strict=True)]
    made = ledger.insert(common, ids, texts, keys)
    if large:
        offload.store((id, text) for id, text in large.items() if id in made)
    if common.get("tags"):
        Tag.objects.bulk_create(
            [Tag(job_id=id, name=tag) for id in ids if id in made for tag in common["tags"]], batch_size=1000
        )
    return made


def _is_large(text: str) -> bool:
    limit = conf().OFFLOAD_BYTES
    return len(text) > limit or (4 * len(text) > limit and len(text.encode()) > limit)  # 4 bytes at most each


def _is_one_statement(texts: Sequence[str]) -> bool:
    return len(texts) <= ledger.INSERT_ROWS and not any(map(_is_large, texts))


def _in_row(text: str) -> Any:
    return Value(None, JSONField()) if _is_large(text) else payloads.parse(text)


def as_read(common: Mapping[str, Any], ids: Iterable[UUID], payloads_: Iterable[Any]) -> list[Job]:
    """Jobs as if they had been read: their constructor costs more than all the rest of storing a row."""
    columns, alias = {**_blank(), **common}, connection.alias
    return [_as_read(columns, alias, id, value) for id, value in zip(ids, payloads_, strict=True)]


def _as_read(columns: Mapping[str, Any], alias: str, id: UUID, payload: Any) -> Job:
    job = Job.__new__(Job)
    job.__dict__.update(columns, id=id, payload=payload)
    job._state = ModelState()
    job._state.adding, job._state.db = False, alias
    return job


@functools.cache
def _blank() -> dict[str, Any]:
    return dict(Job().__dict__)


def _each(keys: Sequence[str], asked: Mapping[str, int], found: Mapping[str, Job]) -> list[Job]:
    """The job of each key; of several payloads with one key all but the one that was stored are duplicates."""
    return [found[key] if number == asked[key] else _twin(found[key]) for number, key in enumerate(keys)]


def _twin(job: Job) -> Job:
    twin = Job.__new__(Job)
    twin.__dict__.update(job.__dict__, is_duplicate=True)
    return twin
