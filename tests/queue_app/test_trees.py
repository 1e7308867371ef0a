"""Cancel of whole trees on every database: members, children, workflows that a job started, and what has run already."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from foundation.models import AuditEntry
from queue_app import (
    add_to_batch,
    batch,
    call,
    cancelling,
    chain,
    enqueue,
    enqueue_many,
    enqueue_workflow,
    group,
    recovery,
    trees,
    wakeup,
    workers,
    workflows,
)
from queue_app.composition import Status
from queue_app.lineage import running
from queue_app.models import Job, Worker, Workflow
from queue_app.states import State

from .flows import at_once, claim, end, finish, forget, job_of, states_of

pytestmark = pytest.mark.usefixtures("every_database")
WHO: dict[str, Any] = {"actor": "ada", "source": "cli"}


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: True)
    yield
    forget()


@pytest.fixture
def worker() -> Worker:
    return workers.register(pool="threads", concurrency=1, queues=["email_queue"])


def mail() -> Any:
    return call("email_queue", {})


def standing(*jobs: Job) -> list[str]:
    return [Job.objects.get(id=job.id).state for job in jobs]


def test_cancel_tree__workflow__members_and_what_they_enqueued(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(), group(mail(), mail()), mail()))
    assert end(worker, job_of(flow, 0).id)
    (held,) = claim(worker, job_of(flow, 1).id)
    with running(held.id):
        child = enqueue("email_queue", {})
        with running(child.id):
            grandchild = enqueue("email_queue", {})
        inner = enqueue_workflow(batch(mail(), on_complete=mail()))
    stranger = enqueue("email_queue", {})
    cut = trees.cancel_tree(flow, **WHO)
    assert states_of(flow) == ["COMPLETED", "PROCESSING", "CANCELLED", "CANCELLED"]
    assert standing(child, grandchild, stranger) == ["CANCELLED", "CANCELLED", "PENDING"]
    assert states_of(inner) == ["CANCELLED"] * 2
    assert (cut.cancelled, cut.asked, cut.over) == (6, 1, 1)
    assert (flow.status, flow.is_cancelled, Workflow.objects.get(id=inner.id).status) == (
        Status.RUNNING, True, Status.CANCELLED,
    )  # fmt: skip
    assert Job.objects.get(id=held.id).cancel_requested
    assert finish(worker, held, State.CANCELLED)  # it noticed
    flow.refresh_from_db()
    assert (flow.status, flow.completed, flow.cancelled) == (Status.CANCELLED, 1, 3)
    entry = AuditEntry.objects.get(action="workflow.cancel_tree")
    assert entry.after == {"cancelled": 6, "asked": 1, "over": 1, "forced": False}
    with pytest.raises(trees.NothingToCancel, match="is over"):
        trees.cancel_tree(flow, **WHO)
    with pytest.raises(workflows.Finished):
        add_to_batch(inner, mail())


def test_cancel_tree__batch__no_callback_is_called(worker: Worker) -> None:
    flow = enqueue_workflow(batch(*[mail()] * 3, on_complete=mail(), on_success=mail(), on_death=mail()))
    assert end(worker, job_of(flow, 0).id, State.DEAD_LETTER)
    (on_death,) = claim(worker, job_of(flow, 5).id)  # it runs already
    trees.cancel_tree(flow, force=True, **WHO)
    assert states_of(flow) == ["DEAD_LETTER", *["CANCELLED"] * 4, "PROCESSING"]
    assert (flow.status, flow.finished_at is not None) == (Status.CANCELLED, True)
    row = Job.objects.get(id=on_death.id)
    assert (row.cancel_requested, row.cancel_forced) == (True, True)


def test_cancel_tree__job__below_it_only_and_what_waits_for_it(worker: Worker) -> None:
    flow = enqueue_workflow(group(mail(), mail()).then(mail()))
    first = job_of(flow, 0)
    children = enqueue_many("email_queue", [{}] * 3, parent=first)
    Job.objects.filter(id=children[0].id).update(state=State.COMPLETED)
    assert trees.cancel_tree(first, **WHO) == (3, 0, 1)
    assert states_of(flow) == ["CANCELLED", "PENDING", "CANCELLED"]
    assert standing(*children) == ["COMPLETED", "CANCELLED", "CANCELLED"]
    flow.refresh_from_db()
    assert (flow.status, flow.cancelled) == (Status.RUNNING, 2)


def test_cancel_tree__while_its_jobs_end_and_their_worker_is_given_up__nobody_deadlocks(
    worker: Worker,
) -> None:
    for _ in range(5):
        flow = enqueue_workflow(group(*[chain(mail(), mail()) for _ in range(6)]).then(mail()))
        held = claim(worker, *flow.members.filter(is_held=False).values_list("job", flat=True))
        ids = {one.id for one in held[3:]}
        at_once(
            *[partial(finish, worker, one) for one in held[:3]],
            partial(trees.cancel_tree, flow, **WHO),
            partial(recovery.take_back, worker.id, ids, ran=ids, max_crashes=1, reason="child died"),
        )
        flow.refresh_from_db()
        assert set(states_of(flow)) <= {"COMPLETED", "CANCELLED", "DEAD_LETTER"}
        assert (flow.status, flow.completed + flow.dead + flow.cancelled) == (Status.CANCELLED, 13)
        assert (flow.completed, flow.dead) == (3, 3)


def test_cancel_tree__batch_grows_before_it_is_locked__what_was_added_is_cancelled_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, lock = enqueue_workflow(batch(mail(), on_complete=mail())), trees.releasing.lock

    def late(ids: Any) -> Any:
        monkeypatch.setattr(trees.releasing, "lock", lock)
        add_to_batch(flow, mail())  # somebody who committed in between
        return lock(ids)

    monkeypatch.setattr(trees.releasing, "lock", late)
    assert trees.cancel_tree(flow, **WHO).cancelled == 3
    assert states_of(flow) == ["CANCELLED"] * 3
    assert flow.status == Status.CANCELLED


def test_cancel_tree__brokers_job_ends_at_that_moment__is_over_and_the_rest_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = enqueue("email_queue", {})
    child = enqueue("email_queue", {}, parent=root)
    Job.objects.filter(id=child.id).update(delivery="broker", state=State.PROCESSING)
    revoke = cancelling.revoke

    def late(job: Job, *, force: bool) -> None:
        Job.objects.filter(id=job.id).update(state=State.COMPLETED)  # as the recorder has just heard
        revoke(job, force=force)

    monkeypatch.setattr(cancelling, "revoke", late)
    assert trees.cancel_tree(root, **WHO) == (1, 0, 1)
    assert standing(root, child) == ["CANCELLED", "COMPLETED"]


def test_cancel_tree__cyclic_parents__each_once() -> None:
    one, two = enqueue_many("email_queue", [{}] * 2)
    Job.objects.filter(id=one.id).update(parent=two.id)
    Job.objects.filter(id=two.id).update(parent=one.id)
    assert trees.cancel_tree(one, **WHO).cancelled == 2


def test_cancel_tree__larger_than_it_may_be__changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "LARGEST", 2)
    flow = enqueue_workflow(group(mail(), mail(), mail()))
    with pytest.raises(trees.TooLarge):
        trees.cancel_tree(flow, **WHO)
    assert states_of(flow) == ["PENDING"] * 3
