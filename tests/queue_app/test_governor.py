"""The governor with real engines on real databases: limits under many workers, shares, and what is never read."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from queue_app import (
    clock,
    conditions,
    enqueue,
    enqueue_many,
    governor,
    interventions,
    ledger,
    limits_told,
    policies,
    publication,
    queues,
    recovery,
    tenants,
    turns,
    wakeup,
    workers,
)
from queue_app.duty import Duty
from queue_app.governor import Governor, hand_out
from queue_app.models import Job, Queue, Tenant
from queue_app.publication import Wakeup
from queue_app.runs import Run
from queue_app.statements import End
from queue_app.states import State, Turn
from queue_app.worker.engine import Engine, Message

from .conftest import until

pytestmark = pytest.mark.usefixtures("every_database")
NAME = "email_queue"


class Slots:
    """Runs jobs on threads for `took_s`, and notes what runs beside what."""

    def __init__(self, engine: Engine, site: Site, slots: int) -> None:
        self._engine, self._site = engine, site
        self._threads = ThreadPoolExecutor(slots)

    @property
    def moved_at(self) -> float:
        return time.monotonic()  # runs are short

    def submit(self, run: Run) -> None:
        self._threads.submit(self._run, run)

    def _run(self, run: Run) -> None:
        if not self._engine.may_start(run):
            return
        self._site.began(run)
        time.sleep(self._site.took_s)
        self._site.ended(run)
        self._engine.finished(run, End(run.id, run.fence, State.COMPLETED, 1), self._site.took_s)

    def running(self) -> list[UUID]:
        return []


class Site:
    """Several workers of one queue, and a broker that brings each message to one of them."""

    def __init__(self) -> None:
        self.took_s = 0.01
        self.starts: list[tuple[float, str, UUID]] = []  # when, of which tenant
        self.most: Counter[str] = Counter()  # at once: of each tenant, and of all as "*"
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._engines: list[Engine] = []
        self._duties: list[Duty] = []
        self._turn = itertools.count()

    def add(self, slots: int) -> None:
        worker = workers.register(pool="threads", concurrency=slots, queues=[NAME])
        engine = Engine(worker.id, slots=slots, lease_s=60, call_soon=lambda act, *given: act(*given))
        engine.runner = Slots(engine, self, slots)
        handing_out = Governor(lambda: duty.hurry())
        duty = Duty("governor", handing_out.look, 1.0)
        engine.on_turns = handing_out.ask
        engine.start()
        duty.start()
        self._engines.append(engine)
        self._duties.append(duty)

    def deliver(self, wakeups: Sequence[Wakeup]) -> bool:
        for found in wakeups:
            if not self._engines:
                continue
            engine = self._engines[next(self._turn) % len(self._engines)]
            if found.id == wakeup.LOOK:
                engine.asked(found.queue)
            else:
                engine.receive([Message(found.id, lambda: None)])
        return True

    def began(self, run: Run) -> None:
        with self._lock:
            self.starts.append((time.monotonic(), run.tenant, run.id))
            for key in (run.tenant, "*"):
                self._now[key] += 1
                self.most[key] = max(self.most[key], self._now[key])

    def ended(self, run: Run) -> None:
        with self._lock:
            self._now.subtract((run.tenant, "*"))

    def stop(self) -> None:
        for duty in self._duties:
            duty.stop()
            duty.join(60)  # it asks the database
        for engine in self._engines:
            assert engine.stop(timeout_s=60)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that always takes what it is told: a turn whose message cannot be sent comes back."""
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: True)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, told: None) -> Iterator[Site]:
    found = Site()
    monkeypatch.setattr(wakeup, "publish", found.deliver)
    yield found
    found.stop()


def limit(**limits: Any) -> Queue:
    queues.find(NAME)
    queue = queues.configure(NAME, actor=None, source="system", **limits)
    policies.by_name(fresh=True)
    return queue


def store(count: int, tenant: str = "", **options: Any) -> list[Job]:
    return enqueue_many(NAME, [{"n": n} for n in range(count)], tenant=tenant, **options)


def all_done(count: int) -> Callable[[], bool]:
    return lambda: Job.objects.filter(state=State.COMPLETED).count() == count


def given(queue: Queue, slots: int = 100) -> Counter[str]:
    """By tenant, of one look."""
    before = set(Job.objects.filter(turn=Turn.HAS).values_list("id", flat=True))
    hand_out(queue, slots=slots)
    now = Job.objects.filter(turn=Turn.HAS).exclude(id__in=before)
    return Counter(now.values_list("tenant", flat=True))


