"""Workflows through admin, API and command: who may do what, what it says, and what bad input gets."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from foundation import roles
from foundation.commands import Failed
from foundation.models import AuditEntry
from queue_app import aenqueue_workflow, batch, call, chain, enqueue, enqueue_workflow, group
from queue_app.models import Job, JobEvent, Member, Workflow
from tests.foundation.people import client_of

from .flows import states_of
from .test_api import problem

pytestmark = pytest.mark.django_db

API = "/api/v1/queue/workflows"
LIST = "admin:queue_app_workflow_changelist"
CONFIRMED = {"_form_submitted": "True"}
ANYBODY = [(roles.VIEWER, False), (roles.OPERATOR, True), (roles.ADMIN, True)]


def mail() -> Any:
    return call("email_queue", {"n": 1})


def made() -> Workflow:
    return enqueue_workflow(chain(mail(), group(mail(), mail()), name="nightly <import>"))


def page(flow: Workflow) -> str:
    return reverse("admin:queue_app_workflow_change", args=[flow.pk])


@pytest.mark.django_db(transaction=True)
async def test_aenqueue_workflow__from_async_code__stores_it() -> None:
    flow = await aenqueue_workflow(chain(mail(), mail()))
    assert await Member.objects.filter(workflow=flow.id).acount() == 2


# --- API --------------------------------------------------------------------------------------------------------------
def test_api__list_and_detail__progress_without_reading_jobs() -> None:
    flow, other = made(), enqueue_workflow(batch(mail()))
    client = client_of(roles.VIEWER)
    found = client.get(API).json()["results"]
    assert [row["id"] for row in found] == [str(other.id), str(flow.id)]
    assert [row["id"] for row in client.get(f"{API}?kind=batch").json()["results"]] == [str(other.id)]
    assert client.get(f"{API}?finished=true").json()["results"] == []
    Workflow.objects.filter(id=flow.id).update(completed=1, tried=1)
    with CaptureQueriesContext(connection) as seen:
        told = client.get(f"{API}/{flow.id}").json()
    assert not any("queue_app_job" in query["sql"] for query in seen)
    assert (told["status"], told["total"], told["completed"]) == ("running", 3, 1)
    assert told["progress"] == pytest.approx(1 / 3)
    assert client.get(f"{API}/{uuid4()}").status_code == 404
    for bad in ("kind=tree", "finished=perhaps"):
        problem(client.get(f"{API}?{bad}"), 400)


def test_api__jobs_of_a_workflow__in_their_order_with_few_queries() -> None:
    flow = made()
    client = client_of(roles.VIEWER)
    with CaptureQueriesContext(connection) as seen:
        rows = client.get(f"{API}/{flow.id}/jobs").json()["results"]
    assert len(seen) < 8
    assert [(row["position"], row["is_held"], row["behind"], row["opens"]) for row in rows] == [
        (0, False, None, 1),
        (1, True, 1, None),
        (2, True, 1, None),
    ]
    job = client.get(f"/api/v1/queue/jobs/{rows[1]['job']}").json()
    assert (job["is_held"], job["run_after"], job["workflow"]) == (True, None, str(flow.id))
    assert client.get(f"{API}/{uuid4()}/jobs").status_code == 404


@pytest.mark.parametrize(("role", "may"), ANYBODY)
def test_api__cancel__as_in_the_matrix(role: str, may: bool) -> None:
    flow, client = made(), client_of(role)
    answer = client.post(f"{API}/{flow.id}/cancel", {"force": True}, content_type="application/json")
    assert answer.status_code == (200 if may else 403)
    assert states_of(flow) == (["CANCELLED"] * 3 if may else ["PENDING", "held", "held"])
    if may:
        assert (answer.json()["status"], answer.json()["jobs_cancelled"]) == ("cancelled", 3)
        entry = AuditEntry.objects.get(action="workflow.cancel_tree")
        assert (entry.source, entry.after["forced"]) == ("api", True)
        again = client.post(f"{API}/{flow.id}/cancel", content_type="application/json")
        problem(again, 409)


def test_api__tree_of_a_job__with_its_children() -> None:
    job = enqueue("email_queue", {})
    child = enqueue("email_queue", {}, parent=job)
    url = f"/api/v1/queue/jobs/{job.id}/cancel-tree"
    assert client_of(roles.VIEWER).post(url).status_code == 403
    client = client_of(roles.OPERATOR)
    bad = client.post(url, {"force": "perhaps"}, content_type="application/json")
    problem(bad, 400)
    assert client.post(url, content_type="application/json").json()["jobs_cancelled"] == 2
    assert Job.objects.get(id=child.id).state == "CANCELLED"
    assert AuditEntry.objects.get(action="job.cancel_tree").target_id == str(job.id)


# --- admin ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("role", "may"), ANYBODY)
def test_admin__role__sees_and_cancels_as_in_the_matrix(role: str, may: bool) -> None:
    flow, client = made(), client_of(role)
    act = reverse("admin:queue_app_workflow_cancel_this", args=[flow.pk])
    shown = client.get(page(flow)).content.decode()
    assert "nightly &lt;import&gt;" in shown
    assert "0 of 3" in shown
    assert shown.count("waits for others") == 2
    assert (act in shown) is may
    assert client.post(page(flow), {"name": "x"}).status_code == 403
    assert client.post(act, CONFIRMED).status_code == (302 if may else 403)
    assert states_of(flow) == (["CANCELLED"] * 3 if may else ["PENDING", "held", "held"])
    if may:
        assert act not in client.get(page(flow)).content.decode()


def test_admin__list__bounded_queries() -> None:
    client = client_of(roles.VIEWER)
    client.get(reverse(LIST))
    for _ in range(3):
        made()
    with CaptureQueriesContext(connection) as few:
        assert client.get(reverse(LIST)).status_code == 200
    for _ in range(5):
        made()
    with CaptureQueriesContext(connection) as more:
        client.get(reverse(LIST))
    assert len(more) == len(few)


def test_admin__search__part_of_a_name_or_a_whole_id() -> None:
    flow, other = made(), enqueue_workflow(chain(mail(), name="weekly"))
    client = client_of(roles.VIEWER)
    for term, found, absent in (("WEEK", other, flow), (f" {flow.id} ", flow, other)):
        shown = client.get(reverse(LIST), {"q": term}).content.decode()
        assert page(found) in shown
        assert page(absent) not in shown


@pytest.mark.parametrize("model", ["workflow", "job"])
def test_admin__cancel_selected__each_with_all_below_it(model: str) -> None:
    flow = made()
    target = flow.id if model == "workflow" else flow.members.get(position=0).job
    name = "cancel_selected" if model == "workflow" else "cancel_trees_selected"
    url = reverse(f"admin:queue_app_{model}_changelist")
    client_of(roles.VIEWER).post(url, {"action": name, "_selected_action": [str(target)]})
    assert states_of(flow) == ["PENDING", "held", "held"]
    client_of(roles.OPERATOR).post(url, {"action": name, "_selected_action": [str(target)]})
    assert states_of(flow) == ["CANCELLED"] * 3


def test_admin__job_that_is_held__says_for_what_it_waits() -> None:
    flow = made()
    held = flow.members.get(position=1).job
    shown = client_of(roles.VIEWER).get(reverse("admin:queue_app_job_change", args=[held])).content.decode()
    assert "waits for other jobs of its workflow" in shown
    assert page(flow) in shown
    assert "9999" not in shown


def test_admin__page_of_a_workflow__asks_for_its_jobs_once(django_assert_max_num_queries: Any) -> None:
    """Its templates look at each field several times."""
    flow, viewer = made(), client_of(roles.VIEWER)
    viewer.get(page(flow))
    with django_assert_max_num_queries(8):
        viewer.get(page(flow))


# --- command ----------------------------------------------------------------------------------------------------------
def test_command__workflows_and_inspect__tell_how_far_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    flow = made()
    call_command("queue", "workflows", "--open", "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["status"], row["total"]) == (str(flow.id), "running", 3)
    call_command("queue", "inspect", str(flow.id), "--json")
    told = json.loads(capsys.readouterr().out)
    assert [job["state"] for job in told["jobs"]] == ["PENDING", *["PENDING (waits for others)"] * 2]
    call_command("queue", "inspect", told["jobs"][1]["job"], "--json")
    job = json.loads(capsys.readouterr().out)
    assert (job["run_after"], job["payload"], len(job["events"])) == (None, {"n": 1}, 1)
    with pytest.raises(Failed, match="there is no job or workflow"):
        call_command("queue", "inspect", str(uuid4()))


def test_command__inspect_on_a_terminal__error_payload_and_history(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = enqueue("email_queue", {"to": "nobody@example.com"}, tenant="acme", tags=["vip"])
    error = {
        "type": "ConnectionError",
        "message": "refused",
        "traceback": "Traceback:\nConnectionError: refused\n",
    }
    Job.objects.filter(id=job.id).update(state="DEAD_LETTER", last_error=error)
    JobEvent.objects.create(
        job=job, state="DEAD_LETTER", detail={"error": "ConnectionError", "reason": "not retried"}
    )
    call_command("queue", "inspect", str(job.id))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith(("tenant", "tags", "request"))] == [
        ["tenant", "acme"], ["request_id", "-"], ["tags", "vip"],
    ]  # fmt: skip
    assert any(line.rstrip().endswith("error: ConnectionError, reason: not retried") for line in lines)
    assert lines[lines.index("error") + 1 :][:2] == ["Traceback:", "ConnectionError: refused"]
    assert '  "to": "nobody@example.com"' in lines
    call_command("queue", "inspect", str(job.id), "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["tenant"], told["tags"], told["delivery"]) == ("acme", ["vip"], "ledger")


def test_command__cancel_tree__of_a_workflow_or_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    flow, job = made(), enqueue("email_queue", {})
    child = enqueue("email_queue", {}, parent=job)
    with pytest.raises(SystemExit) as end:
        call_command("queue", "cancel", "--tree", "--json", str(flow.id), str(job.id), str(uuid4()))
    told = json.loads(capsys.readouterr().out)
    assert (end.value.code, told["cancelled"], len(told["refused"])) == (1, 2, 1)
    assert states_of(flow) == ["CANCELLED"] * 3
    assert Job.objects.get(id=child.id).state == "CANCELLED"
    assert AuditEntry.objects.filter(action__endswith="cancel_tree", source="cli").count() == 2
