from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from django.db import transaction
from django.utils import timezone

from queue_app import Priority, Unique, enqueue, enqueue_many, task
from queue_app.registry import UnknownOption, UnknownTask
from queue_app.testing import (
    all_enqueued,
    assert_enqueued,
    assert_enqueues,
    refute_enqueued,
    refute_enqueues,
)

pytestmark = pytest.mark.django_db


@task(queue="kit_mail", name="kit.mail", secret_fields=["card.pin"])
def mail(payload: dict[str, Any]) -> None: ...


@task(queue="kit_reports", name="kit.report")
def report(payload: dict[str, Any]) -> None: ...


def failure(act: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        act(*args, **kwargs)
    return str(caught.value)


def test_assert_enqueued__fits__the_newest_job_and_with_count_all() -> None:
    first, second, third = enqueue_many(mail, [{"to": "a", "n": n} for n in range(3)], tenant="acme")
    assert assert_enqueued(mail) == third
    assert assert_enqueued("kit_mail", {"to": "a"}, tenant="acme", state="PENDING") == third
    assert assert_enqueued("kit.mail", {"n": lambda n: n < 2}, count=2) == [first, second]
    assert assert_enqueued(mail, count=0, queue="other") == []
    assert all_enqueued(mail, {"n": ANY}) == [first, second, third]
    assert all_enqueued() == all_enqueued(priority=Priority.NORMAL) == [first, second, third]
    refute_enqueued(report)
    refute_enqueued(mail, {"to": "b"})


def test_assert_enqueued__transaction_is_open__sees_its_rows() -> None:
    with transaction.atomic():
        job = enqueue(mail, {"to": "a"})
        assert assert_enqueued(mail) == job


def test_assert_enqueued__options__each_is_compared() -> None:
    at = timezone.now() + timedelta(hours=1)
    parent = enqueue(report, {})
    job = enqueue(
        mail,
        {"to": "a"},
        run_at=at,
        priority=8,
        unique="key-1",
        request_id="r-1",
        parent=parent,
        max_retries=7,
    )
    terms: dict[str, Any] = {"run_at": at, "priority": 8, "unique": "key-1", "request_id": "r-1"}
    terms |= {"parent": parent, "max_retries": 7, "queue": "kit_mail"}
    assert assert_enqueued(mail, **terms) == job
    assert assert_enqueued(mail, delay=3600, tolerance=60) == job
    assert (
        assert_enqueued(mail, unique=Unique(lambda payload: "key-1" if payload["to"] == "a" else "")) == job
    )
    assert assert_enqueued(report, parent=None, unique=False, delay=0, run_at=None) == parent
    wrong = {"run_at": at + timedelta(seconds=9), "priority": 3, "unique": "key-2", "request_id": "r-2"}
    wrong |= {"parent": job, "max_retries": 1, "queue": "kit_reports", "delay": timedelta(minutes=9)}
    wrong |= {"tenant": "acme", "state": ["COMPLETED", "FAILED"]}
    for name, value in wrong.items():
        said = failure(assert_enqueued, mail, **{**terms, name: value})
        assert "\n  " + ("run_at" if name == "delay" else name) in said, said
        refute_enqueued(mail, **{**terms, name: value})


def test_assert_enqueued__none_fits__tells_what_was_there_and_the_nearest() -> None:
    enqueue(mail, {"to": "a", "n": 1, "card": {"pin": 1234}})
    near = enqueue(mail, {"to": "b", "n": 2}, delay=60)
    said = failure(assert_enqueued, mail, {"to": "b", "n": 3})
    assert "no job of kit.mail with payload {'to': 'b', 'n': 3} was enqueued" in said
    assert "enqueued: 2" in said
    assert "priority 3, run_at 2" in said
    assert f"nearest that does not fit: {near.id}\n  payload.n: expected 3, found 2" in said
    assert "1234" not in said


def test_assert_enqueued__secret_differs__neither_side_is_shown() -> None:
    job = enqueue(mail, {"card": {"pin": "1234", "owner": "x"}})
    assert assert_enqueued(mail, {"card": {"pin": "1234"}}) == job
    said = failure(assert_enqueued, mail, {"card": {"pin": lambda pin: pin == "4711"}})
    assert "payload.card.pin: expected not shown" in said
    assert "1234" not in said


def test_assert_enqueued__nothing_of_the_task__tells_of_the_others() -> None:
    assert "nor of any other task" in failure(assert_enqueued, mail)
    enqueue_many(report, [{}, {}])
    said = failure(assert_enqueued, mail)
    assert "of kit.mail nothing was enqueued\nof other tasks: 2 of kit.report" in said


def test_assert_enqueued__wrong_count_and_refuted__tell_how_many() -> None:
    enqueue_many(mail, [{"n": n} for n in range(12)])
    said = failure(assert_enqueued, mail, count=3)
    assert said.startswith("12 jobs of kit.mail were enqueued, 3 expected")
    assert "… 2 before these" in said
    assert failure(refute_enqueued, mail, {"n": 1}).startswith(
        "1 job of kit.mail with payload {'n': 1} was enqueued, none expected"
    )


def test_assert_enqueued__large_payload__is_read_from_its_blob() -> None:
    job = enqueue(mail, {"text": "x" * 70_000, "to": "a"})
    assert assert_enqueued(mail, {"to": "a"}) == job
    said = failure(assert_enqueued, mail, {"to": "b"})
    assert len(said) < 2000


def test_assert_enqueued__typing_error__is_no_assertion() -> None:
    for act in (assert_enqueued, refute_enqueued, all_enqueued):
        with pytest.raises(UnknownTask, match=r"did you mean 'kit.mail'"):
            act("kit.mial")
        with pytest.raises(UnknownOption, match="did you mean 'tenant'"):
            act(mail, tenat="x")
        for terms in ({"priority": 10}, {"state": "DONE"}, {"run_at": timezone.now().replace(tzinfo=None)}):
            with pytest.raises(ValueError):
                act(mail, **terms)


def test_assert_enqueues__block__sees_only_its_own_jobs() -> None:
    enqueue(mail, {"n": 0}, unique="same")
    with assert_enqueues(mail, {"n": int}, count=2) as made:
        jobs = [enqueue(mail, {"n": 1}), enqueue(mail, {"n": 2})]
        enqueue(mail, {"n": 3}, unique="same")  # gives the first one back
        enqueue(report, {})
    assert list(made) == jobs
    assert (made[0], len(made)) == (jobs[0], 2)
    with assert_enqueues() as made:
        job = enqueue(report, {})
    assert list(made) == [job]
    with refute_enqueues(mail):
        enqueue(report, {})


def test_assert_enqueues__not_so__fails_at_the_end_of_the_block() -> None:
    enqueue(mail, {"n": 0})
    with (
        pytest.raises(AssertionError, match=r"no job of kit.mail was enqueued by the block"),
        assert_enqueues(mail),
    ):
        enqueue(report, {})
    with (
        pytest.raises(AssertionError, match=r"1 job of any task was enqueued by the block, 0 expected"),
        refute_enqueues(),
    ):
        enqueue(report, {})
    with pytest.raises(KeyError, match="own"), assert_enqueues(mail):
        raise KeyError("own")
