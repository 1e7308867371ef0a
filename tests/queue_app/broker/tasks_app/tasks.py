"""Plain Celery tasks, as any Celery project has them."""

from __future__ import annotations

import os
import signal
import time
from datetime import date
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Reject


@shared_task(name="plain.add")
def add(a: int, b: int) -> int:
    return a + b


@shared_task(name="plain.kept_add", ignore_result=False)
def kept_add(a: int, b: int) -> int:
    return a + b


@shared_task(name="plain.total", ignore_result=False)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(name="plain.note")
def note(file: str, text: Any, takes_s: float = 0) -> dict[str, Any]:
    """Append the text to the file, after a while."""
    time.sleep(takes_s)
    with Path(file).open("a") as out:
        out.write(f"{text}\n")
    return {"text": str(text)}


@shared_task(name="plain.wait_for")
def wait_for(gate: str, file: str, text: Any) -> None:
    """Append the text to the file once the gate is there."""
    while not Path(gate).exists():
        time.sleep(0.01)
    with Path(file).open("a") as out:
        out.write(f"{text}\n")


@shared_task(name="plain.fail")
def fail() -> None:
    raise ConnectionError("refused by the test")


@shared_task(name="plain.weekday")
def weekday(day: date, *, dead: bool) -> int:
    if dead:
        raise ConnectionError("refused by the test")
    return day.weekday()


@shared_task(name="plain.retry", bind=True, max_retries=2, default_retry_delay=0.2)
def retry(self: Any, succeed_at: int) -> int:
    """Succeeds at its run number `succeed_at`."""
    if self.request.retries + 1 < succeed_at:
        raise self.retry(exc=ConnectionError("again"), countdown=0.2)
    return int(self.request.retries + 1)


@shared_task(name="plain.early", acks_late=False)
def early(number: int) -> int:
    return number


@shared_task(name="plain.ignore")
def ignore() -> None:
    raise Ignore


@shared_task(name="plain.reject")
def reject() -> None:
    raise Reject("no", requeue=False)


@shared_task(name="plain.leave", max_retries=1, default_retry_delay=0)
def leave() -> None:
    raise SystemExit(3)


@shared_task(name="plain.remembers")
def remembers(name: str) -> bool:
    """Whether a run before this one had the same database connection. Leaves a mark on it."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM temp.sqlite_master WHERE name = %s", [name])
        found = cursor.fetchone() is not None
        cursor.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} (at int)")
    return found


@shared_task(name="plain.leave_open")
def leave_open() -> None:
    """Leaves its connection in a transaction."""
    from django.db import transaction

    transaction.Atomic(None, savepoint=False, durable=False).__enter__()


@shared_task(name="plain.kill_own_process", max_retries=1, default_retry_delay=0)
def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
