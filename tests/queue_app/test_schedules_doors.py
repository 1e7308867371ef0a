"""Schedules through admin, API and command: who may do what, what it says, and what bad input gets."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from foundation import roles
from foundation.commands import FAILED, USAGE, Failed
from foundation.models import AuditEntry
from queue_app import clock, firing, schedules
from queue_app.models import Firing, Job, Schedule
from tests.foundation.people import client_of

from .dead_letters import PAYLOAD
from .test_api import problem

pytestmark = pytest.mark.django_db

API = "/api/v1/queue/schedules"
LIST, ADD = "admin:queue_app_schedule_changelist", "admin:queue_app_schedule_add"
FIELDS: dict[str, Any] = {"task": "email_queue", "payload": PAYLOAD, "interval_s": 3600}
WHO: dict[str, Any] = {"actor": "somebody", "source": "cli"}
CONFIRMED = {"_form_submitted": "True"}
WEEK = timedelta(weeks=1)


def make(name: str = "hourly", **fields: Any) -> Schedule:
    return schedules.create(name, **FIELDS | fields, **WHO)


def fired(name: str = "hourly", **fields: Any) -> Schedule:
    schedule = make(name, **fields)
    Schedule.objects.filter(pk=schedule.pk).update(next_at=clock.now())
    firing.fire_due()
    return Schedule.objects.get(pk=schedule.pk)


def page(schedule: Schedule) -> str:
    return reverse("admin:queue_app_schedule_change", args=[schedule.pk])


def act(name: str, schedule: Schedule) -> str:
    return reverse(f"admin:queue_app_schedule_{name}_this", args=[schedule.pk])


def form(**fields: Any) -> dict[str, Any]:
    """What the admin's page sends."""
    given = {
        "name": "hourly", "task": "email_queue", "payload": json.dumps(PAYLOAD), "queue": "", "priority": 3, "tenant": "",
        "cron": "", "interval_s": 3600, "time_zone": "UTC", "missed": "last", "window_s": 86400, "overlap": "allow",
    }  # fmt: skip
    return given | fields


def audited() -> list[str]:
    return [
        *AuditEntry.objects.filter(source__in=["admin", "api"])
        .values_list("action", flat=True)
        .order_by("id")
    ]


def post(client: Client, path: str, body: Any = None) -> Any:
    return client.post(path, json.dumps({} if body is None else body), content_type="application/json")


def patch(client: Client, path: str, body: Any) -> Any:
    return client.patch(path, json.dumps(body), content_type="application/json")


# --- API -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "reads", "acts", "makes"),
    [
        (None, False, False, False),
        (roles.VIEWER, True, False, False),
        (roles.OPERATOR, True, True, False),
        (roles.ADMIN, True, True, True),
    ],
)
def test_api__role__may_as_in_the_matrix(role, reads, acts, makes):
    schedule, client = make(), client_of(role)
    one = f"{API}/{schedule.pk}"
    for path in (API, one, f"{one}/firings"):
        assert (client.get(path).status_code == 200) is reads
    for verb in ("pause", "resume", "run"):
        assert (post(client, f"{one}/{verb}").status_code in (200, 201)) is acts
    assert (patch(client, one, {"priority": 9}).status_code == 200) is acts
    assert (post(client, API, FIELDS | {"name": "another"}).status_code == 201) is makes
    assert (client.delete(one).status_code == 204) is makes
    done = ["schedule.pause", "schedule.resume", "schedule.run", "schedule.change"] if acts else []
    assert audited() == done + (["schedule.create", "schedule.delete"] if makes else [])


