"""Alerts through admin, API and command: who may do what, what it says, and what bad input gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from foundation import roles
from foundation.commands import DEGRADED, FAILED, USAGE, Failed
from foundation.models import AuditEntry
from queue_app import alert_rules, alerting, checks, clock, notice_channels, notices, silences
from queue_app.models import Alert, AlertRule, Notice, Silence
from tests.foundation.people import client_of

from .alert_flows import QUEUE, WHO, conf, forget, hooked, late_job, later, rule
from .test_api import problem

pytestmark = pytest.mark.django_db

API = "/api/v1/queue/alerts"
FIELDS: dict[str, Any] = {"condition": "latency", "threshold": 60}
CONFIRMED = {"_form_submitted": "True"}
QUIET = {"for_s": "3600", "reason": "known"}


@pytest.fixture(autouse=True)
def no_rules(db: None) -> None:
    forget()


def firing() -> Alert:
    rule()
    late_job()
    alerting.look()
    return Alert.objects.get()


def audited() -> list[str]:
    entries = AuditEntry.objects.filter(source__in=["admin", "api"]).order_by("id")
    return [*entries.values_list("action", flat=True)]


def post(client: Client, path: str, body: Any = None) -> Any:
    return client.post(path, json.dumps({} if body is None else body), content_type="application/json")


def patch(client: Client, path: str, body: Any) -> Any:
    return client.patch(path, json.dumps(body), content_type="application/json")


def page(name: str, row: Any) -> str:
    return reverse(f"admin:queue_app_{name}_change", args=[row.pk])


def form(**fields: Any) -> dict[str, Any]:
    given = {
        "name": "late",
        "condition": "latency",
        "queue": "",
        "threshold": 60,
        "window_s": 600,
        "at_least": 1,
    }
    return given | {"for_s": 0, "clear_s": 0, "repeat_s": 0, "enabled": "on"} | fields


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
    alert, client = firing(), client_of(role)
    known = AlertRule.objects.get()
    for path in ("", f"/{alert.pk}", "/rules", f"/rules/{known.pk}", "/silences"):
        assert (client.get(API + path).status_code == 200) is reads
    quiet = {"for_s": 60, "reason": "known"}
    assert (post(client, f"{API}/{alert.pk}/silence", quiet).status_code == 201) is acts
    assert (post(client, f"{API}/silences", quiet | {"rule": "latency"}).status_code == 201) is acts
    own = silences.silence(until=later(60), reason="own", **WHO)
    assert (post(client, f"{API}/silences/{own.pk}/end").status_code == 200) is acts
    assert (patch(client, f"{API}/rules/{known.pk}", {"threshold": 90}).status_code == 200) is acts
    assert (post(client, f"{API}/rules", FIELDS | {"name": "another"}).status_code == 201) is makes
    assert (client.delete(f"{API}/rules/{known.pk}").status_code == 204) is makes
    done = ["silence.create", "silence.create", "silence.end", "alert_rule.change"] if acts else []
    assert audited() == done + (["alert_rule.create", "alert_rule.delete"] if makes else [])


def test_api__alert__tells_what_fires_by_state_and_queue():
    alert, client = firing(), client_of(roles.VIEWER)
    (row,) = client.get(API, {"state": "firing", "queue": QUEUE}).json()["results"]
    assert (row["name"], row["state"], row["queue"], row["notices"]) == ("latency", "firing", QUEUE, 0)
    assert "has waited" in row["words"]
    assert client.get(f"{API}/{alert.pk}").json() == row
    assert client.get(API, {"state": "resolved"}).json()["results"] == []
    assert "state" in problem(client.get(API, {"state": "loud"}), 400)["errors"][0]["pointer"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"threshold": 0}, "/threshold"),
        ({"condition": "failures", "threshold": 2}, "/threshold"),
        ({"condition": "slow"}, "/condition"),
        ({"queue": "nobody"}, "/queue"),
        ({"condition": "recorder", "queue": QUEUE}, "/queue"),
        ({"for_s": -1}, "/for_s"),
        ({"fires": True}, "/fires"),
    ],
)
def test_api__bad_rule__problem_names_the_field_and_nothing_changes(body, pointer):
    known, client = rule(), client_of(roles.ADMIN)
    for answer in (
        post(client, f"{API}/rules", FIELDS | {"name": "another"} | body),
        patch(client, f"{API}/rules/{known.pk}", body),
    ):
        assert pointer in {error["pointer"] for error in problem(answer, 400)["errors"]}
    assert [*AlertRule.objects.values_list("name", "threshold", "condition")] == [
        ("latency", 60.0, "latency")
    ]
    assert audited() == []


def test_api__name_taken_or_changed_or_unknown_id__says_so():
    known, client = rule(), client_of(roles.ADMIN)
    taken = post(client, f"{API}/rules", FIELDS | {"name": "latency"})
    assert problem(taken, 400)["errors"][0]["pointer"] == "/name"
    assert (
        problem(patch(client, f"{API}/rules/{known.pk}", {"name": "x"}), 400)["errors"][0]["pointer"]
        == "/name"
    )
    problem(client.get(f"{API}/999999"), 404)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"for_s": -1, "reason": "known"}, "/for_s"),
        ({"for_s": 60, "reason": " "}, "/reason"),
        ({"for_s": 60}, "/reason"),
        ({"for_s": 60, "reason": "known", "until": "2099"}, "/until"),
    ],
)
def test_api__bad_silence__problem_names_the_field(body, pointer):
    alert, client = firing(), client_of(roles.OPERATOR)
    for path in (f"{API}/{alert.pk}/silence", f"{API}/silences"):
        assert pointer in {error["pointer"] for error in problem(post(client, path, body), 400)["errors"]}
    unknown = post(client, f"{API}/silences", {"for_s": 60, "reason": "x", "rule": "nobody"})
    assert problem(unknown, 400)["errors"][0]["pointer"] == "/rule"
    unknown = post(client, f"{API}/silences", {"for_s": 60, "reason": "x", "queue": "nobody"})
    assert problem(unknown, 400)["errors"][0]["pointer"] == "/queue"
    assert not Silence.objects.exists()


def test_api__silences__those_that_stand_when_they_are_asked_for():
    client, now = client_of(roles.VIEWER), clock.now()
    for until in (now, later(60)):
        Silence.objects.create(until=until, reason="known", actor="ada")
    for query, count in (("", 2), ("?standing=false", 2), ("?standing=true", 1)):
        assert len(client.get(f"{API}/silences{query}").json()["results"]) == count
    problem(client.get(f"{API}/silences?standing=maybe"), 400)


def test_api__what_is_over__conflict():
    alert, client = firing(), client_of(roles.OPERATOR)
    alert_rules.change(AlertRule.objects.get(), threshold=1e6, **WHO)
    alerting.look()
    problem(post(client, f"{API}/{alert.pk}/silence", {"for_s": 60, "reason": "known"}), 409)
    over = silences.end(silences.silence(until=later(60), reason="known", **WHO), **WHO)
    problem(post(client, f"{API}/silences/{over.pk}/end"), 409)


@pytest.mark.parametrize("path", [API, f"{API}/silences", "alert", "alertrule", "silence", "notice"])
def test_lists__ten_times_the_rows__as_many_queries(path):
    client, made = client_of(roles.VIEWER), rule()
    url = path if path.startswith("/") else reverse(f"admin:queue_app_{path}_changelist")

    def queries(count: int) -> int:
        for n in range(count):
            name = f"{count} {n}"
            rule(name=name)
            silences.silence(until=later(60), reason="known", rule=made, **WHO)
            now = later(0)
            Alert.objects.create(
                rule=made, name=name, state="firing", value=1, since=now, fired_at=now, open_key=name
            )
            notices.write([notice_channels.Channel("mail:a@example.com")], [], now)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(url).status_code == 200
        return len(captured)

    queries(1)
    assert queries(2) == queries(20) <= 12


# --- admin -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "sees", "acts", "makes"),
    [
        (None, False, False, False),
        (roles.VIEWER, True, False, False),
        (roles.OPERATOR, True, True, False),
        (roles.ADMIN, True, True, True),
    ],
)
def test_admin__role__sees_and_acts_as_in_the_matrix(role, sees, acts, makes):
    alert, client = firing(), client_of(role)
    lists = [
        reverse(f"admin:queue_app_{name}_changelist") for name in ("alert", "alertrule", "silence", "notice")
    ]
    for url in (*lists, page("alert", alert)):
        assert (client.get(url).status_code == 200) is sees
    quiet = reverse("admin:queue_app_alert_silence_this", args=[alert.pk])
    assert client.post(quiet, CONFIRMED | QUIET).status_code == (302 if acts else 403)
    loud = reverse("admin:queue_app_alert_unsilence_this", args=[alert.pk])
    assert client.post(loud, CONFIRMED).status_code == (302 if acts else 403)
    own = silences.silence(until=later(60), reason="own", **WHO)
    client.post(lists[2], {"action": "end_selected", "_selected_action": [own.pk]})
    add = reverse("admin:queue_app_alertrule_add")
    assert client.post(add, form()).status_code == (302 if makes else 403)
    assert audited() == (["silence.create", "silence.end", "silence.end"] if acts else []) + (
        ["alert_rule.create"] if makes else []
    )
    for name in ("alert", "silence", "notice"):
        assert client.get(reverse(f"admin:queue_app_{name}_add")).status_code == 403


def test_admin__alert__says_what_fires_and_offers_what_can_be_done():
    alert, client = firing(), client_of(roles.OPERATOR)
    quiet, loud = (
        reverse(f"admin:queue_app_alert_{name}_this", args=[alert.pk]) for name in ("silence", "unsilence")
    )
    shown = client.get(page("alert", alert)).content.decode()
    assert "the oldest due job has waited" in shown
    assert quiet in shown
    assert loud not in shown
    client.post(quiet, CONFIRMED | QUIET)
    shown = client.get(page("alert", alert)).content.decode()
    assert "known" in shown
    assert loud in shown
    assert quiet not in shown
    listed = client.get(reverse("admin:queue_app_alert_changelist")).content.decode()
    assert reverse("admin:queue_app_alert_to_rules") in listed
    assert client.get(reverse("admin:queue_app_alert_to_rules")).status_code == 302


def test_admin__alerts__say_who_is_told_and_when_somebody_looked(settings):
    client, listed = client_of(roles.VIEWER), reverse("admin:queue_app_alert_changelist")
    shown = client.get(listed).content.decode()
    assert "Nobody is told of what fires" in shown
    assert "never looked at yet" in shown
    conf(settings, ALERT_MAIL=("ops@example.com",), ALERT_WEBHOOKS=("https://example.com/secret",))
    alerting.look()
    shown = client.get(listed).content.decode()
    assert "mail:ops@example.com are told of what fires" in shown
    assert "looked at last on 20" in shown
    assert "/secret" not in shown


def test_admin__notice_is_given_up__is_told_of_found_and_sent_again(settings):
    with hooked(settings) as hook:
        hook.answers = [404]
        rule()
        late_job()
        alerting.look()
        notices.send_due()
        row, client = Notice.objects.get(), client_of(roles.OPERATOR)
        listed = reverse("admin:queue_app_notice_changelist")
        told = client.get(reverse("admin:queue_app_alert_changelist")).content.decode()
        assert f"1 notice to {row.channel}</a> was given up within a day: HTTP 404." in told
        for status, is_shown in (("given up", True), ("sent", False), ("waits", False)):
            shown = client.get(listed, {"status": status}).content.decode()
            assert (str(row.pk) in shown) is is_shown
        client.post(listed, {"action": "send_again", "_selected_action": [row.pk]})
        notices.send_due()
        assert Notice.objects.get().status == "sent"
    assert audited()[-1:] == ["notice.resend"]


def test_command__notice_is_given_up__listed_and_sent_again(run, settings):
    with hooked(settings) as hook:
        hook.answers = [404]
        rule()
        late_job()
        alerting.look()
        notices.send_due()
        assert [one["last_error"] for one in run("notices", "--given-up", "--json")] == ["HTTP 404"]
        assert run("resend", "nobody", "--json") == {"resent": 0}
        assert run("resend", hook_name := Notice.objects.get().channel, "--json") == {"resent": 1}
        notices.send_due()
        assert run("notices", "--given-up", "--json") == []
        assert [(one["channel"], one["status"]) for one in run("notices", "--json")] == [(hook_name, "sent")]


def test_admin__rule_added_changed_deleted__through_the_noun_and_audited():
    client = client_of(roles.ADMIN)
    assert client.post(reverse("admin:queue_app_alertrule_add"), form()).status_code == 302
    made = AlertRule.objects.get()
    assert client.post(page("alertrule", made), form(threshold=90)).status_code == 302
    assert AlertRule.objects.get().threshold == 90
    delete = reverse("admin:queue_app_alertrule_delete", args=[made.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 302
    assert not AlertRule.objects.exists()
    assert audited() == ["alert_rule.create", "alert_rule.change", "alert_rule.delete"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"threshold": 0}, "a number above 0"),
        ({"condition": "failures", "threshold": 60}, "a share above 0"),
        ({"queue": "emial_queue"}, "did you mean"),
        ({"condition": "schedule", "queue": QUEUE}, "is about no queue"),
        ({"window_s": 5}, "from 60 to"),
        ({"name": "a/b"}, "letters, digits"),
    ],
)
def test_admin__bad_field__says_so_beside_it_and_stores_nothing(fields, told):
    answer = client_of(roles.ADMIN).post(reverse("admin:queue_app_alertrule_add"), form(**fields))
    assert answer.status_code == 200
    assert told in answer.content.decode()
    assert not AlertRule.objects.exists()


# --- command ---------------------------------------------------------------------------------------------------------------
@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        if code:
            with pytest.raises(SystemExit) as ended:
                call_command("queue", "alerts", *arguments)
            assert ended.value.code == code
        else:
            call_command("queue", "alerts", *arguments)
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    return call


def test_command__life_of_an_alert__each_verb_does_its_part(run, settings):
    assert run("--json") == []
    terms = ["--condition", "latency", "--threshold", "60", "--for", "0", "--clear", "0"]
    assert run("set", "late", *terms, "--json")["threshold"] == 60
    assert run("set", "late", "--threshold", "30", "--repeat", "0", "--json")["repeat_s"] == 0
    late_job()
    with hooked(settings) as hook:
        (row,) = run("check", "--json", code=DEGRADED)
        assert (row["name"], row["state"]) == ("late", "firing")
        assert len(hook.received) == 1
    assert "1 firing; last looked at" in run(code=DEGRADED)
    quiet = run("silence", "--rule", "late", "--queue", QUEUE, "--for", "2h", "--reason", "known", "--json")[
        "id"
    ]
    assert [row["rule"] for row in run("silences", "--json")] == ["late"]
    over = Silence.objects.create(until=clock.now(), reason="old", actor="ada")
    with pytest.raises(Failed, match="is over"):
        run("unsilence", str(quiet), str(over.pk))
    assert len(run("silences", "--json")) == 1
    assert run("unsilence", str(quiet), "--json") == {"ended": [quiet]}
    assert run("set", "late", "--off", "--json")["enabled"] is False
    run("check")
    assert [row["state"] for row in run("list", "--all", "--json")] == ["resolved"]
    with pytest.raises(Failed, match="nothing was deleted"):
        run("delete", "late")
    assert run("delete", "late", "--yes", "--json") == {"deleted": "late"}
    assert run("rules", "--json") == []


def test_command__test__sends_one_to_the_channel_that_is_named(run, settings):
    with hooked(settings) as hook:
        (channel,) = run("test", "--json")
        sent = run("test", channel["channel"], "--json")
        assert hook.received[0].body["status"] == "test"
        assert hook.received[0].body["id"] == sent["notice"]
        hook.answers = [500]
        with pytest.raises(Failed, match="did not take it: HTTP 500") as ended:
            run("test", channel["channel"])
        assert ended.value.returncode == FAILED
        with pytest.raises(Failed, match="no channel is called 'nobody'") as ended:
            run("test", "nobody")
        assert ended.value.returncode == USAGE
    assert [*Notice.objects.values_list("next_at", flat=True)] == [None, None]
    assert AuditEntry.objects.filter(action="notice.test").count() == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["set", "late"], "needs --condition and --threshold"),
        (["set", "late", "--condition", "latency", "--threshold", "-1"], "threshold"),
        (["set", "latency", "--queue", "nobody"], "no queue is called"),
        (["silence", "--for", "soon", "--reason", "x"], "not a span"),
        (["silence", "--for", "2h", "--reason", " "], "say why"),
        (["silence", "--for", "2h", "--reason", "x", "--queue", "email_quue"], "did you mean 'email_queue'"),
        (["silence", "--rule", "nobody", "--for", "2h", "--reason", "x"], "no rule 'nobody'"),
        (["unsilence", "99999"], "no silence 99999"),
        (["delete", "nobody", "--yes"], "no rule 'nobody'"),
    ],
)
def test_command__bad_input__one_line_and_nothing_changed(run, arguments, told):
    rule()
    with pytest.raises(Failed, match=told):
        run(*arguments)
    assert [*AlertRule.objects.values_list("name", "queue")] == [("latency", "")]
    assert not Silence.objects.exists()


# --- checks ----------------------------------------------------------------------------------------------------------------
def test_checks__channels__named_without_their_secrets(settings):
    conf(settings, ALERT_WEBHOOKS=("https://hooks.example.com/secret", "http://user:secret@example.com/"))
    conf(settings, ALERT_MAIL=("ops@example.com", "nobody"))
    found = checks.alerts_can_be_told(None)
    assert [message.id for message in found] == ["queue.E012", "queue.E013"]
    assert "number 2" in found[0].msg
    assert "secret" not in found[0].msg
    conf(settings, ALERT_WEBHOOKS=("http://169.254.169.254/",), ALERT_MAIL=())
    assert [message.id for message in checks.alerts_can_be_told(None)] == ["queue.E012"]
