"""The recorder on every database: what it writes, and what a crash at any point leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from queue_app.broker import events, recorder, stream
from queue_app.broker.events import About, Event
from queue_app.broker.recorder import Recorder
from queue_app.fingerprints import fingerprint
from queue_app.models import Job, JobEvent, Lease

pytestmark = pytest.mark.usefixtures("every_database")

WORKER = uuid4()
ERROR = {"type": "OSError", "message": "ü'\"\\ no", "traceback": "line\nline"}


@pytest.fixture(autouse=True)
def _own_stream(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stream, "KEY", f"{prefix}events")
    yield
    with stream.client() as (client, key):
        client.delete(key)
    Lease.objects.all().delete()


def about(**changes: Any) -> list[Any]:
    payload = json.dumps({"args": ["ü'\"\\{},"], "kwargs": {}})
    return list(
        About("t.name", "default", "acme", 6, payload, "r-1", 4, None, None, None)._replace(**changes)
    )


def pending(id: str, at: float = 1000.25, **changes: Any) -> Event:
    return [events.PENDING, id, 1, at, about(**changes)]


def end(id: str, kind: int = events.COMPLETED, told: Any = "{'n': 1}", attempt: int = 1) -> Event:
    return [kind, id, attempt, 1002.75, None, False, 1001.5, told]


def tell(*told: Event) -> None:
    assert stream.tell(list(told), worker=str(WORKER))


def leading() -> Recorder:
    id = uuid4()
    found = Recorder(lambda: id)
    assert found._leads()
    return found


def record(recorder: Recorder) -> None:
    while recorder._record_next(wait_s=0):
        pass


def history(id: str) -> list[str]:
    return list(JobEvent.objects.filter(job_id=id).order_by("id").values_list("state", flat=True))


def test_record__whole_life_at_once__row_and_history() -> None:
    id = str(uuid4())
    tell(pending(id, run_after=1001.0, expires_at=5000.0, parent=str(WORKER)), end(id))
    record(leading())
    job = Job.objects.get(id=id)
    assert (job.name, job.queue, job.priority, job.request_id) == ("t.name", "default", 6, "r-1")
    assert job.tenant == "acme"
    assert (job.state, job.attempt, job.max_attempts, job.delivery) == ("COMPLETED", 1, 4, "broker")
    assert (job.payload, job.result) == ({"args": ["ü'\"\\{},"], "kwargs": {}}, {"n": 1})
    assert (job.owner, job.parent, job.run_after) == (WORKER, WORKER, None)
    times = (job.created_at, job.started_at, job.finished_at, job.expires_at)
    assert [moment.timestamp() for moment in times if moment] == pytest.approx(
        [1000.25, 1001.5, 1002.75, 5000]
    )
    steps = JobEvent.objects.filter(job_id=id).order_by("id")
    assert [step.state for step in steps] == ["PENDING", "PROCESSING", "COMPLETED"]
    assert [step.worker for step in steps] == [None, WORKER, WORKER]
    assert [step.at.timestamp() for step in steps] == pytest.approx([1000.25, 1001.5, 1002.75])


def test_record__step_by_step__rows_change_and_are_named_late() -> None:
    id = str(uuid4())
    leader = leading()
    tell([events.STARTED, id, 1, 1001.5, None, False])
    record(leader)
    job = Job.objects.get(id=id)
    assert (job.state, job.name, job.owner) == ("PROCESSING", "(not recorded)", WORKER)
    tell(end(id, events.FAILED, {"error": ERROR, "run_after": 1010.0}))
    record(leader)
    job.refresh_from_db()
    assert job.crash_count == 0  # its end tells the start again
    assert (job.state, job.attempt, job.last_error, job.finished_at) == ("FAILED", 1, ERROR, None)
    assert job.run_after is not None
    assert job.run_after.timestamp() == 1010
    tell(pending(id))
    tell(end(id, told="None", attempt=2))
    record(leader)
    job.refresh_from_db()
    assert (job.name, job.state, job.attempt, job.result, job.run_after) == (
        "t.name",
        "COMPLETED",
        2,
        None,
        None,
    )
    assert job.last_error == ERROR  # the error of the run before stays to be read
    assert job.created_at.timestamp() == 1000.25
    assert history(id) == ["PROCESSING", "FAILED", "PENDING", "PROCESSING", "COMPLETED"]


def test_record__dead_letter__row_has_the_fingerprint_of_its_error() -> None:
    id = str(uuid4())
    tell(pending(id), end(id, events.DEAD_LETTER, {"error": ERROR}))
    record(leading())
    row = Job.objects.get(id=id)
    assert (row.state, row.fingerprint) == ("DEAD_LETTER", fingerprint(row.last_error))


def test_record__repeated_and_late_events__write_nothing_new() -> None:
    id = str(uuid4())
    leader = leading()
    tell(pending(id), end(id))
    record(leader)
    tell(
        pending(id),
        [events.STARTED, id, 1, 1001.5, None, False],
        end(id),
        end(id, events.DEAD_LETTER, {"error": ERROR}),
    )
    record(leader)
    assert Job.objects.get(id=id).state == "COMPLETED"
    assert history(id) == ["PENDING", "PROCESSING", "COMPLETED"]


def test_record__died_before_its_commit__next_one_writes_all_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [str(uuid4()) for _ in range(50)]
    tell(*(pending(id) for id in ids))
    tell(*(end(id) for id in ids))
    first = leading()

    def die(*args: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(recorder.recording, "write", die)
        with pytest.raises(SystemExit):
            first._record_next(wait_s=0)
    assert Job.objects.count() == 0
    first._leadership.give_up()
    record(leading())
    assert Job.objects.filter(state="COMPLETED").count() == 50
    assert JobEvent.objects.count() == 150


def test_record__two_leaders__the_second_one_of_a_position_writes_nothing() -> None:
    id = str(uuid4())
    tell(pending(id))
    slow = leading()
    Lease.objects.update(until="2000-01-01T00:00:00Z")
    new = leading()
    record(new)
    with pytest.raises(recorder.Deposed):
        slow._write([("", pending(str(uuid4())))], slow._leadership.position or "", "9-9")
    assert [str(job.id) for job in Job.objects.all()] == [id]
    assert not slow.__class__(lambda: uuid4())._leads()


def test_record__event_that_no_column_takes__holds_up_no_other() -> None:
    good, bad = str(uuid4()), str(uuid4())
    tell(pending(bad, payload="{not json"), pending(good))
    record(leading())
    assert [str(job.id) for job in Job.objects.all()] == [good]


def test_record__junk_in_the_stream__is_stepped_over() -> None:
    id = str(uuid4())
    with stream.client() as (client, key):
        client.xadd(key, {"x": "y"})
    tell(pending(id))
    record(leading())
    assert Job.objects.get(id=id).state == "PENDING"


def test_record__server_lost_its_stream_and_counts_anew__reads_on() -> None:
    leader = leading()
    tell(pending(str(uuid4())))
    record(leader)
    Lease.objects.update(position="99999999999999-0")
    leader._leadership.position = "99999999999999-0"
    tell(pending(str(uuid4())))
    record(leader)  # finds nothing new, and that the stream is behind its position
    record(leader)
    assert Job.objects.count() == 2


def test_trim__recorded_entries__are_gone_and_the_others_stay() -> None:
    leader = leading()
    tell(pending(str(uuid4())))
    assert recorder.standing().entries == 1
    assert 0 <= recorder.standing().lag_s < 60
    record(leader)
    assert recorder.standing().lag_s == 0
    tell(pending(str(uuid4())))
    leader._trim()
    assert recorder.standing().entries == 1
    record(leader)
    assert Job.objects.count() == 2


def test_stop__events_left__records_them_and_lets_another_lead() -> None:
    first = leading()
    tell(pending(str(uuid4())))
    first.stop()
    assert Job.objects.count() == 1
    assert recorder.standing().entries == 0
    assert leading()._leadership.position


def test_record__id_is_not_a_uuid__has_the_same_row_always() -> None:
    leader = leading()
    tell(pending("nightly"))
    tell(end("nightly"))
    record(leader)
    job = Job.objects.get()
    assert job.id == UUID(events.job_id("nightly"))
    assert job.state == "COMPLETED"
    assert JobEvent.objects.order_by("id")[0].detail == {"task_id": "nightly"}
