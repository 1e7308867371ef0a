"""`enqueue` on a queue whose delivery is the broker: a message that carries the job; its row is made by the recorder.

publish → queue_app.broker_run in a worker → the registered task → its end, told as that of any Celery task
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from celery import current_app, shared_task
from django.db import transaction

from queue_app import performing, registry
from queue_app.conf import conf
from queue_app.payloads import parse
from queue_app.runs import ATOMIC_INSTEAD, Run, refuse_on_loop
from queue_app.statements import Claimed
from queue_app.states import State

from .celery_task import Discarded
from .descriptions import BROKER_RUN, HEADER


class BrokerRun(Run):
    """What a handler sees of a job that has no row yet: nothing to fence, and nothing to cancel but by Celery's revoke."""

    def _look(self) -> bool:
        return False

    def _note(self, fraction: float, note: str) -> None:
        return

    @contextmanager
    def atomic(self, result: Any = None) -> Any:
        """A plain transaction: the end of the job is not in it, so the effect is at least once."""
        refuse_on_loop("atomic", ATOMIC_INSTEAD)
        with transaction.atomic():
            yield


def publish(common: Mapping[str, Any], ids: Sequence[UUID], texts: Sequence[str]) -> None:
    """Send jobs when the caller's transaction commits; at once outside one, and then a broker that is down raises.

    common: what the jobs share, by the names of Job's columns. texts: their payloads as JSON.
    """
    transaction.on_commit(lambda: _send(common, ids, texts))


def _send(common: Mapping[str, Any], ids: Sequence[UUID], texts: Sequence[str]) -> None:
    with current_app.producer_or_acquire() as producer, producer.batch():
        for id, text in zip(ids, texts, strict=True):
            current_app.send_task(
                BROKER_RUN,
                args=(common["name"], parse(text), common["max_attempts"]),
                task_id=str(id),
                producer=producer,
                queue=common["queue"],
                priority=common["priority"],
                eta=common["run_after"],
                expires=common["expires_at"],
                headers={HEADER: {"tenant": common["tenant"]}},
                parent_id=str(common["parent"]) if common["parent"] else None,
            )


@shared_task(name=BROKER_RUN, bind=True, max_retries=None, ignore_result=True)
def broker_run(self: Any, name: str, payload: dict[str, Any], max_attempts: int) -> Any:
    """Run the registered task `name`; retries are as its rules say."""
    try:
        task = registry.find(name)
    except registry.UnknownTask as error:  # a worker whose code knows it may come
        raise self.retry(exc=error, countdown=conf().PARK_S) from None
    run = _run(self.request, name, payload, max_attempts)
    try:
        return task.perform(run)
    except Exception as error:
        end = performing.failed(run, error)
        if end.state == State.CANCELLED:
            raise Discarded(str(error)) from error
        if end.state != State.FAILED:
            raise
        raise self.retry(exc=error, countdown=end.delay_s or 0) from error


def _run(request: Any, name: str, payload: dict[str, Any], max_attempts: int) -> BrokerRun:
    ours = getattr(request, HEADER, None) or {}
    job = Claimed(
        id=UUID(request.id),
        name=name,
        queue=ours.get("queue", ""),
        tenant=ours.get("tenant", ""),
        priority=ours.get("priority", 0),
        payload=payload,
        attempt=request.retries,
        max_attempts=max_attempts,
        crash_count=0,
        fence=0,
        suspect=False,
        cancel_requested=False,
        request_id="",
        parent=None,
        expired=False,
    )
    return BrokerRun(job, UUID(int=0))
