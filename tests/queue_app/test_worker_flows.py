"""Workflows through real workers: results handed on, a batch that grows from inside, and kill -9 in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queue_app import batch, call, chain, enqueue_workflow, group
from queue_app.models import Job, JobEvent, Workflow

from .conftest import POOLS, until
from .flows import forget, job_of
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


def lines(takes_s: float) -> Workflow:
    """Six chains of eight, and then their sum."""
    steps = [[call(tasks.number, {"n": n, "takes_s": takes_s}) for n in range(8)] for _ in range(6)]
    return enqueue_workflow(group(*[chain(*line) for line in steps]).then(call(tasks.total, {})))


def killed_and_again(start_worker: Start, flow: Workflow, workers: int) -> None:
    """kill -9 of all workers in the middle, three times; then all of it ends."""
    for _ in range(3):
        wanted = min(Job.objects.filter(state="COMPLETED").count() + 5, flow.total)
        alive = [start_worker(*POOLS["threads"]) for _ in range(workers)]
        until(lambda least=wanted: Job.objects.filter(state="COMPLETED").count() >= least, "some end")
        for worker in alive:
            worker.kill()
    for _ in range(workers):
        start_worker(*POOLS["threads"])
    until(lambda: over(flow), "all of it ends")


def check(flow: Workflow) -> None:
    flow.refresh_from_db()
    assert (flow.completed, flow.total) == (49, 49)
    assert job_of(flow, 48).result == 6 * 7
    details = JobEvent.objects.values_list("job", "detail")
    released = [job for job, detail in details if detail.get("action") == "released"]
    assert len(released) == len(set(released)) == 6 * 7 + 1


@pytest.mark.drilled("workflows")
def test_worker__killed_again_and_again__every_job_ends_and_is_released_once(
    start_worker: Start, short_leases: None
) -> None:
    flow = lines(takes_s=0.02)
    killed_and_again(start_worker, flow, 1)
    check(flow)


@pytest.mark.drilled("workflows")
@pytest.mark.service
@pytest.mark.parametrize("_database", ["postgresql"], indirect=True)
def test_workers_on_postgresql__two_are_killed_together__every_job_is_released_once(
    every_database: None, start_worker: Start, short_leases: None
) -> None:
    flow = lines(takes_s=0.2)  # the first worker is not done when the second one is ready
    killed_and_again(start_worker, flow, 2)
    check(flow)
    forget()
