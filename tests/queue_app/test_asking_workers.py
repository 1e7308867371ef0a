"""A worker is asked to be quiet, to stop or to start anew: by its row, from API, command and admin."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from foundation.models import AuditEntry
from queue_app import workers
from queue_app.models import Worker
from queue_app.worker import memory
from tests.foundation.people import client_of

from .conftest import TIMEOUT_S, WorkerProcess, until
from .traces import state, trace

Start = Callable[..., WorkerProcess]
CONFIRMED = {"_form_submitted": "True"}
by_ada = {"actor": "ada", "source": "cli"}


def registered(**fields: object) -> Worker:
    made = workers.register(pool="threads", concurrency=2, queues=["email_queue"])
    Worker.objects.filter(pk=made.pk).update(**fields)
    return made


def standing(worker: Worker) -> str:
    return workers.heard(worker.id)


@pytest.mark.django_db
def test_ask__quiet_and_back__is_heard_and_audited() -> None:
    worker = registered()
    workers.ask(worker, "quiet", **by_ada)
    assert standing(worker) == "quiet"
    workers.ask(worker, "", **by_ada)
    assert standing(worker) == ""
    told = AuditEntry.objects.filter(action="worker.ask").order_by("id").values_list("before", "after")
    assert list(told) == [({"asked": ""}, {"asked": "quiet"}), ({"asked": "quiet"}, {"asked": ""})]


@pytest.mark.django_db
def test_ask__not_alive_or_ending_or_unknown_word__is_refused_and_changes_nothing() -> None:
    lost = registered(lease_until=timezone.now() - timedelta(seconds=1))
    ending = registered(asked="stop")
    with pytest.raises(workers.Refused, match="not alive"):
        workers.ask(lost, "quiet", **by_ada)
    with pytest.raises(workers.Refused, match="cannot be taken back"):
        workers.ask(ending, "", **by_ada)
    with pytest.raises(ValueError, match="dance"):
        workers.ask(registered(), "dance", **by_ada)
    assert (standing(lost), standing(ending)) == ("", "stop")
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(("role", "status"), [(roles.VIEWER, 403), (roles.OPERATOR, 200)])
def test_api__role__asks_or_not(role: str, status: int) -> None:
    worker, client = registered(memory_bytes=1024), client_of(role)
    (row,) = client.get("/api/v1/queue/workers").json()
    assert (row["id"], row["asked"], row["memory_bytes"]) == (str(worker.id), "", 1024)
    url = f"/api/v1/queue/workers/{worker.id}/ask"
    assert client.post(url, {"asked": "quiet"}, "application/json").status_code == status
    assert standing(worker) == ("quiet" if status == 200 else "")


@pytest.mark.django_db
def test_api__bad_input__is_a_problem() -> None:
    client = client_of(roles.OPERATOR)
    url = f"/api/v1/queue/workers/{registered(asked='stop').id}/ask"
    answers = [
        client.post(url, given, "application/json") for given in ({"asked": "dance"}, {}, {"asked": "quiet"})
    ]
    answers.append(
        client.post(f"/api/v1/queue/workers/{uuid.uuid4()}/ask", {"asked": "quiet"}, "application/json")
    )
    assert [answer.status_code for answer in answers] == [400, 400, 409, 404]
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/problem+json"}


@pytest.mark.django_db
def test_command__all_or_ids__asks_and_reports(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = registered(), registered()
    call_command("queue", "quiet", "--all")
    assert (standing(first), standing(second)) == ("quiet", "quiet")
    call_command("queue", "unquiet", str(first.id))
    assert (standing(first), standing(second)) == ("", "quiet")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call_command("queue", "stop", str(uuid.uuid4()), str(first.id), "--json")
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["asked to stop"] == 1
    assert "there is no worker" in told["refused"][0]


@pytest.mark.django_db
def test_admin__worker__offers_what_fits_and_acts() -> None:
    worker, client = registered(memory_bytes=3 * 2**20), client_of(roles.OPERATOR)
    page = reverse("admin:queue_app_worker_change", args=[worker.id])

    def action(name: str) -> str:
        return reverse(f"admin:queue_app_worker_{name}", args=[worker.id])

    shown = client.get(page).content.decode()
    assert [action(name) in shown for name in ("quiet", "unquiet", "stop", "recycle")] == [
        True,
        False,
        True,
        True,
    ]
    assert client.get(action("stop")).status_code in (200, 405)
    assert standing(worker) == ""  # it asks first
    client.post(action("quiet"), CONFIRMED)
    assert standing(worker) == "quiet"
    shown = client.get(page).content.decode()
    assert [action(name) in shown for name in ("quiet", "unquiet")] == [False, True]
    assert client_of(roles.VIEWER).post(action("stop"), CONFIRMED).status_code == 403
    client.post(action("recycle"), CONFIRMED)
    assert action("stop") not in client.get(page).content.decode()


def test_resident_bytes__this_process__is_some_megabytes() -> None:
    found = memory.resident_bytes()
    assert found is None or 2**20 < found < 2**34


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_worker__is_asked__is_quiet_goes_on_starts_anew_and_stops(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    process = start_worker(*pool)
    before = workers.living().get()
    workers.ask(before, "quiet", **by_ada)
    until(lambda: Worker.objects.get(id=before.id).queues == [], "it puts its queues down")
    job = trace(file)
    assert Worker.objects.get(id=before.id).memory_bytes != 0
    workers.ask(before, "", **by_ada)
    until(lambda: state(job) == "COMPLETED", "it takes jobs again")
    workers.ask(before, "recycle", **by_ada)
    until(lambda: workers.living().exclude(id=before.id).exists(), "it starts anew")
    after = workers.living().get()
    assert (after.pid, after.asked) == (before.pid, "")
    job = trace(file)
    until(lambda: state(job) == "COMPLETED", "it works")
    workers.ask(after, "stop", **by_ada)
    assert process.process.wait(TIMEOUT_S) == 0
    assert not workers.living().exists()


@pytest.mark.django_db
def test_register__version_is_set__stands_on_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = workers.conf()
    monkeypatch.setattr(workers, "conf", lambda: replace(bound, VERSION="2026.11-rc1"))
    assert workers.register(pool="threads", concurrency=1, queues=[]).version == "2026.11-rc1"


@pytest.mark.django_db
def test_admin__this_hosts_clock_is_wrong__a_worker_with_a_lease_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered(last_seen_at=timezone.now())
    client, later = client_of(roles.VIEWER), timezone.now() + timedelta(hours=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    shown = "".join(client.get(reverse("admin:queue_app_worker_changelist")).content.decode().split())
    assert [word in shown for word in (">alive<", ",stale<", ">lost<")] == [True, False, False]