def test_api__schedule__tells_when_and_what_came_of_it():
    schedule, client = fired(), client_of(roles.VIEWER)
    (row,) = client.get(API).json()["results"]
    assert (row["name"], row["when"], row["interval_s"]) == ("hourly", "Every hour", 3600)
    assert row["next_in_words"].startswith("in ")
    assert len(client.get(f"{API}/{schedule.pk}").json()["next_runs"]) == 5
    (came,) = client.get(f"{API}/{schedule.pk}/firings").json()["results"]
    assert (came["outcome"], came["job"]) == ("fired", str(Job.objects.get().id))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"interval_s": None, "cron": "61 * * * *"}, "/cron"),
        ({"cron": "* * * * *"}, "/cron"),
        ({"time_zone": "Mars/Base"}, "/time_zone"),
        ({"interval_s": -1}, "/interval_s"),
        ({"task": "nobody.knows"}, "/task"),
        ({"payload": []}, "/payload"),
        ({"missed": "never"}, "/missed"),
        ({"next_at": "2026-01-01T00:00:00Z", "every": 5}, "/every"),
    ],
)
def test_api__bad_field__problem_names_it_and_nothing_changes(body, pointer):
    schedule, client = make(), client_of(roles.ADMIN)
    for answer in (
        post(client, API, FIELDS | {"name": "another"} | body),
        patch(client, f"{API}/{schedule.pk}", body),
    ):
        assert pointer in {error["pointer"] for error in problem(answer, 400)["errors"]}
    assert [*Schedule.objects.values_list("name", "interval_s")] == [("hourly", 3600)]
    assert audited() == []


@pytest.mark.parametrize("overlap", ["wait", "replace"])
def test_doors__overlap_that_waits__each_takes_it_and_tells_what_waits(overlap):
    client = client_of(roles.ADMIN)
    assert post(client, API, FIELDS | {"name": "by-api", "overlap": overlap}).json()["overlap"] == overlap
    assert client.post(reverse(ADD), form(name="by-admin", overlap=overlap)).status_code == 302
    terms = ["--task", "email_queue", "--payload", json.dumps(PAYLOAD), "--every", "60", "--overlap", overlap]
    call_command("queue", "schedules", "create", "by-cli", *terms, "--json")
    assert {*Schedule.objects.values_list("overlap", flat=True)} == {overlap}
    schedule = Schedule.objects.get(name="by-api")
    for _ in range(2):
        Schedule.objects.filter(pk=schedule.pk).update(next_at=clock.now())
        firing.fire_due()
        Job.objects.update(state="PROCESSING")
    assert client.get(f"{API}/{schedule.pk}").json()["waits_at"] is not None
    outcomes = client.get(f"{API}/{schedule.pk}/firings").json()["results"]
    assert [came["outcome"] for came in outcomes] == ["waiting", "fired"]
    assert "waiting" in client.get(page(schedule)).content.decode()


def test_api__name_taken_or_unknown_id_or_no_object__says_so():
    make()
    client = client_of(roles.ADMIN)
    assert problem(post(client, API, FIELDS | {"name": "hourly"}), 400)["errors"][0]["pointer"] == "/name"
    problem(post(client, API, []), 400)
    problem(post(client, f"{API}/999999/run"), 404)


def test_api__backfill__dry_run_lists_then_each_moment_gets_one_job():
    schedule, client = make(), client_of(roles.OPERATOR)
    Schedule.objects.update(starts_at=schedule.starts_at - WEEK)
    ends = {"start": (clock.now() - timedelta(hours=3)).isoformat(), "end": clock.now().isoformat()}
    path = f"{API}/{schedule.pk}/backfill"
    assert len(post(client, path, ends | {"dry_run": True}).json()["moments"]) == 3
    misspelt = problem(post(client, path, ends | {"dryrun": True}), 400)
    assert misspelt["errors"][0]["pointer"] == "/dryrun"
    assert not Job.objects.exists()
    assert len(post(client, path, ends).json()["jobs"]) == 3
    assert post(client, path, ends).json()["jobs"] == []
    problem(post(client, path, {"start": ends["end"], "end": ends["start"]}), 400)
    problem(post(client, path, {"start": "x"}), 400)


def test_api__run_of_a_task_that_is_gone__conflict():
    schedule = make()
    Schedule.objects.update(task="was.removed")
    problem(post(client_of(roles.OPERATOR), f"{API}/{schedule.pk}/run"), 409)


@pytest.mark.parametrize("path", [API, "admin"])
def test_lists__ten_times_the_rows__as_many_queries(path):
    client = client_of(roles.VIEWER)
    url = reverse(LIST) if path == "admin" else path

    def queries(count: int) -> int:
        for n in range(count):
            fired(f"{count} {n}")
        with CaptureQueriesContext(connection) as captured:
            assert client.get(url).status_code == 200
        return len(captured)

    queries(1)
    assert queries(2) == queries(20) <= 12


