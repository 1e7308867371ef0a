"""The same two handlers twice: as jobs of the ledger, and as plain Celery tasks for the broker's delivery."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from benchmarks.queue.marks import enter
from benchmarks.queue.producer import WORK_S
from queue_app import task


@task(name="bench.noop")
def noop(payload: dict[str, Any]) -> None:
    enter(payload["n"])


@task(name="bench.work_1ms")
def work_1ms(payload: dict[str, Any]) -> None:
    enter(payload["n"], WORK_S["work_1ms"])


@shared_task(name="bench.broker_noop")
def broker_noop(n: int) -> None:
    enter(n)


@shared_task(name="bench.broker_work_1ms")
def broker_work_1ms(n: int) -> None:
    enter(n, WORK_S["work_1ms"])