def test_concurrency__several_workers__is_never_exceeded_and_all_jobs_run(site: Site) -> None:
    limit(max_concurrency=3, tenant_concurrency=2)
    site.took_s = 0.03
    for _ in range(3):
        site.add(slots=4)
    store(30, "a")
    store(30, "b")
    until(all_done(60), "all have run")
    assert 2 <= site.most["*"] <= 3
    assert max(site.most["a"], site.most["b"]) <= 2
    assert len({id for _, _, id in site.starts}) == 60


def test_concurrency__a_claim_without_a_turn__is_refused_whatever_the_message_says() -> None:
    worker = workers.register(pool="threads", concurrency=4, queues=[])
    old = store(2)  # before there was a limit
    queue = limit(max_concurrency=1)
    new = store(3)
    ids = [job.id for job in old + new]
    assert ledger.exchange(worker.id, ids, [], governed=policies.governed()) == ([], set())
    assert hand_out(queue, slots=4).granted == 1
    assert hand_out(queue, slots=4).granted == 0
    (claimed,), _ = ledger.exchange(worker.id, ids, [], governed=policies.governed())
    assert hand_out(queue, slots=4).granted == 0
    ledger.exchange(
        worker.id, [], [End(claimed.id, claimed.fence, State.COMPLETED, 1)], governed=policies.governed()
    )
    assert hand_out(queue, slots=4).granted == 1


def test_concurrency__workers_die_with_turns__the_turns_come_back() -> None:
    worker = workers.register(pool="threads", concurrency=4, queues=[])
    queue = limit(max_concurrency=2)
    jobs = store(4)
    assert hand_out(queue, slots=4).granted == 2
    claimed, _ = ledger.exchange(worker.id, [job.id for job in jobs], [], governed=policies.governed())
    assert len(claimed) == 2
    workers.leave(worker.id)
    recovery.release(worker.id, (), max_crashes=3, reason="worker lost")
    assert publication.due(policies.governed()) == []  # they wait for turns again
    assert not Job.objects.filter(turn=Turn.HAS).exists()
    assert hand_out(queue, slots=4).granted == 2
    publication.unpublish([job.id for job in jobs])  # the broker was down
    assert not Job.objects.filter(turn=Turn.HAS).exists()


def test_rate__several_workers__no_window_has_more_starts_than_it_may(site: Site) -> None:
    limit(rate_count=20, rate_period_s=1.0, rate_burst=3)
    site.took_s = 0.001
    for _ in range(2):
        site.add(slots=2)
    store(25)
    until(all_done(25), "all have run")
    # By the rows: a thread that the machine lets wait starts its run later.
    starts = sorted(at.timestamp() for at in Job.objects.values_list("started_at", flat=True))
    for first, last in itertools.combinations(range(25), 2):
        assert last - first + 1 <= 3 + (starts[last] - starts[first] + 0.1) * 20
    assert 1.0 <= starts[-1] - starts[0] <= 15.0  # a job a second would be 22


