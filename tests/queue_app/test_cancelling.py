"""Cancel by function, API and command: what each state allows, who may, and what the audit keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command

from foundation import roles
from foundation.models import AuditEntry
from queue_app import cancelling, interventions, workers
from queue_app.models import Delivery, Job
from queue_app.states import State
from tests.foundation.people import client_of

from .dead_letters import job

pytestmark = pytest.mark.django_db

WAITING = {"state": State.PENDING, "finished_at": None, "last_error": None}


def running(**fields: Any) -> Job:
    worker = workers.register(pool="threads", concurrency=1, queues=[])
    return job(**WAITING | {"state": State.PROCESSING, "owner": worker.id, "fence": 1} | fields)


def test_cancel__waiting_job__is_over_and_audited() -> None:
    waits = job(**WAITING, unique_key="k")
    cancelling.cancel(waits, actor="ada", source="cli", request_id="r-1")
    waits.refresh_from_db()
    assert (waits.state, waits.unique_key, waits.finished_at is not None) == ("CANCELLED", None, True)
    entry = AuditEntry.objects.get(action="job.cancel")
    assert (entry.source, entry.request_id, entry.after["state"]) == ("cli", "r-1", "CANCELLED")
    with pytest.raises(cancelling.Over, match="is CANCELLED"):
        cancelling.cancel(waits, actor="ada", source="cli")


def test_cancel__running_job__is_asked_then_forced_and_its_worker_is_told() -> None:
    runs = running()
    cancelling.cancel(runs, actor="ada", source="cli")
    assert (runs.state, runs.cancel_requested, runs.cancel_forced) == ("PROCESSING", True, False)
    assert workers.cancelled({runs.id}) == {runs.id: False}
    cancelling.cancel(runs, actor="ada", source="cli", force=True)
    cancelling.cancel(runs, actor="bob", source="cli")  # does not take the force back
    assert workers.cancelled({runs.id}) == {runs.id: True}
    assert runs.events.latest("id").detail == {"action": "cancel requested", "actor": "bob", "force": False}


def test_cancel__job_is_claimed_meanwhile__is_asked() -> None:
    runs = running()
    seen = Job(id=runs.id, name=runs.name, queue=runs.queue, state=State.PENDING, fence=0)
    cancelling.cancel(seen, actor="ada", source="cli")
    assert (seen.state, seen.cancel_requested) == ("PROCESSING", True)


def test_replay__of_a_job_that_was_cancelled_by_force__forgets_it() -> None:
    dead = job(cancel_requested=True, cancel_forced=True)
    assert interventions.replay(dead, actor="ada")
    dead.refresh_from_db()
    assert (dead.state, dead.cancel_requested, dead.cancel_forced) == ("PENDING", False, False)


def test_cancel__job_of_the_broker__is_revoked_after_the_commit(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(
        "celery.app.control.Control.revoke", lambda _, id, **options: told.append((id, options))
    )
    runs = running(delivery=Delivery.BROKER)
    with django_capture_on_commit_callbacks(execute=True):
        cancelling.cancel(runs, actor="ada", source="api", force=True)
    assert told == [(str(runs.id), {"terminate": True, "signal": "SIGKILL"})]
    assert (runs.state, runs.cancel_forced) == ("PROCESSING", True)


@pytest.mark.parametrize(("role", "status"), [(roles.VIEWER, 403), (roles.OPERATOR, 200), (roles.ADMIN, 200)])
def test_api__cancel__as_in_the_matrix(role: str, status: int) -> None:
    runs = running()
    answer = client_of(role).post(
        f"/api/v1/queue/jobs/{runs.id}/cancel", {"force": True}, content_type="application/json"
    )
    assert answer.status_code == status
    runs.refresh_from_db()
    assert runs.cancel_forced is (status == 200)


def test_api__job_is_over_or_the_body_is_wrong__conflict_or_bad_request() -> None:
    client, over = client_of(roles.OPERATOR), job(state=State.COMPLETED)
    url = f"/api/v1/queue/jobs/{over.id}/cancel"
    assert client.post(url, content_type="application/json").status_code == 409
    assert client.post(url, {"force": "perhaps"}, content_type="application/json").status_code == 400


def test_command__cancel__tells_what_was_over_already(capsys: pytest.CaptureFixture[str]) -> None:
    waits, over = job(**WAITING), job(state=State.COMPLETED)
    with pytest.raises(SystemExit) as end:
        call_command("queue", "cancel", "--json", str(waits.id), str(over.id))
    told = json.loads(capsys.readouterr().out)
    assert (end.value.code, told["cancelled"], len(told["refused"])) == (1, 1, 1)
    waits.refresh_from_db()
    assert waits.state == "CANCELLED"


def test_command__workers__lists_who_is_alive(capsys: pytest.CaptureFixture[str]) -> None:
    worker = workers.register(pool="threads", concurrency=3, queues=["mail"])
    gone = workers.register(pool="threads", concurrency=1, queues=[])
    workers.leave(gone.id)
    workers.beat(worker.id, ["mail"], [], stuck=2)
    call_command("queue", "workers", "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["concurrency"], row["queues"], row["stuck"]) == (3, ["mail"], 2)
