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


@shared_task(name="plain.kill_own_process", max_retries=1, default_retry_delay=0)
def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