# --- admin -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "sees", "acts"),
    [
        (None, False, False),
        (roles.VIEWER, True, False),
        (roles.OPERATOR, True, True),
        (roles.ADMIN, True, True),
    ],
)
def test_admin__role__sees_and_acts_as_in_the_matrix(role, sees, acts):
    schedule, client = fired(), client_of(role)
    for url in (reverse(LIST), page(schedule), reverse("admin:queue_app_firing_changelist")):
        assert (client.get(url).status_code == 200) is sees
    for name in ("pause", "resume", "run"):
        assert client.post(act(name, schedule), CONFIRMED).status_code == (302 if acts else 403)
        assert client.get(act(name, schedule)).status_code != 302
    assert audited() == (["schedule.pause", "schedule.resume", "schedule.run"] if acts else [])
    assert client.get(reverse(ADD)).status_code == (200 if role == roles.ADMIN else 403)


def test_admin__pages__say_when_and_what_came_of_it():
    schedule, client = fired(), client_of(roles.OPERATOR)
    shown = client.get(reverse(LIST)).content.decode()
    assert "Every hour" in shown
    assert "UTC" in shown
    shown = client.get(page(schedule)).content.decode()
    assert "fired by clock" in shown
    assert reverse("admin:queue_app_job_change", args=[Job.objects.get().id]) in shown
    assert act("pause", schedule) in shown
    assert act("resume", schedule) not in shown


def test_admin__last_and_next_runs__in_the_schedules_own_zone():
    schedule, client = fired(), client_of(roles.VIEWER)
    Schedule.objects.update(time_zone="Asia/Tokyo")
    shown = client.get(page(schedule)).content.decode()
    assert shown.count(" JST") == 1 + 5
    Schedule.objects.update(time_zone="Was/Removed", cron="0 9 * * *", interval_s=None)
    for url in (page(schedule), reverse(LIST), f"{API}/{schedule.pk}"):
        assert "Was/Removed" in client.get(url).content.decode()  # and no error


def test_admin__add_change_delete__through_the_noun_and_audited():
    client = client_of(roles.ADMIN)
    assert client.post(reverse(ADD), form(cron=" 0  9 * * * ", interval_s="")).status_code == 302
    schedule = Schedule.objects.get()
    assert (schedule.cron, schedule.payload) == ("0 9 * * *", PAYLOAD)
    assert client.post(page(schedule), form(cron="0 10 * * *", interval_s="")).status_code == 302
    assert Schedule.objects.get().cron == "0 10 * * *"
    delete = reverse("admin:queue_app_schedule_delete", args=[schedule.pk])
    assert "hourly" in client.get(delete).content.decode()
    assert client.post(delete, {"post": "yes"}).status_code == 302
    assert not Schedule.objects.exists()
    assert audited() == ["schedule.create", "schedule.change", "schedule.delete"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cron": "61 * * * *", "interval_s": ""}, "its minute is wrong"),
        ({"cron": "* * * * *"}, "either a cron expression or an interval"),
        ({"time_zone": "Mars/Base"}, "is no time zone"),
        ({"payload": "{"}, "Enter a valid JSON."),
        ({"task": "nobody.knows"}, "no task or queue is called"),
        ({"name": "a/b"}, "letters, digits"),
    ],
)
def test_admin__bad_field__says_so_beside_it_and_stores_nothing(fields, told):
    answer = client_of(roles.ADMIN).post(reverse(ADD), form(**fields))
    assert answer.status_code == 200
    assert told in answer.content.decode()
    assert not Schedule.objects.exists()


def test_admin__actions_on_a_selection__each_is_audited():
    client, ids = client_of(roles.OPERATOR), [make("one").pk, make("two").pk]
    for name, paused in (("pause_selected", True), ("resume_selected", False)):
        client.post(reverse(LIST), {"action": name, "_selected_action": ids})
        assert {*Schedule.objects.values_list("paused", flat=True)} == {paused}
    assert audited() == ["schedule.pause"] * 2 + ["schedule.resume"] * 2
    Schedule.objects.update(paused=True)
    Schedule.objects.filter(name="one").update(time_zone="Was/Removed", cron="* * * * *", interval_s=None)
    told = client.post(reverse(LIST), {"action": "resume_selected", "_selected_action": ids}, follow=True)
    assert "is no time zone" in told.content.decode()
    assert [*Schedule.objects.order_by("name").values_list("paused", flat=True)] == [True, False]


