"""Workflows through real workers: results handed on, a batch that grows from inside, and kill -9 in the middle."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from queue_app import batch, call, chain, enqueue_workflow, group
from queue_app.models import Job, JobEvent, Workflow

from .conftest import POOLS, until
from .flows import job_of
from .jobs_app import tasks

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., Any]


def over(*flows: Workflow) -> bool:
    return not Workflow.objects.filter(id__in=[flow.id for flow in flows], finished_at=None).exists()


def test_worker__chain_group_and_batch__hand_their_results_on(
    start_worker: Start, pool: tuple[str, ...]
) -> None:
    start_worker(*pool)
    numbers = [call(tasks.number, {"n": n}) for n in range(10)]
    summed = enqueue_workflow(group(*numbers).then(call(tasks.total, {}), call(tasks.atotal, {})))
    grown = enqueue_workflow(batch(call(tasks.grow, {"more": 20}), on_success=call(tasks.atotal, {})))
    until(lambda: over(summed, grown), "both workflows end")
    assert (job_of(summed, 10).result, job_of(summed, 11).result) == (45, 45)
    until(lambda: job_of(grown, 1).result == 21, "the callback ends")
    grown.refresh_from_db()
    assert (grown.total, grown.completed) == (21, 21)


def test_worker__killed_again_and_again__every_job_ends_and_is_released_once(start_worker: Start) -> None:
    lines = [chain(*[call(tasks.number, {"n": n, "takes_s": 0.02}) for n in range(8)]) for _ in range(6)]
    flow = enqueue_workflow(group(*lines).then(call(tasks.total, {})))
    for _ in range(3):
        before = Job.objects.filter(state="COMPLETED").count()
        worker = start_worker(*POOLS["threads"])
        until(lambda least=before + 5: Job.objects.filter(state="COMPLETED").count() >= least, "some end")
        worker.signal(signal.SIGKILL)
        worker.kill()
    start_worker(*POOLS["threads"])
    until(lambda: over(flow), "all of it ends", timeout_s=60)
    flow.refresh_from_db()
    assert (flow.completed, flow.total) == (49, 49)
    assert job_of(flow, 48).result == 6 * 7
    released = JobEvent.objects.filter(detail__action="released").values_list("job", flat=True)
    assert len(released) == len(set(released)) == 6 * 7 + 1
