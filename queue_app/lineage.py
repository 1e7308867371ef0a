"""Which job enqueued which: a job that a handler enqueues has the running one as its parent, without being told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from .models import Job

_DEEPEST = (
    100  # ancestors that are looked at: a job that goes on by enqueueing its successor has any number of them
)
_running: ContextVar[UUID | None] = ContextVar("running_job", default=None)


class BadParent(ValueError):
    """The parent does not exist, or it is an ancestor of itself."""


@contextmanager
def running(job_id: UUID) -> Iterator[None]:
    """Jobs that are enqueued inside the block, also from coroutines and `sync_to_async`, are this one's children."""
    token = _running.set(job_id)
    try:
        yield
    finally:
        _running.reset(token)


def parent(given: Job | UUID | None) -> UUID | None:
    """The parent's id: the given one, looked at, or the running job's. Raises BadParent."""
    if given is None:
        return _running.get()
    id = given if isinstance(given, UUID) else getattr(given, "id", None)
    if not isinstance(id, UUID):
        raise BadParent(f"a parent is a job or its id, not a {type(given).__name__}")
    _check(id)
    return id


def _check(id: UUID) -> None:
    from .models import Job  # this module is imported before the app registry is ready

    above, seen = id, set[UUID]()
    while len(seen) < _DEEPEST:
        if above in seen:
            raise BadParent(f"cyclic parent: job {above} is an ancestor of itself")
        seen.add(above)
        row = Job.objects.filter(id=above).values_list("parent", flat=True)
        if not row:
            if above == id:
                raise BadParent(f"no job has the id {id}")
            return  # an ancestor that is past its retention
        if row[0] is None:
            return
        above = row[0]