def test_rate__a_job_long_after_the_last_one__starts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing waited when the last one started, so that nobody had a reason to look."""
    worker = workers.register(pool="threads", concurrency=4, queues=[])
    queue = limit(rate_count=1, rate_period_s=600.0, tenant_rate_count=1, tenant_rate_period_s=600.0)
    (first,) = store(1, "a")
    assert hand_out(queue, slots=4).granted == 1
    ((claimed,), _) = ledger.exchange(worker.id, [first.id], [], governed=policies.governed())
    assert hand_out(queue, slots=4) == (0, None)  # it has started; nothing waits
    ledger.exchange(worker.id, [], [End(first.id, claimed.fence, State.COMPLETED, 1)])
    store(2, "a")
    found = hand_out(queue, slots=4)
    assert found.granted == 0
    assert found.wait_s is not None
    assert 500 < found.wait_s <= 601
    later = clock.now() + timedelta(seconds=601)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert hand_out(queue, slots=4).granted == 1


@pytest.mark.parametrize("whose", ["", "tenant_"])
def test_rate__is_raised_when_it_is_used_up__the_new_one_holds_at_once(
    whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    rate = {f"{whose}rate_count": 10, f"{whose}rate_period_s": 36_000.0, f"{whose}rate_burst": 10}
    queue = limit(**rate)
    store(50)
    assert hand_out(queue, slots=100).granted == 10  # used up for ten hours
    Job.objects.filter(turn=Turn.HAS).update(state=State.COMPLETED, turn=0)
    hand_out(queue, slots=100)  # they have started
    queue = limit(**(rate | {f"{whose}rate_count": 10, f"{whose}rate_period_s": 1.0}))
    assert hand_out(queue, slots=100) == (0, pytest.approx(0.1))
    now += timedelta(seconds=0.55)
    assert hand_out(queue, slots=100).granted == 5


def test_rate__no_worker_starts_what_was_let_go__no_second_burst_is_saved_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = limit(rate_count=10, rate_period_s=10.0, rate_burst=5)
    store(20)
    assert hand_out(queue, slots=100).granted == 5
    later = clock.now() + timedelta(seconds=60)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert hand_out(queue, slots=100).granted == 0


def test_shares__equal_and_weighted__hold_in_every_look() -> None:
    queue = limit(is_fair=True)
    for tenant in ("a", "b"):
        store(300, tenant)
    assert given(queue, slots=39) == {"a": 20, "b": 20}
    Tenant.objects.filter(name="b").update(weight=3)
    Job.objects.filter(turn=Turn.HAS).update(state=State.COMPLETED, turn=0)
    shares = given(queue, slots=39)
    assert abs(shares["b"] - 3 * shares["a"]) <= 3


def test_shares__tenant_is_paused__gets_none_until_it_is_resumed() -> None:
    queue = limit(is_fair=True)
    store(10, "a")
    store(10, "b")
    who = {"actor": "ada", "source": "cli"}
    tenants.configure(queue.name, "b", paused=True, **who)
    assert given(queue, slots=39) == {"a": 10}
    assert limits_told.of_tenant(Tenant.objects.get(name="b")) == "paused"
    tenants.configure(queue.name, "b", paused=False, **who)
    assert not tenants.is_limited(Tenant.objects.get(name="b"))
    assert given(queue, slots=39) == {"b": 10}


def test_shares__less_waits_than_its_share__the_others_get_the_rest() -> None:
    queue = limit(is_fair=True)
    store(3, "few")
    store(50, "many")
    store(2)
    assert given(queue, slots=29) == {"few": 3, "many": 25, "": 2}


def test_shares__one_tenant__the_urgent_come_first() -> None:
    queue = limit(is_fair=True)
    low, high = store(2, priority=1), store(2, priority=8)
    assert hand_out(queue, slots=1).granted == 2
    assert set(Job.objects.filter(turn=Turn.HAS).values_list("id", flat=True)) == {job.id for job in high}
    assert {job.turn for job in Job.objects.filter(id__in=[job.id for job in low])} == {Turn.WAITS}


def test_tenant__own_limits__win_over_the_queues() -> None:
    queue = limit(tenant_concurrency=2, tenant_rate_count=5, tenant_rate_period_s=1.0, tenant_rate_burst=5)
    Tenant.objects.create(
        queue=queue, name="vip", max_concurrency=7, rate_count=7, rate_period_s=60, rate_burst=7
    )
    Tenant.objects.create(queue=queue, name="slow", max_concurrency=9, rate_count=1, rate_period_s=60)
    for tenant in ("vip", "slow", "other"):
        store(20, tenant)
    assert given(queue) == {"vip": 7, "slow": 1, "other": 2}
    assert given(queue) == {}


def test_retry__of_a_queue_with_limits__waits_for_its_turn_again() -> None:
    worker = workers.register(pool="threads", concurrency=4, queues=[])
    queue = limit(max_concurrency=1)
    (job,) = store(1)
    hand_out(queue, slots=4)
    ((claimed,), _) = ledger.exchange(worker.id, [job.id], [], governed=policies.governed())
    ledger.exchange(worker.id, [], [End(job.id, claimed.fence, State.FAILED, 1, delay_s=0.0)])
    job.refresh_from_db()
    assert (job.turn, job.published_at) == (Turn.LATER, None)
    assert hand_out(queue, slots=4).granted == 0
    assert publication.due(policies.governed()) == []
    assert hand_out(queue, slots=4).granted == 1


def test_delayed_job__of_a_queue_with_limits__gets_no_turn_before_its_time() -> None:
    queue = limit(is_fair=True)
    job = enqueue(NAME, {}, delay=60)
    assert publication.due(policies.governed()) == []
    assert hand_out(queue, slots=4).granted == 0
    job.refresh_from_db()
    assert job.turn == Turn.LATER


def test_limits__come_and_go_with_a_backlog__nothing_is_lost() -> None:
    jobs = store(5)
    queue = limit(max_concurrency=1)
    governor.adopt(NAME)
    assert Job.objects.filter(turn=Turn.WAITS, published_at=None).count() == 5
    assert hand_out(queue, slots=4).granted == 1
    limit(max_concurrency=None)
    governor.let_go_of_unlimited()
    assert len(publication.due(policies.governed())) == 4
    worker = workers.register(pool="threads", concurrency=4, queues=[])
    claimed, _ = ledger.exchange(worker.id, [job.id for job in jobs], [])
    ends = [End(job.id, job.fence, State.COMPLETED, 1) for job in claimed]
    assert len(ledger.exchange(worker.id, [], ends)[1]) == 5
    assert set(Job.objects.values_list("turn", flat=True)) == {Turn.NONE}


def test_paused__queue_with_limits__gets_no_turns() -> None:
    queue = limit(is_fair=True, paused=True)
    store(2)
    assert hand_out(queue, slots=4).granted == 0


def test_cancelled__while_it_waits__gets_no_turn_and_leaves_no_trace() -> None:
    queue = limit(is_fair=True)
    first, second = store(2)
    assert interventions.cancel(first, actor="ada")
    assert hand_out(queue, slots=4).granted == 1
    assert set(Job.objects.filter(id=first.id).values_list("state", "turn")) == {("CANCELLED", 0)}
    assert second.id


def test_hand_out__another_worker_is_at_it__comes_back_soon() -> None:
    queue = limit(is_fair=True)
    store(1)
    hand_out(queue, slots=1)
    store(1)
    if connection.vendor == "sqlite":
        pytest.skip("one writer at a time waits in the database")
    with governor.transaction.atomic():
        assert governor._unheld(NAME)
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(elsewhere, lambda: hand_out(queue, slots=4)).result()
    assert found.granted == 0
    assert found.wait_s is not None


def test_hand_out__a_long_backlog__reads_a_few_rows_of_it() -> None:
    queue = limit(is_fair=True)
    store(3000, "many")
    store(10, "few")
    store(2000, "more")
    analyze()
    with CaptureQueriesContext(
        connection,
    ) as seen:
        assert given(queue, slots=29) == {"few": 10, "many": 10, "more": 10}
    assert len(seen) < 25
    for text in (
        "SELECT id, priority FROM queue_app_job WHERE NOT (turn = 0) AND turn = 2 AND queue = 'email_queue' "
        "AND tenant = 'many' ORDER BY priority DESC, id LIMIT 10",
        "SELECT tenant FROM queue_app_job WHERE NOT (turn = 0) AND turn = 2 AND queue = 'email_queue' "
        "AND tenant > 'few' ORDER BY tenant LIMIT 1",
    ):
        assert is_by_index(text), text


def test_condition__on_every_database__is_a_text_that_stands_alone() -> None:
    """MySQL uses no index for `(text) = 1`, as Django writes a RawSQL."""
    with CaptureQueriesContext(connection) as seen:
        list(conditions.waiting())
        turns.held(NAME)
    assert "turn IN (0, 1, 3))" in seen[0]["sql"]
    assert "turn IN (0, 1, 3)) = " not in seen[0]["sql"]
    assert "turn = 3) = " not in seen[1]["sql"]


def test_tenants__many__are_all_found() -> None:
    limit(is_fair=True)
    (none,) = store(1)
    jobs = store(1200)
    for number, job in enumerate(jobs):
        job.tenant = f"t{number:05}"
    Job.objects.bulk_update(jobs, ["tenant"], batch_size=300)
    assert none.tenant == ""
    assert turns.tenants(NAME) == ["", *(job.tenant for job in jobs)]


def test_hot_path__queue_without_limits__has_the_same_statements() -> None:
    worker = workers.register(pool="threads", concurrency=4, queues=[])
    policies.by_name(fresh=True)
    with CaptureQueriesContext(connection) as seen:
        job = enqueue(NAME, {})
        ((claimed,), _) = ledger.exchange(worker.id, [job.id], [], governed=policies.governed())
        ledger.exchange(
            worker.id, [], [End(job.id, claimed.fence, State.COMPLETED, 1)], governed=policies.governed()
        )
    texts = " ".join(query["sql"] for query in seen)
    assert "queue_app_turns" not in texts
    assert "queue_app_tenant" not in texts
    assert policies.governed() == frozenset()


def elsewhere(act: Callable[[], Any]) -> Any:
    try:
        return act()
    finally:
        connections.close_all()


def analyze() -> None:
    text = "ANALYZE TABLE queue_app_job" if connection.vendor == "mysql" else "ANALYZE queue_app_job"
    with connection.cursor() as cursor:
        cursor.execute(text)


def is_by_index(text: str) -> bool:
    """Whether it reads the rows that it needs and no others, as the database says."""
    explain = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN ", "mysql": "EXPLAIN FORMAT=JSON "}
    with connection.cursor() as cursor:
        cursor.execute(explain[connection.vendor] + text)
        plan = " ".join(str(row) for row in cursor.fetchall())
    by_index = "job_turn" in plan or "optimized away" in plan  # MySQL asks the index while it plans
    sorts = any(word in plan for word in ("TEMP B-TREE", "Sort", "filesort"))
    return by_index and not sorts
