"""What is told of errors and results that are odd: on every database as it was raised, and readable at every door."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from queue_app import Discard, task
from queue_app.models import Job, JobEvent
from queue_app.runs import Run
from queue_app.testing import no_broker, perform

pytestmark = pytest.mark.usefixtures("every_database")

ODD = "no file caf\udce9\x00.txt"  # as Python names a file whose name is not UTF-8
RAISES: list[BaseException] = []


@pytest.fixture(autouse=True)
def _no_broker() -> Any:
    with no_broker():
        yield


class Mute(Exception):
    """Its __str__ is somebody's code, too."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@task(queue="odd_queue", max_retries=0)
def raise_it(payload: dict[str, Any], job: Run) -> None:
    raise RAISES[-1]


@task(queue="odd_queue", max_retries=0)
def answer(payload: dict[str, Any], job: Run) -> Any:
    if payload.get("atomic"):
        with job.atomic(result="x" * payload["length"]):
            pass
    return "x" * payload["length"]


@task(queue="odd_queue", max_retries=0)
def report(payload: dict[str, Any], job: Run) -> None:
    job.progress(0.5, ODD)


def after(error: BaseException) -> Job:
    RAISES.append(error)
    return perform(raise_it, {})


def last_step(job: Job) -> JobEvent:
    return JobEvent.objects.filter(job_id=job.id).order_by("id").last()  # type: ignore[return-value]


def test_perform__error_with_half_a_surrogate_pair_and_nul__is_told_and_can_be_written_as_utf8() -> None:
    job = after(FileNotFoundError(ODD))
    assert job.state == "DEAD_LETTER"
    assert job.last_error["type"] == "FileNotFoundError"
    assert job.last_error["message"] == "no file caf?\ufffd.txt"
    assert "raise RAISES[-1]" in job.last_error["traceback"]
    assert last_step(job).detail["message"].encode() == b"no file caf?\xef\xbf\xbd.txt"
    assert all(value.encode() for value in job.last_error.values())


def test_perform__error_that_cannot_be_made_a_text__is_a_failure_and_no_crash() -> None:
    job = after(Mute())
    assert (job.state, job.crash_count) == ("DEAD_LETTER", 0)
    assert (job.last_error["type"], job.last_error["message"]) == ("Mute", "")


def test_perform__discarded_with_an_odd_and_long_reason__cancelled_with_its_beginning() -> None:
    job = after(Discard(ODD + "x" * 100_000))
    assert job.state == "CANCELLED"
    reason = last_step(job).detail["reason"]
    assert reason.startswith("no file caf?")
    assert len(reason) == 500


def test_perform__result_that_is_not_kept__history_says_why() -> None:
    for atomic in (False, True):
        job = perform(answer, {"length": 100_000, "atomic": atomic})
        assert (job.state, job.result) == ("COMPLETED", None)
        assert last_step(job).detail == {
            "reason": "result not kept: 100,002 bytes of JSON, at most 65,536 are allowed"
        }
    assert last_step(perform(answer, {"length": 1})).detail == {}


def test_progress__note_with_half_a_surrogate_pair_and_nul__is_kept_readable() -> None:
    job = perform(report, {})
    assert (job.state, job.progress_note) == ("COMPLETED", "no file caf?\ufffd.txt")


def test_api__dead_letter_with_an_odd_error__list_and_job_are_answered(admin_client: Client) -> None:
    job = after(FileNotFoundError(ODD))
    for path in ("dead-letters", f"jobs/{job.id}", "jobs?state=DEAD_LETTER"):
        assert admin_client.get(f"/api/v1/queue/{path}").status_code == 200
