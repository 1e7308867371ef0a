"""Limits through admin, API and command: who may change them, what it says, and what bad input gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.urls import reverse

from foundation import roles
from foundation.commands import USAGE, Failed
from foundation.models import AuditEntry
from queue_app import checks, enqueue_many, limits_told, policies, queues, stats, tenants
from queue_app.models import Job, Queue, Tenant
from queue_app.quotas import BadLimit
from tests.foundation.people import client_of

from .test_api import problem

pytestmark = pytest.mark.django_db

NAME = "email_queue"
API = f"/api/v1/queue/queues/{NAME}"
WHO: dict[str, Any] = {"actor": "ada", "source": "cli"}


@pytest.fixture(autouse=True)
def queue() -> Queue:
    return queues.find(NAME)


def store(count: int, tenant: str) -> list[Job]:
    return enqueue_many(NAME, [{"n": n} for n in range(count)], tenant=tenant)


def limits() -> dict[str, Any]:
    return Queue.objects.filter(name=NAME).values(*queues.LIMITS).get()


def patch(client: Any, path: str, body: Any) -> Any:
    return client.patch(API + path, json.dumps(body), content_type="application/json")


# --- the one place ---------------------------------------------------------------------------------------------------
def test_configure__limits__stored_audited_and_known_at_once() -> None:
    queues.configure(NAME, max_concurrency=5, is_fair=True, **WHO)
    assert (limits()["max_concurrency"], limits()["is_fair"]) == (5, True)
    entry = AuditEntry.objects.get(action="queue.configure")
    assert (entry.before["max_concurrency"], entry.after["max_concurrency"]) == (None, 5)
    assert policies.is_governed(NAME)


def test_configure__bad_limit__nothing_is_changed() -> None:
    for changes in ({"max_concurrency": -1}, {"rate_count": 5}, {"is_fair": True, "delivery": "broker"}):
        with pytest.raises(BadLimit):
            queues.configure(NAME, paused=True, **changes, **WHO)
    queues.configure(NAME, max_concurrency=5, **WHO)
    with pytest.raises(BadLimit, match="max_concurrency needs ledger delivery"):
        queues.configure(NAME, delivery="broker", **WHO)
    assert limits() == {**dict.fromkeys(queues.LIMITS), "max_concurrency": 5, "is_fair": False}
    assert not Queue.objects.get(name=NAME).paused


def test_database__bad_limits_past_the_code__are_refused(queue: Queue) -> None:
    for changes in ({"max_concurrency": 0}, {"rate_count": 5}, {"rate_burst": 5}, {"tenant_concurrency": 0}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Queue.objects.filter(name=NAME).update(**changes)
    Tenant.objects.create(queue=queue, name="a")
    for changes in ({"weight": 0}, {"weight": 1001}, {"max_concurrency": 0}, {"rate_period_s": 5.0}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Tenant.objects.update(**changes)


def test_tenant__known_by_a_job_or_new__is_limited_and_makes_the_queue_fair() -> None:
    store(1, "acme")
    row = tenants.configure(NAME, "acme", weight=3, max_concurrency=2, **WHO)
    assert (row.weight, row.max_concurrency) == (3, 2)
    assert limits()["is_fair"] is True
    assert tenants.configure(NAME, "later", weight=2, is_new=True, **WHO).weight == 2
    assert AuditEntry.objects.filter(action="tenant.configure").count() == 2
    tenants.configure(NAME, "acme", weight=3, **WHO)  # the same again
    assert AuditEntry.objects.filter(action="tenant.configure").count() == 2


def test_configure__last_limit_while_a_tenant_is_paused__is_refused() -> None:
    """Its jobs ran then, as a queue without limits knows no turns."""
    tenants.configure(NAME, "acme", paused=True, is_new=True, **WHO)
    with pytest.raises(BadLimit, match=r"is_fair has to stay, or another limit: .* \(acme\)"):
        queues.configure(NAME, is_fair=False, **WHO)
    page = reverse("admin:queue_app_queue_change", args=[NAME])
    answer = client_of(roles.OPERATOR).post(page, {})
    assert "tenants have limits of their own (acme)" in answer.content.decode()
    assert limits()["is_fair"] is True
    queues.configure(NAME, is_fair=False, max_concurrency=9, **WHO)
    tenants.configure(NAME, "acme", paused=False, weight=3, **WHO)
    queues.configure(NAME, max_concurrency=None, **WHO)
    assert not policies.has_limits(Queue.objects.get(name=NAME))


def test_paused_jobs__of_very_many_tenants__are_left_out_by_one_condition(queue: Queue) -> None:
    queues.configure(NAME, is_fair=True, **WHO)
    Tenant.objects.bulk_create(Tenant(queue=queue, name=f"t{n}", paused=True) for n in range(2000))
    store(1, "t1999")
    assert stats.oldest_due_s(but=tenants.paused_jobs()) == {}
    store(1, "t2000")
    assert list(stats.oldest_due_s(but=tenants.paused_jobs())) == [NAME]


def test_tenant__unknown__is_an_error_that_names_the_one_meant_and_changes_nothing() -> None:
    store(1, "acme-corp")
    with pytest.raises(tenants.UnknownTenant, match="did you mean 'acme-corp'"):
        tenants.configure(NAME, "acme-cor", weight=3, **WHO)
    with pytest.raises(BadLimit, match="weight"):
        tenants.configure(NAME, "acme-corp", weight=0, **WHO)
    with pytest.raises(queues.UnknownQueue):
        tenants.configure("no_such_queue", "acme-corp", weight=1, **WHO)
    assert not Tenant.objects.exists()
    assert limits()["is_fair"] is False


def test_standing__jobs_and_limits__are_told_by_tenant() -> None:
    queues.configure(NAME, is_fair=True, max_concurrency=4, **WHO)
    store(3, "a")
    (has, *_) = store(2, "b")
    Job.objects.filter(id=has.id).update(turn=3)
    tenants.configure(NAME, "c", weight=5, is_new=True, **WHO)
    found = [(one.name, one.waiting, one.held, one.unstarted, one.weight) for one in tenants.standing(NAME)]
    assert found == [("a", 3, 0, 0, 1), ("b", 1, 1, 1, 1), ("c", 0, 0, 0, 5)]
    ((_, use),) = limits_told.all_in_use()
    assert use == (1, 1, 4)


def test_prune__away_for_long__only_rows_without_limits_go(queue: Queue) -> None:
    for name, changes in (("plain", {}), ("limited", {"weight": 2}), ("rated", {"rate_used_to_s": 9e9})):
        Tenant.objects.create(queue=queue, name=name, seen_at="2020-01-01T00:00Z", **changes)
    Tenant.objects.create(queue=queue, name="here")
    assert tenants.prune() == 1
    assert not Tenant.objects.filter(name="plain").exists()


# --- the API -----------------------------------------------------------------------------------------------------------
def test_api__patch_limits__by_operators_and_shown_with_what_is_in_use() -> None:
    body = {"max_concurrency": 5, "rate_count": 10, "rate_period_s": 1.5, "is_fair": True}
    problem(patch(client_of(roles.VIEWER), "/limits", body), 403)
    answer = patch(client_of(roles.OPERATOR), "/limits", body)
    assert answer.status_code == 200
    assert answer.json() == {
        **dict.fromkeys(queues.LIMITS), "name": NAME, **body, "in_use": {"held": 0, "unstarted": 0, "waiting": 0},
    }  # fmt: skip
    assert AuditEntry.objects.get(action="queue.configure").source == "api"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/limits", {"max_concurrency": -1}, "max_concurrency"),
        ("/limits", {"max_concurency": 1}, "max_concurency"),
        ("/limits", {"rate_count": 1}, "rate_period_s"),
        ("/tenants", {"name": "nobody", "weight": 2}, "name"),
        ("/tenants", {"name": "acme", "weight": -2}, "weight"),
        ("/tenants", {"weight": 2}, "name"),
    ],
)
def test_api__bad_input__names_the_field_and_changes_nothing(path: str, body: Any, field: str) -> None:
    store(1, "acme")
    found = problem(patch(client_of(roles.OPERATOR), path, body), 400)
    assert field in json.dumps(found)
    assert limits() == {**dict.fromkeys(queues.LIMITS), "is_fair": False}
    assert not Tenant.objects.exists()


def test_api__tenants__changed_and_listed() -> None:
    store(1, "acme")
    client = client_of(roles.OPERATOR)
    answer = patch(client, "/tenants", {"name": "acme", "weight": 3, "max_concurrency": 2})
    assert (answer.status_code, answer.json()["weight"]) == (200, 3)
    (row,) = client.get(f"{API}/tenants").json()["results"]
    assert (row["name"], row["weight"], row["max_concurrency"]) == ("acme", 3, 2)
    problem(client.get("/api/v1/queue/queues/no_such_queue/tenants"), 404)
    problem(client.get("/api/v1/queue/queues/no_such_queue/limits"), 404)


# --- the command -------------------------------------------------------------------------------------------------------
def test_command__set_show_and_take_away(capsys: pytest.CaptureFixture[str]) -> None:
    call_command(
        "queue", "limits", "set", NAME, "--concurrency", "5", "--rate", "100/60", "--burst", "3", "--fair"
    )
    assert limits()["rate_period_s"] == 60.0
    call_command("queue", "limits", "set", NAME, "--tenant-concurrency", "2", "--tenant-rate", "5")
    assert (limits()["tenant_concurrency"], limits()["tenant_rate_period_s"]) == (2, 1.0)
    call_command("queue", "limits", "tenant", NAME, "acme", "--weight", "3", "--new")
    assert "Celery's .delay() goes past them" in capsys.readouterr().out
    call_command("queue", "limits")
    out = capsys.readouterr().out
    assert (
        "5 at once; 100 in 60 s, burst 3; each tenant 2 at once; each tenant 5 in 1 s, burst 1; fair" in out
    )
    call_command("queue", "limits", "show", NAME, "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["tenants"] == [{"tenant": "acme", "weight": 3, "limits": "", "in_use": 0, "waiting": 0}]
    call_command("queue", "limits", "set", NAME, "--rate", "none", "--concurrency", "none", "--no-fair")
    assert (limits()["rate_count"], limits()["rate_burst"], limits()["max_concurrency"]) == (None, None, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", NAME, "--concurrency", "-1"),
        ("set", NAME),
        ("set", "no_such_queue", "--concurrency", "1"),
        ("set", NAME, "--burst", "5"),
        ("tenant", NAME, "nobody", "--weight", "2"),
        ("tenant", NAME, "acme", "--weight", "0"),
    ],
)
def test_command__bad_input__is_wrong_usage_with_a_hint(arguments: tuple[str, ...]) -> None:
    store(1, "acme")
    with pytest.raises(Failed) as caught:
        call_command("queue", "limits", *arguments)
    assert caught.value.returncode == USAGE
    assert caught.value.hint
    assert limits() == {**dict.fromkeys(queues.LIMITS), "is_fair": False}


def test_status__queue_with_limits__says_them(capsys: pytest.CaptureFixture[str]) -> None:
    queues.configure(NAME, max_concurrency=5, **WHO)
    store(2, "")
    with pytest.raises(SystemExit):
        call_command("queue", "status", "--json")
    told = json.loads(capsys.readouterr().out)["queues"][NAME]
    assert told["limits"] == "5 at once (0 in use, 2 wait)"


# --- the admin ---------------------------------------------------------------------------------------------------------
def test_admin__queue_form__takes_limits_and_refuses_bad_ones() -> None:
    url = reverse("admin:queue_app_queue_change", args=[NAME])
    client = client_of(roles.OPERATOR)
    answer = client.post(url, {"max_concurrency": "5", "rate_count": "10"})
    assert answer.status_code == 200
    assert "a rate is a number of jobs in a period" in answer.content.decode()
    assert limits()["max_concurrency"] is None
    answer = client.post(
        url, {"max_concurrency": "5", "rate_count": "10", "rate_period_s": "1", "is_fair": "on"}
    )
    assert answer.status_code == 302
    assert (limits()["max_concurrency"], limits()["rate_count"], limits()["is_fair"]) == (5, 10, True)
    shown = client.get(url).content.decode()
    assert "5 at once; 10 in 1 s" in shown
    assert "delay() goes past them" in shown
    answer = client.post(url, {"max_concurrency": "5", "delivery": "ledger"}, follow=True)
    assert "goes past them" not in answer.content.decode()


def test_admin__job_of_a_queue_with_limits__says_what_it_waits_for() -> None:
    queues.configure(NAME, max_concurrency=5, **WHO)
    (job,) = store(1, "acme")
    shown = client_of(roles.VIEWER).get(reverse("admin:queue_app_job_change", args=[job.pk])).content.decode()
    assert "waits for one" in shown
    assert "acme" in shown


def test_admin__tenants__added_by_admins_changed_by_operators(django_assert_max_num_queries: Any) -> None:
    store(1, "acme")
    add, client = reverse("admin:queue_app_tenant_add"), client_of(roles.ADMIN)
    answer = client.post(add, {"queue": NAME, "name": "nobody", "weight": "3"})
    assert "no job of a tenant" in answer.content.decode()
    assert client.post(add, {"queue": NAME, "name": "acme", "weight": "0"}).status_code == 200
    assert not Tenant.objects.exists()
    assert client.post(add, {"queue": NAME, "name": "acme", "weight": "3"}).status_code == 302
    row = Tenant.objects.get()
    change, operator = reverse("admin:queue_app_tenant_change", args=[row.pk]), client_of(roles.OPERATOR)
    assert operator.post(change, {"weight": "4"}).status_code == 302
    assert Tenant.objects.get().weight == 4
    assert operator.post(change, {"weight": "4", "paused": "on"}).status_code == 302
    assert Tenant.objects.get().paused is True
    assert ">Unknown<" not in operator.get(change).content.decode()
    assert "0 in use, 0 wait" in operator.get(change).content.decode()
    for action, paused in (("resume_selected", None), ("pause_selected", True)):
        listed = reverse("admin:queue_app_tenant_changelist")
        assert operator.post(listed, {"action": action, "_selected_action": [row.pk]}).status_code == 302
        assert Tenant.objects.get().paused is paused
    assert operator.post(change, {"weight": "4"}).status_code == 302  # no longer ticked
    assert Tenant.objects.get().paused is None
    assert client_of(roles.VIEWER).post(change, {"weight": "5"}).status_code == 403
    assert (
        client.post(reverse("admin:queue_app_tenant_delete", args=[row.pk]), {"post": "yes"}).status_code
        == 403
    )
    with django_assert_max_num_queries(12):
        assert "acme" in operator.get(reverse("admin:queue_app_tenant_changelist")).content.decode()


# --- what watches ------------------------------------------------------------------------------------------------------
def test_check__limits_without_ledger_delivery__is_a_warning() -> None:
    queues.configure(NAME, is_fair=True, **WHO)
    (found,) = checks.limits_meet_the_ledger_alone(None, databases=["default"])
    assert (found.id, found.obj.name) == ("queue.W002", NAME)
    queues.configure(NAME, delivery="ledger", **WHO)
    assert checks.limits_meet_the_ledger_alone(None, databases=["default"]) == []


def test_metrics__queue_with_limits__tells_what_is_in_use() -> None:
    queues.configure(NAME, max_concurrency=5, **WHO)
    store(2, "")
    samples = [
        sample for family in stats.families() for sample in family.samples if sample.name.endswith("turns")
    ]
    assert {sample.labels["kind"]: sample.value for sample in samples} == {
        "held": 0,
        "unstarted": 0,
        "waiting": 2,
    }
