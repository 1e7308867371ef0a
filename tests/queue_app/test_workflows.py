"""Workflows on every database: what waits, what lets it go, exactly once; dead letters, replays, cancels, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queue_app import (
    add_to_batch,
    batch,
    bulk,
    call,
    cancelling,
    chain,
    conditions,
    deadletter,
    enqueue,
    enqueue_workflow,
    group,
    interventions,
    ledger,
    policies,
    publication,
    queues,
    reconciler,
    recovery,
    releasing,
    retention,
    stats,
    wakeup,
    workers,
    workflows,
)
from queue_app.composition import BadWorkflow, Status
from queue_app.lineage import BadParent, running
from queue_app.models import Job, JobEvent, Member, Worker, Workflow
from queue_app.runs import FencedOut, Run
from queue_app.selection import Selection
from queue_app.statements import End
from queue_app.states import NEVER, State, Turn

from .flows import at_once, claim, end, finish, forget, job_of, releases, states_of

pytestmark = pytest.mark.usefixtures("every_database")
WHO: dict[str, Any] = {"actor": "ada", "source": "cli"}


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[UUID]]:
    messages: list[UUID] = []
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: messages.extend(one.id for one in wakeups) or True)
    yield messages
    forget()


@pytest.fixture
def worker() -> Worker:
    return workers.register(pool="threads", concurrency=1, queues=["email_queue"])


def mail(number: int = 0, **options: Any) -> Any:
    return call("email_queue", {"n": number}, **options)


def fresh(flow: Workflow) -> Workflow:
    return Workflow.objects.get(id=flow.id)


# --- chains and groups ------------------------------------------------------------------------------------------------
def test_chain__each_ends__the_next_is_let_go_in_the_same_transaction(
    worker: Worker, sent: list[UUID]
) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2), mail(3), name="three"))
    first, second, third = (job_of(flow, at) for at in range(3))
    assert states_of(flow) == ["PENDING", "held", "held"]
    assert sent == [first.id]
    assert claim(worker, second.id) == []  # whoever sends its wake-up too early
    assert publication.due() == []
    Job.objects.update(created_at=timezone.now() - timedelta(hours=1))
    assert end(worker, first.id, result={"a": 1})
    assert states_of(flow) == ["COMPLETED", "PENDING", "held"]
    assert stats.oldest_due_s()["email_queue"] < 60  # it waits since it was let go
    assert sent == [first.id, second.id]
    (held,) = claim(worker, second.id)
    assert Run(held, worker.id).previous_results() == [{"a": 1}]
    assert Run(held, worker.id).previous_result() == {"a": 1}
    assert finish(worker, held)
    assert end(worker, third.id)
    flow = fresh(flow)
    assert (flow.status, flow.completed, flow.total, flow.progress) == (Status.COMPLETED, 3, 3, 1.0)
    assert flow.finished_at is not None
    assert releases(second.id) == 1


def test_group__last_of_them_ends__callback_gets_their_results(worker: Worker) -> None:
    flow = enqueue_workflow(group(*[mail(n) for n in range(5)]).then(mail(9, priority=6)))
    callback = job_of(flow, 5)
    for at in (4, 2, 0, 1):
        assert end(worker, job_of(flow, at).id, result=at)
        assert job_of(flow, 5).is_held
    assert end(worker, job_of(flow, 3).id, result=3)
    (held,) = claim(worker, callback.id)
    assert Run(held, worker.id).previous_results() == [0, 1, 2, 3, 4]
    assert (held.priority, held.workflow) == (6, flow.id)


def test_group__of_chains__callback_waits_for_the_last_of_each(worker: Worker) -> None:
    flow = enqueue_workflow(group(chain(mail(0), mail(1)), mail(2)).then(mail(3)))
    for at, expected in (
        (2, ["PENDING", "held", "COMPLETED", "held"]),
        (0, ["COMPLETED", "PENDING", "COMPLETED", "held"]),
        (1, ["COMPLETED", "COMPLETED", "COMPLETED", "PENDING"]),
    ):
        assert end(worker, job_of(flow, at).id)
        assert states_of(flow) == expected


def test_enqueue_workflow__transaction_is_rolled_back__nothing_is_stored_or_sent(sent: list[UUID]) -> None:
    with pytest.raises(KeyError), transaction.atomic():
        enqueue_workflow(chain(mail(), mail()))
        raise KeyError
    assert (Job.objects.count(), Member.objects.count(), Workflow.objects.count(), sent) == (0, 0, 0, [])


def test_enqueue_workflow__thousand_jobs_of_a_task__few_statements() -> None:
    enqueue("email_queue", {})  # the queue's policy is known by now
    with CaptureQueriesContext(connection) as seen:
        flow = enqueue_workflow(group(*[mail(n) for n in range(1000)]).then(mail()))
    assert len(seen) < 30
    assert Job.objects.filter(workflow=flow.id).count() == 1001


def test_enqueue__job_of_no_workflow__no_statement_more(worker: Worker) -> None:
    job = enqueue("email_queue", {})
    (held,) = claim(worker, job.id)
    with CaptureQueriesContext(connection) as seen:
        assert finish(worker, held)
    assert not any("workflow" in query["sql"].lower() for query in seen)


def test_chain__member_with_times__they_count_from_when_it_is_let_go(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(), mail(delay=60, expires=30), mail(run_at=NEVER - timedelta(days=1))))
    second = job_of(flow, 1)
    assert (second.run_after, second.expires_at, second.published_at) == (NEVER, None, None)
    assert end(worker, job_of(flow, 0).id)
    second = job_of(flow, 1)
    assert second.run_after is not None
    assert second.expires_at is not None
    assert 50 < (second.run_after - timezone.now()).total_seconds() < 70
    assert second.expires_at - second.run_after == timedelta(seconds=30)
    assert claim(worker, second.id) == []
    Job.objects.filter(id=second.id).update(run_after=timezone.now() - timedelta(seconds=1))
    assert [found.id for found in publication.due()] == [second.id]
    assert end(worker, second.id)
    assert job_of(flow, 2).run_after == NEVER - timedelta(days=1)


# --- exactly once -----------------------------------------------------------------------------------------------------
def test_note__said_twice_and_late__releases_once(worker: Worker, sent: list[UUID]) -> None:
    flow = enqueue_workflow(group(mail(1), mail(2)).then(mail(3)))
    ids = [job_of(flow, at).id for at in range(3)]
    for id in ids[:2]:
        assert end(worker, id)
    for _ in range(2):
        with transaction.atomic():
            releasing.note_all({flow.id: dict.fromkeys(ids[:2], State.COMPLETED)})
    assert releasing.find_missed() == 0
    assert releases(ids[2]) == 1
    assert sent.count(ids[2]) == 1
    assert (fresh(flow).completed, fresh(flow).tried) == (2, 2)


def test_exchange__all_of_a_group_end_at_once__callback_is_released_once(worker: Worker) -> None:
    for _ in range(5):
        flow = enqueue_workflow(group(*[mail(n) for n in range(6)]).then(mail(9)))
        held = claim(worker, *[job_of(flow, at).id for at in range(6)])
        at_once(*[lambda one=one: _insisting(lambda: finish(worker, one)) for one in held])
        assert states_of(flow) == ["COMPLETED"] * 6 + ["PENDING"]
        assert releases(job_of(flow, 6).id) == 1
        assert fresh(flow).completed == 6


def test_find_missed__steps_under_code_that_knew_no_workflow__are_made_up_for_once(
    worker: Worker, sent: list[UUID]
) -> None:
    flow = enqueue_workflow(group(mail(1), mail(2)).then(mail(3)))
    for at in range(2):
        (held,) = claim(worker, job_of(flow, at).id)
        assert finish(worker, held._replace(workflow=None))
    assert states_of(flow)[2] == "held"
    at_once(*[lambda: _insisting(releasing.find_missed)] * 3)
    assert states_of(flow)[2] == "PENDING"
    assert (releases(job_of(flow, 2).id), sent.count(job_of(flow, 2).id)) == (1, 1)
    reconciler.tell_workflows()
    assert fresh(flow).completed == 2


def _insisting(act: Callable[[], Any]) -> None:
    """As the engine does: a deadlock or a busy database is tried again."""
    for _ in range(50):
        try:
            act()
            return
        except OperationalError:
            connection.close()
    raise AssertionError


def test_exchange__end_that_its_fence_refuses__lets_nobody_go(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2)))
    (held,) = claim(worker, job_of(flow, 0).id)
    assert not finish(worker, held._replace(fence=7))
    assert states_of(flow) == ["PROCESSING", "held"]
    assert fresh(flow).completed == 0


def test_atomic__effect_and_end__let_the_next_go_or_are_rolled_back(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2)))
    (held,) = claim(worker, job_of(flow, 0).id)
    with pytest.raises(FencedOut), Run(held._replace(fence=7), worker.id).atomic():
        pass
    assert states_of(flow) == ["PROCESSING", "held"]
    with Run(held, worker.id).atomic({"done": True}):
        pass
    assert states_of(flow) == ["COMPLETED", "PENDING"]


def test_release__worker_died__job_runs_again_and_then_the_next(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2)))
    first = job_of(flow, 0).id
    assert claim(worker, first)
    Worker.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    recovery.release(worker.id, {first}, max_crashes=1, reason="worker lost")
    assert states_of(flow) == ["DEAD_LETTER", "held"]
    assert fresh(flow).status == Status.BLOCKED
    other = workers.register(pool="threads", concurrency=1, queues=[])
    deadletter.replay(job_of(flow, 0), **WHO)
    assert end(other, first)
    assert states_of(flow) == ["COMPLETED", "PENDING"]


# --- dead letters -----------------------------------------------------------------------------------------------------
def test_chain__member_dies__rest_is_held_until_a_replay_completes(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2)))
    assert end(worker, job_of(flow, 0).id, State.DEAD_LETTER)
    assert states_of(flow) == ["DEAD_LETTER", "held"]
    assert (fresh(flow).status, fresh(flow).dead) == (Status.BLOCKED, 1)
    bulk.start("replay", Selection(), **WHO)
    assert bulk.work_off(look_s=1) == 1
    assert (fresh(flow).status, fresh(flow).dead) == (Status.RUNNING, 0)
    assert end(worker, job_of(flow, 0).id)
    assert states_of(flow) == ["COMPLETED", "PENDING"]


def test_chain__dead_letter_is_replayed_at_a_rate__is_counted(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2)))
    assert end(worker, job_of(flow, 0).id, State.DEAD_LETTER)
    with transaction.atomic():
        interventions.replay_many([job.id for job in deadletter.dead()], actor="ada")
    assert (fresh(flow).dead, states_of(flow)) == (0, ["PENDING", "held"])


def test_chain__dead_letter_is_discarded__rest_is_dropped(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2), group(mail(3), mail(4))))
    assert end(worker, job_of(flow, 0).id, State.DEAD_LETTER)
    deadletter.discard(job_of(flow, 0), **WHO)
    assert states_of(flow) == ["CANCELLED"] * 4
    flow = fresh(flow)
    assert (flow.status, flow.cancelled, flow.dead, flow.tried) == (Status.CANCELLED, 4, 0, 4)
    assert (
        JobEvent.objects.filter(job_id=job_of(flow, 3).id).latest("id").detail["reason"].startswith("a job")
    )


def test_chain__held_member_is_cancelled__what_is_behind_it_goes_too(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2), mail(3)))
    cancelling.cancel(job_of(flow, 1), **WHO)
    assert states_of(flow) == ["PENDING", "CANCELLED", "CANCELLED"]
    assert end(worker, job_of(flow, 0).id)
    assert (fresh(flow).status, fresh(flow).completed) == (Status.CANCELLED, 1)


# --- batches ----------------------------------------------------------------------------------------------------------
def calls() -> dict[str, Any]:
    return {"on_success": mail(101), "on_complete": mail(102), "on_death": mail(103)}


def test_batch__all_complete__success_and_complete_are_called_and_death_is_dropped(worker: Worker) -> None:
    flow = enqueue_workflow(batch(mail(1), mail(2), **calls()))
    assert (flow.total, states_of(flow)) == (2, ["PENDING"] * 2 + ["held"] * 3)
    assert end(worker, job_of(flow, 0).id, result="a")
    assert end(worker, job_of(flow, 1).id, result="b")
    assert states_of(flow)[2:] == ["PENDING", "PENDING", "CANCELLED"]
    (held,) = claim(worker, job_of(flow, 2).id)
    assert Run(held, worker.id).previous_results() == ["a", "b"]
    assert finish(worker, held)
    assert (fresh(flow).status, fresh(flow).completed, fresh(flow).total) == (Status.COMPLETED, 2, 2)


def test_batch__one_fails_and_dies__complete_once_all_have_run_death_at_the_first(worker: Worker) -> None:
    flow = enqueue_workflow(batch(mail(1), mail(2), **calls()))
    assert end(worker, job_of(flow, 0).id, State.FAILED, delay_s=0.0)
    assert states_of(flow)[2:] == ["held"] * 3
    assert end(worker, job_of(flow, 1).id)
    assert states_of(flow)[2:] == ["held", "PENDING", "held"]  # all have run once
    assert end(worker, job_of(flow, 0).id, State.DEAD_LETTER)
    assert states_of(flow)[2:] == ["held", "PENDING", "PENDING"]
    deadletter.replay(job_of(flow, 0), **WHO)
    assert end(worker, job_of(flow, 0).id)
    assert states_of(flow)[2:] == ["PENDING"] * 3
    assert [releases(job_of(flow, at).id) for at in (2, 3, 4)] == [1, 1, 1]


def test_batch__one_is_cancelled__success_is_never_called(worker: Worker) -> None:
    flow = enqueue_workflow(batch(mail(1), mail(2), **calls()))
    assert end(worker, job_of(flow, 0).id)
    cancelling.cancel(job_of(flow, 1), **WHO)
    assert states_of(flow)[2:] == ["CANCELLED", "PENDING", "CANCELLED"]
    assert fresh(flow).status == Status.CANCELLED


def test_add_to_batch__from_its_own_job__is_part_of_it_until_it_is_over(worker: Worker) -> None:
    flow = enqueue_workflow(batch(mail(1), on_success=mail(9)))
    (held,) = claim(worker, job_of(flow, 0).id)
    run = Run(held, worker.id)
    with running(run.id):
        added = add_to_batch(run.workflow, chain(mail(2), mail(3)), mail(4))
    assert [job.parent for job in added] == [run.id] * 3
    assert finish(worker, held)
    assert states_of(flow) == ["COMPLETED", "held", "PENDING", "held", "PENDING"]
    for job in (added[0], added[2], added[1]):
        assert end(worker, job.id)
    assert states_of(flow)[1] == "PENDING"
    assert (fresh(flow).total, fresh(flow).completed) == (4, 4)
    with pytest.raises(workflows.Finished, match="completed: it takes no more"):
        add_to_batch(flow, mail(5))
    assert Job.objects.count() == 5


def test_add_to_batch__while_its_last_job_ends__is_part_of_it_or_refused(worker: Worker) -> None:
    for _ in range(5):
        flow = enqueue_workflow(batch(mail(1), on_success=mail(9)))
        (held,) = claim(worker, job_of(flow, 0).id)
        refused: list[Exception] = []

        def add(flow: Workflow = flow, refused: list[Exception] = refused) -> None:
            try:
                add_to_batch(flow, mail(2))
            except workflows.Finished as error:
                refused.append(error)

        at_once(lambda: _insisting(add), lambda held=held: _insisting(lambda: finish(worker, held)))
        flow = fresh(flow)
        assert (flow.total, flow.completed, flow.finished_at is not None) == (
            1 if refused else 2, 1, bool(refused),
        )  # fmt: skip
        assert job_of(flow, 1).is_held is not bool(refused)


def test_exchange__many_of_a_group_end_together__few_statements(worker: Worker) -> None:
    flow = enqueue_workflow(group(*[mail(n) for n in range(100)]).then(mail()))
    held = claim(worker, *flow.members.filter(is_held=False).values_list("job", flat=True))
    ends = [End(one.id, one.fence, State.COMPLETED, 1) for one in held]
    with CaptureQueriesContext(connection) as seen:
        ledger.exchange(worker.id, [], ends, members={one.id: flow.id for one in held})
    assert len(seen) < 20
    assert not job_of(flow, 100).is_held


def test_add_to_batch__what_is_none_or_adds_nothing__is_refused() -> None:
    flow = enqueue_workflow(chain(mail(1)))
    with pytest.raises(BadWorkflow, match="only a batch"):
        add_to_batch(flow, mail(2))
    with pytest.raises(BadWorkflow, match="there is no workflow"):
        add_to_batch(uuid4(), mail(2))
    for nonsense in ("a batch", None, 7, [flow]):
        with pytest.raises(BadWorkflow, match="is no workflow, nor the id of one"):
            add_to_batch(nonsense, mail(2))  # type: ignore[arg-type]
    open_ = enqueue_workflow(batch(mail(1)))
    with pytest.raises(BadWorkflow, match="empty"):
        add_to_batch(open_)
    with pytest.raises(ValueError, match="no task or queue"):
        add_to_batch(open_, mail(2), call("nowhere", {}))
    assert Job.objects.count() == 2


# --- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flow", "error"),
    [
        (lambda: chain(), "an empty chain"),
        (lambda: group(mail(), chain()), "an empty chain"),
        (lambda: chain(mail(), call("nowhere", {})), "no task or queue is called"),
        (lambda: chain(mail(), mail(priority=77)), "priority 77"),
        (lambda: chain(mail(), mail(qeue="x")), "did you mean 'queue'"),
        (lambda: chain(mail(), mail(unique="k")), "unique"),
        (lambda: chain(mail(), call("email_queue", [1])), "payload"),
        (lambda: chain(mail(), mail(queue="by_broker")), "broker delivery"),
        (lambda: chain(mail(), mail(delay=-1)), "delay"),
        (lambda: chain(mail(), mail(parent=uuid4())), "no job has the id"),
    ],
)
def test_enqueue_workflow__bad_part__nothing_is_stored(flow: Any, error: str) -> None:
    queues.create_queue("by_broker", **WHO)
    queues.configure("by_broker", delivery="broker", **WHO)
    with pytest.raises(ValueError, match=error):
        enqueue_workflow(flow())
    assert (Job.objects.count(), Member.objects.count(), Workflow.objects.count()) == (0, 0, 0)


def test_enqueue_workflow__cyclic_parents__are_refused() -> None:
    one, two = enqueue("email_queue", {}), enqueue("email_queue", {})
    Job.objects.filter(id=one.id).update(parent=two.id)
    Job.objects.filter(id=two.id).update(parent=one.id)
    with pytest.raises(BadParent, match="cyclic"):
        enqueue_workflow(chain(mail(parent=one)))
    assert Workflow.objects.count() == 0


# --- retention --------------------------------------------------------------------------------------------------------
def test_prune__workflow_is_not_over__its_results_and_dead_letters_stay(worker: Worker) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2)))
    assert end(worker, job_of(flow, 0).id, result=1)
    Job.objects.update(finished_at=timezone.now() - timedelta(days=30))
    assert retention.prune_jobs("email_queue", State.COMPLETED, 60) == 0
    assert end(worker, job_of(flow, 1).id)
    Job.objects.update(finished_at=timezone.now() - timedelta(days=30))
    assert retention.prune_jobs("email_queue", State.COMPLETED, 60) == 2
    assert (Member.objects.count(), retention.prune_workflows(60)) == (0, 0)
    Workflow.objects.update(finished_at=timezone.now() - timedelta(days=30))
    assert retention.prune_workflows(60) == 1


def test_prune__callback_has_not_run_yet__its_results_stay(worker: Worker) -> None:
    flow = enqueue_workflow(batch(mail(1), on_success=mail(9, delay=90 * 86_400)))
    assert end(worker, job_of(flow, 0).id, result="a")
    assert fresh(flow).finished_at is not None

    def pruned(state: State) -> int:
        Job.objects.update(finished_at=timezone.now() - timedelta(days=30))
        return retention.prune_jobs("email_queue", state, 60)

    assert pruned(State.COMPLETED) == 0
    callback = job_of(flow, 1)
    Job.objects.filter(id=callback.id).update(run_after=None)
    assert end(worker, callback.id, State.DEAD_LETTER)
    assert pruned(State.COMPLETED) == 0
    deadletter.replay(job_of(flow, 1), **WHO)
    (held,) = claim(worker, callback.id)
    assert Run(held, worker.id).previous_results() == ["a"]
    assert finish(worker, held, State.DEAD_LETTER)
    assert (pruned(State.DEAD_LETTER), pruned(State.COMPLETED)) == (
        1,
        1,
    )  # nothing holds a dead letter for ever


def test_batch__ended_by_a_process_that_has_not_looked_at_limits__callback_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch, sent: list[UUID]
) -> None:
    flow = enqueue_workflow(batch(mail(1), on_complete=mail(2)))
    queues.configure("email_queue", max_concurrency=1, actor=None, source="system")
    monkeypatch.setattr(policies, "_governed", frozenset())
    cancelling.cancel(job_of(flow, 0), **WHO)  # by a site's process, say
    callback = job_of(flow, 1)
    assert (callback.turn, callback.published_at) == (Turn.WAITS, None)
    assert Job.objects.filter(conditions.is_due(), id=callback.id).exists()
    assert sent[-1] == wakeup.LOOK


def test_chain__on_a_queue_with_limits__what_is_let_go_waits_for_its_turn(
    worker: Worker, sent: list[UUID]
) -> None:
    flow = enqueue_workflow(chain(mail(1), mail(2)))
    first, second = (job_of(flow, at) for at in range(2))
    queues.configure("email_queue", max_concurrency=1, actor=None, source="system")
    policies.by_name(fresh=True)  # as every worker reads it every few seconds
    assert end(worker, first.id)
    second.refresh_from_db()
    assert (second.turn, second.published_at) == (Turn.WAITS, None)
    assert Job.objects.filter(conditions.is_due(), id=second.id).exists()
    assert sent == [first.id, wakeup.LOOK]  # whoever hands turns out is told
    held = enqueue_workflow(chain(mail(3), mail(4)))
    assert [job_of(held, at).turn for at in range(2)] == [Turn.WAITS, Turn.LATER]
    assert sent[-1] == wakeup.LOOK