def test_admin__backfill__asks_for_both_ends():
    schedule, client = make(), client_of(roles.OPERATOR)
    Schedule.objects.update(starts_at=schedule.starts_at - WEEK)
    assert client.get(act("backfill", schedule)).status_code == 200
    ends = {}
    for end, hours in (("start", 3.5), ("end", 0.5)):
        moment = clock.now() - timedelta(hours=hours)
        ends |= {f"{end}_0": f"{moment:%Y-%m-%d}", f"{end}_1": f"{moment:%H:%M:%S}"}
    assert client.post(act("backfill", schedule), CONFIRMED | ends).status_code == 302
    assert Job.objects.count() == 3
    bad = client.post(act("backfill", schedule), CONFIRMED | ends | {"start_0": "2099-01-01"})
    assert "is before the start" in bad.content.decode()


# --- command ---------------------------------------------------------------------------------------------------------------
@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> Any:
        capsys.readouterr()
        call_command("queue", "schedules", *arguments)
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    return call


def test_command__life_of_a_schedule__each_verb_does_its_part(run):
    payload = json.dumps(PAYLOAD)
    terms = ["--cron", "0 9 * * *", "--time-zone", "Europe/Berlin", "--payload", payload]
    made = run("create", "daily", "--task", "email_queue", *terms, "--json")
    assert made["when"] == "At 09:00 every day, Europe/Berlin"
    assert made["next"].startswith("in ")
    assert (
        [row["name"] for row in run("--json")] == [row["name"] for row in run("list", "--json")] == ["daily"]
    )
    assert run("change", "daily", "--every", "60", "--json")["when"] == "Every minute"
    assert run("pause", "daily", "--json")["paused"] is True
    assert run("resume", "daily", "--json")["paused"] is False
    job = run("run", "daily", "--json")["job"]
    shown = run("show", "daily", "--json")
    assert (shown["task"], len(shown["next_runs"]), shown["firings"][0]["job"]) == ("email_queue", 5, job)
    assert "Every minute" in run("show", "daily")
    Schedule.objects.update(starts_at=clock.now() - WEEK)
    ends = ["--start", (clock.now() - timedelta(minutes=3)).isoformat(), "--end", clock.now().isoformat()]
    assert len(run("backfill", "daily", *ends, "--dry-run", "--json")["moments"]) == 3
    assert "3 moments; nothing was changed" in run("backfill", "daily", *ends, "--dry-run")
    assert len(run("backfill", "daily", *ends, "--json")["jobs"]) == 3
    with pytest.raises(Failed, match="nothing was deleted"):
        run("delete", "daily")
    assert run("delete", "daily", "--yes", "--json") == {"deleted": "daily"}
    assert not Schedule.objects.exists()
    assert Firing.objects.count() == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "bad", "--task", "email_queue", "--cron", "61 * * * *"], "its minute is wrong"),
        (["create", "bad", "--task", "nobody.knows", "--every", "60"], "no task or queue"),
        (["create", "bad", "--task", "email_queue"], "either a cron expression or an interval"),
        (["change", "hourly", "--time-zone", "Mars/Base"], "is no time zone"),
        (["pause", "nobody"], "there is no schedule 'nobody'"),
        (["change", "hourly", "--tenant", "caf\udce9"], "tenant"),
        (
            ["backfill", "hourly", "--start", "2026-11-02T00:00Z", "--end", "2026-11-01T00:00Z"],
            "before the start",
        ),
    ],
)
def test_command__bad_input__one_line_and_nothing_changed(run, arguments, told):
    schedule = make()
    with pytest.raises(CommandError, match=told) as ended:
        run(*arguments)
    assert ended.value.returncode == (FAILED if "nobody" in arguments else USAGE)
    assert ended.value.hint.endswith(f"{arguments[0]} --help") or "nobody" in arguments
    assert [*Schedule.objects.values_list("name", "time_zone", "paused")] == [(schedule.name, "UTC", False)]
