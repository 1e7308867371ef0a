"""Plain Celery tasks on our Redis transport, from publication to their rows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.db.models import Count

from queue_app import wakeup
from queue_app.broker import recorder, stream
from queue_app.broker.undelivered import Undelivered
from queue_app.models import Job, JobEvent, Worker
from queue_app.transport import parked
from tests import servers
from tests.queue_app.conftest import CELERY, until

from .conftest import WorkerProcess, call, ended, environment, history

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
THREADS = ("-P", "threads", "-c", "2")


@pytest.mark.parametrize("pool", [THREADS, ("-c", "1")], ids=["threads", "prefork"])
def test_worker__each_kind_of_end__is_in_the_row_and_its_history(start: Start, pool: tuple[str, ...]) -> None:
    ids = call(
        "from foundation import request_id\n"
        "with request_id.bound('r-1'):\n"
        "  answer = {'good': tasks.add.delay(1, b=2).id, 'bad': tasks.fail.delay().id,\n"
        "    'again': tasks.retry.delay(2).id, 'never': tasks.retry.delay(9).id, 'early': tasks.early.delay(5).id,\n"
        "    'ignored': tasks.ignore.delay().id, 'rejected': tasks.reject.delay().id,\n"
        "    'late': tasks.add.apply_async((1, 1), expires=0.001).id,\n"
        "    'named': tasks.add.apply_async((1, 1), task_id='not a uuid').id}"
    )
    start(*pool)
    good = ended(ids["good"], "COMPLETED")
    assert (good.name, good.queue, good.delivery, good.priority) == ("plain.add", "default", "broker", 3)
    assert (good.payload, good.result, good.attempt) == ({"args": [1], "kwargs": {"b": 2}}, 3, 1)
    assert (good.request_id, good.owner is not None) == ("r-1", True)
    assert good.created_at <= good.started_at <= good.finished_at
    assert history(ids["good"]) == ["PENDING", "PROCESSING", "COMPLETED"]

    bad = ended(ids["bad"], "DEAD_LETTER")
    assert (bad.last_error["type"], bad.last_error["message"]) == ("ConnectionError", "refused by the test")
    assert "in fail" in bad.last_error["traceback"]
    again = ended(ids["again"], "COMPLETED")
    assert (again.attempt, again.max_attempts, again.result) == (2, 3, 2)
    assert history(ids["again"]) == ["PENDING", "PROCESSING", "FAILED", "PROCESSING", "COMPLETED"]
    assert ended(ids["never"], "DEAD_LETTER").attempt == 3
    assert ended(ids["early"], "COMPLETED").result == 5
    assert ended(ids["ignored"], "COMPLETED").result is None
    assert ended(ids["rejected"], "DEAD_LETTER").last_error["type"] == "Reject"
    assert history(ids["late"])[-1] == "CANCELLED"


@pytest.mark.drilled("kill9-threads-broker")
def test_kill_9__worker_dies_with_tasks_in_hand__another_finishes_all(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    ids = call(f"answer = [tasks.note.delay({str(file)!r}, n, 0.02).id for n in range(200)]")
    first = start(*THREADS, TEST_VISIBILITY_S="3")
    until(lambda: file.exists() and len(file.read_text().split()) > 40, "some have run")
    first.kill()
    start(*THREADS, TEST_VISIBILITY_S="3")
    until(lambda: Job.objects.filter(state="COMPLETED").count() == 200, "every row is there", 120)
    assert set(map(int, file.read_text().split())) == set(range(200))
    assert set(map(str, Job.objects.values_list("id", flat=True))) == set(ids)
    for id in ids:
        assert history(id)[0] == "PENDING"
        assert history(id)[-1] == "COMPLETED"
        assert history(id).count("COMPLETED") == 1


def test_delivery_limit__task_kills_every_worker__is_a_dead_letter_and_the_rest_runs(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "notes"
    ids = call(
        "answer = {'poison': tasks.kill_own_process.delay().id,\n"
        f"  'good': [tasks.note.delay({str(file)!r}, n).id for n in range(3)]}}"
    )
    limits = {"TEST_VISIBILITY_S": "1", "TEST_DELIVERY_LIMIT": "1"}
    for number in range(5):
        log = tmp_path / f"log-{number}"
        worker = WorkerProcess([*CELERY, "-P", "threads", "-c", "1"], log, environment(**limits))
        try:
            until(lambda worker=worker: worker.process.poll() is not None or _is_out(ids), "it dies")
            if _is_out(ids):
                break
        finally:
            worker.kill()
    assert number == 2  # two deaths, and the worker that has lived to tell
    start(*THREADS, **limits)
    for id in ids["good"]:
        ended(id, "COMPLETED")
    poison = ended(ids["poison"], "DEAD_LETTER")
    assert (poison.last_error["type"], poison.name) == ("WorkerLost", "plain.kill_own_process")
    assert history(ids["poison"])[-1] == "DEAD_LETTER"
    with stream.client() as (client, _):
        assert parked.count(client) == {"default": 1}
        (entry,) = parked.newest(client)
    assert ids["poison"].encode() in entry.raw


def test_delivery_limit__task_that_never_ran__is_sent_back_once(start: Start) -> None:
    """It only lay in the window of workers that something else has killed."""
    id = call("answer = tasks.add.delay(1, 2).id")
    undelivered = Undelivered(SimpleNamespace(leads=True))
    with wakeup.connection() as broker, stream.client() as (client, _):
        channel = broker.default_channel
        channel.delivery_limit = 0
        for parked_before in (0, 1):
            assert channel._size("default") == 1
            message = channel.basic_get("default")
            client.zadd("unacked_index", {message.delivery_tag: 1.0})
            channel.qos.restore_visible()
            assert (channel._size("default"), parked.count(client)) == (0, {"default": parked_before + 1})
            undelivered.look()
            assert parked.given_up(client) == []
        assert channel._size("default") == 0
        channel.qos._delivered.clear()
    shown = {sample.name: sample.value for family in recorder.families() for sample in family.samples}
    assert shown["brain_queue_parked_messages_total"] == 2
    start(*THREADS)
    assert ended(id, "DEAD_LETTER").last_error["message"] == "the transport gave it up: delivery_limit"


def _is_out(ids: dict[str, str]) -> bool:
    return Job.objects.filter(id=ids["poison"], state="DEAD_LETTER").exists()


@pytest.mark.drilled("kill9-recorder")
def test_kill_9__recorder_dies_again_and_again__every_event_is_recorded_once(
    start: Start, tmp_path: Path
) -> None:
    """The recorder is in the worker: each kill may hit it anywhere between reading and trimming."""
    ids = call("answer = [tasks.add.delay(n, 1).id for n in range(1500)]")
    for number in range(3):
        worker = start(*THREADS, TEST_VISIBILITY_S="3")
        until(lambda n=number: JobEvent.objects.count() > 400 * (n + 1), "it records")
        worker.kill()
    start(*THREADS, TEST_VISIBILITY_S="3")
    until(lambda: Job.objects.filter(state="COMPLETED").count() == 1500, "every row is there", 90)
    assert set(map(str, Job.objects.values_list("id", flat=True))) == set(ids)
    doubled = JobEvent.objects.values("job_id", "state").annotate(n=Count("id")).filter(n__gt=1)
    assert not doubled.exclude(state="PROCESSING").exists()  # a run that died is followed by another
    until(lambda: recorder.standing().lag_s == 0, "nothing is left")


def test_visibility__task_and_countdown_longer_than_it__are_run_once(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    ids = call(
        f"answer = [tasks.note.apply_async(({str(file)!r}, n), countdown=6).id for n in range(5)]\n"
        f"answer += [tasks.note.delay({str(file)!r}, 9, 6).id]\n"
        "answer += [tasks.retry.delay(2).id]"
    )
    for _ in range(2):
        start(*THREADS, TEST_VISIBILITY_S="4")
    for id in ids:
        ended(id, "COMPLETED")
    time.sleep(2)  # a second delivery would have come by now
    assert sorted(file.read_text().split()) == ["0", "1", "2", "3", "4", "9"]
    assert all(job.crash_count == 0 for job in Job.objects.all())


def test_prefork__task_kills_its_child__is_retried_and_then_dead(start: Start) -> None:
    id = call("answer = tasks.kill_own_process.delay().id")
    start("-c", "1")
    job = ended(id, "DEAD_LETTER")
    assert (job.attempt, job.last_error["type"]) == (2, "WorkerLostError")
    assert history(id) == ["PENDING", "PROCESSING", "FAILED", "PROCESSING", "DEAD_LETTER"]


def test_long_task__while_it_runs__its_row_says_so(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start(*THREADS)
    id = call(f"answer = tasks.wait_for.delay({str(gate)!r}, {str(tmp_path / 'notes')!r}, 1).id")
    running = ended(id, "PROCESSING")
    assert running.owner == Worker.objects.get().id
    gate.touch()
    ended(id, "COMPLETED")


def test_revoke_and_arguments_that_are_not_plain_json__are_in_the_rows(start: Start, tmp_path: Path) -> None:
    ids = call(
        "import datetime, uuid\n"
        f"answer = {{'waits': tasks.note.apply_async(({str(tmp_path / 'n')!r}, 1), countdown=30).id,\n"
        f"  'typed': tasks.note.delay({str(tmp_path / 'n')!r}, datetime.date(2026, 1, 2)).id,\n"
        f"  'large': tasks.note.delay({str(tmp_path / 'n')!r}, 'x' * 100_000).id,\n"
        f"  'nul': tasks.note.delay({str(tmp_path / 'n')!r}, chr(0)).id}}"
    )
    start(*THREADS)
    typed = ended(ids["typed"], "COMPLETED")
    assert typed.payload["args"][1] == {"__type__": "date", "__value__": "2026-01-02"}
    large = ended(ids["large"], "COMPLETED")
    assert "at most " in large.payload["not_kept"]
    assert len(large.payload["shown"]) <= 1000
    assert large.result is not None
    assert "NUL" in ended(ids["nul"], "COMPLETED").payload["not_kept"]
    call(f"from brain_project.celery import app; app.control.revoke({ids['waits']!r})")
    assert call(
        "from brain_project.celery import app\n"
        "answer = [sorted(app.control.inspect(timeout=30, limit=1).ping().values(), key=str)]"
    ) == [[{"ok": "pong"}]]
    call(f"tasks.note.apply_async(({str(tmp_path / 'n')!r}, 1), task_id={ids['waits']!r})")
    assert ended(ids["waits"], "CANCELLED").finished_at is not None


def test_chord__on_our_task_class__ends(start: Start, valkey: str) -> None:
    backend = {
        "TEST_RESULT_BACKEND": valkey.replace("unix://", "redis+socket://").replace(
            "?db=0", "?virtual_host=5"
        )
    }
    start(*THREADS, **backend)
    code = "answer = chord([tasks.kept_add.si(1, 1) for n in range(3)])(tasks.total.s()).get(timeout=30)"
    assert call(code, **backend) == 6


def test_stock_transport__same_tasks__are_recorded_too(start: Start, valkey: str, tmp_path: Path) -> None:
    with servers.valkey(port=servers.free_port()) as url:
        ids = call("answer = [tasks.add.delay(1, 2).id, tasks.fail.delay().id]", BROKER_URL=f"stock-{url}")
        start(*THREADS, BROKER_URL=f"stock-{url}")
        good = ended(ids[0], "COMPLETED")
        assert (good.name, good.result) == ("plain.add", 3)
        ended(ids[1], "DEAD_LETTER")


def test_foreign_client__message_without_our_header__row_is_made_from_the_message(
    start: Start, valkey: str
) -> None:
    url = valkey.replace("unix://", "redis+socket://").replace("?db=0", "?virtual_host=0")
    code = f"from celery import Celery; print(Celery(broker={url!r}).send_task('plain.add', (1, 2)).id)"
    command = [sys.executable, "-c", code]
    script = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert script.returncode == 0, script.stderr
    start(*THREADS, "-Q", "celery,default")
    job = ended(script.stdout.strip(), "COMPLETED")
    assert (job.name, job.queue, job.payload) == ("plain.add", "celery", {"args": [1, 2], "kwargs": {}})
