"""Which way a queue's jobs go: its row says so for every caller, else each caller's own way holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import UUID

import structlog
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError
from django.utils import timezone

from . import descriptions, events
from .descriptions import Call

log = structlog.get_logger(__name__)

# As models.Delivery, which must not be imported before the app registry is ready.
LEDGER, BROKER = "ledger", "broker"


def of(queue: str) -> str:
    """LEDGER, BROKER, or empty where the row says nothing, or cannot be read: a message needs no database."""
    try:
        return _of(queue)
    except SynchronousOnlyOperation:  # `.delay()` in a coroutine
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_of_elsewhere, queue).result()
    except DatabaseError as error:
        log.warning("delivery_not_known", queue=queue, error=type(error).__name__)
        return ""


def store_call(call: Call) -> None:
    """The call of a Celery task as a job of the ledger, in the caller's transaction; the broker is told after it.

    ValueError (BadPayload, UnknownQueue) stores nothing.
    """
    from django.db import transaction

    from queue_app import clock, lineage, payloads, policies, queues, storing, wakeup
    from queue_app.conf import conf
    from queue_app.publication import Wakeup

    name, queue, priority, headers, args, kwargs, max_retries = call
    text = payloads.accept({"args": list(args), "kwargs": dict(kwargs)}, max_bytes=conf().MAX_PAYLOAD_BYTES)
    id, now = UUID(events.job_id(headers["id"])), timezone.now()
    run_after = _moment(headers.get("eta"))
    run_after = run_after if run_after and run_after > clock.now() else None
    policy = queues.find(queue)
    turn = policies.first_turn(policy, is_due=run_after is None)
    common = {
        "name": name,
        "queue": policy.name,
        "delivery": LEDGER,
        "tenant": "",
        "priority": priority,
        "state": "PENDING",
        "max_attempts": 1 + (conf().MAX_RETRIES if max_retries is None else max_retries),
        "run_after": run_after,
        "expires_at": _moment(headers.get("expires")),
        "published_at": None if run_after or turn else now,
        "unique_until": None,
        "workflow": None,
        "parent": lineage.parent(None),
        "request_id": descriptions.request_id(),
        "created_at": now,
        "turn": turn,
    }
    storing.insert(common, [id], [text])
    if run_after is None:
        message = wakeup.look(queue) if turn else Wakeup(id, queue, priority)
        transaction.on_commit(lambda: wakeup.publish([message]), robust=True)


def _of(queue: str) -> str:
    from queue_app import policies

    found = policies.by_name().get(queue)
    return found.delivery if found else ""


def _of_elsewhere(queue: str) -> str:
    from django.db import connections

    try:
        return _of(queue)
    except DatabaseError:
        return ""
    finally:
        connections.close_all()


def _moment(text: str | None) -> datetime | None:
    found = datetime.fromisoformat(text) if text else None
    return found.replace(tzinfo=timezone.get_default_timezone()) if found and found.tzinfo is None else found
