"""The admin as a whole: its door, its first page, its sidebar, and what every page's head says."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import escape
from django.views.defaults import server_error

from brain_project import overview
from foundation import audit, roles
from foundation.models import AuditEntry
from gateway.admin.consumers import ConsumerAdmin
from gateway.models import Configuration
from orm_app.models import User
from queue_app import clock, enqueue, queues, rollups
from queue_app.histograms import bucket
from queue_app.models import Alert, Job, Rollup

pytestmark = pytest.mark.django_db


def client_of(role: str | None) -> Client:
    user = User.objects.create_user("ann", "ann@example.com", "pw-of-somebody", is_staff=True)
    if role:
        roles.grant(user, role)
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(
    ("opened", "lands_at"),
    [
        ("/admin/login/", "/admin/"),
        ("/admin/login/?next=/admin/queue_app/job/", "/admin/queue_app/job/"),
        ("/admin/login/?next=https://elsewhere.example/", "/admin/"),
    ],
)
def test_login__form_sent_as_a_browser_does__lands_inside_the_admin(opened, lands_at):
    client_of(roles.VIEWER)
    client = Client()
    form = client.get(opened).content.decode()
    hidden = re.search(r'<input type="hidden" name="next" value="([^"]*)" form="login-form">', form)
    fields = {"username": "ann", "password": "pw-of-somebody"}
    if hidden:
        fields["next"] = hidden[1]
    assert client.post(opened, fields).headers["Location"] == lands_at


def test_overview__viewer__figures_and_latest_changes():
    enqueue("email_queue", {"to": "a@example.com", "subject": "s", "task_id": 1})
    Job.objects.update(state="DEAD_LETTER")
    entry = audit.record(actor="<b>bob</b>", action="job.replay", target="queue_app.Job:1", source="cli")
    client = client_of(roles.VIEWER)
    text = client.get("/admin/").content.decode()
    assert "Overview" in text
    assert re.search(r'id="site-name">\s*<a href="/admin/">\s*Brain Platform', text)
    assert "Site administration" not in text
    assert re.search(r'state=DEAD_LETTER".*?brain-bad">1<', text, re.DOTALL)
    assert reverse("admin:foundation_auditentry_change", args=[entry.pk]) in text
    assert "&lt;b&gt;bob" in text
    assert client.get(reverse("admin-overview")).status_code == 200


def test_overview__queue__from_statistics_in_a_fixed_number_of_queries(monkeypatch):
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    counts = []
    for number in range(10):
        enqueue("email_queue", {"to": "a@example.com", "subject": "s", "task_id": 1})
        ran = {"completed": 40, "failed": 10, "wait": {str(bucket(2.0)): 50}}
        for step_s, at in ((60, rollups.floor(now, 60) - timedelta(minutes=2)), (0, rollups.EPOCH)):
            Rollup.objects.create(step_s=step_s, at=at, queue=f"q{number}", name="t", **ran)
        if number in (0, 9):
            with CaptureQueriesContext(connection) as asked:
                cards = {card.label: card for card in overview._queue()}
            counts.append(len(asked))
    assert counts[0] == counts[1] <= 10
    assert sum('FROM "queue_app_job"' in query["sql"] for query in asked) == 2  # open ones, oldest
    assert (cards["Pending"].value, cards["Completed"].value) == ("10", "400")
    assert (cards["Runs"].value, cards["Wait p95"].value) == ("100 / min", "2 s")
    assert (cards["Failure rate"].value, cards["Failure rate"].tone) == ("20 %", "bad")
    assert (cards["Schedules"].value, cards["Schedules"].tone) == ("on time", "")
    assert all(card.link for card in cards.values())


def test_overview__nothing_yet__dashes_and_noughts():
    cards = {card.label: card.value for card in overview._queue()}
    assert (cards["Runs"], cards["Wait p95"], cards["Failure rate"], cards["Oldest due"]) == (
        "0 / min",
        "–",
        "–",
        "0 s",
    )


def test_overview__no_role__no_figure_and_no_fragment():
    client = client_of(None)
    assert b"brain-card" not in client.get("/admin/").content
    assert client.get(reverse("admin-overview")).status_code == 403
    assert Client().get(reverse("admin-overview")).status_code == 302


def test_sidebar__viewer__every_entry_leads_to_a_page():
    client = client_of(roles.VIEWER)
    links = set(re.findall(r'href="(/admin/[a-z_]+/[a-z]+/)"', client.get("/admin/").content.decode()))
    assert len(links) >= 11
    for link in links:
        assert client.get(link).status_code == 200, link


def test_head__name_in_lower_case__stays_as_it_is():
    queues.create_queue("email_queue")
    url = reverse("admin:queue_app_queue_change", args=["email_queue"])
    text = client_of(roles.VIEWER).get(url).content.decode()
    assert "Email_queue" not in text
    assert "Queues" in text


def test_list__how_many__told_where_a_filter_hides_some():
    for number in range(3):
        queues.create_queue(f"q{number}")
    client, url = client_of(roles.VIEWER), reverse("admin:queue_app_queue_changelist")
    assert b"Show all" not in client.get(url).content
    assert b"Show all" in client.get(url, {"q": "q1"}).content


def test_audit_log__target_with_a_page__linked_and_others_plain():
    queue = queues.create_queue("email_queue")
    audit.record(actor="bob", action="key.create", target="gateway.ApiKey:1", source="cli")
    audit.record(actor="bob", action="x.y", target="<b>:<i>", source="cli", request_id="r" * 40)
    text = client_of(roles.VIEWER).get(reverse("admin:foundation_auditentry_changelist")).content.decode()
    assert f'href="{reverse("admin:queue_app_queue_change", args=[queue.pk])}"' in text
    assert "gateway.ApiKey:1" in text
    assert "gateway_apikey" not in text
    assert "&lt;b&gt;:&lt;i&gt;" in text
    assert AuditEntry.objects.count() == 3


def test_overview__an_alert_fires__is_named_and_leads_to_the_list():
    client = client_of(roles.VIEWER)
    assert "nothing fires" in client.get("/admin/overview/").content.decode()
    moment = clock.now()
    told = {
        "name": "slow-mail",
        "condition": "latency",
        "queue": "emails",
        "state": "firing",
        "value": 400.0,
        "open_key": "k",
    }
    Alert.objects.create(**told, since=moment, fired_at=moment)
    text = client.get("/admin/overview/").content.decode()
    assert re.search(r'href="/admin/queue_app/alert/">.*?brain-bad">1<.*?slow-mail', text, re.DOTALL)


@pytest.mark.parametrize(
    ("role", "address", "status", "told"),
    [
        (roles.VIEWER, "/admin/nothing/", 404, "There is nothing at this address"),
        (roles.VIEWER, "/admin/gateway/tokencut/cut/", 403, "Your role does not allow it."),
    ],
)
def test_error__in_the_admin__a_page_with_an_icon_and_a_way_back(role, address, status, told):
    answer = client_of(role).get(address)
    text = answer.content.decode()
    assert answer.status_code == status
    assert told in text
    assert 'rel="icon"' in text  # without, a browser asks for /favicon.ico, which is the gateway's
    assert 'href="/admin/"' in text


def test_error__of_a_form_from_another_session__says_what_to_do():
    client = Client(enforce_csrf_checks=True)
    answer = client.post("/admin/login/", {"username": "ann"})
    assert answer.status_code == 403
    assert "Load its page again" in answer.content.decode()


def test_error__of_ours__a_page_that_needs_nothing():
    text = server_error(RequestFactory().get("/admin/")).content.decode()
    assert "Something went wrong on our side" in text
    assert 'rel="icon"' in text


def test_list__without_a_row__says_what_would_be_in_it():
    client = client_of(roles.VIEWER)
    for model, page in admin.site._registry.items():
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        if model.objects.exists() or model in (Rollup, Configuration):  # these are no lists
            continue
        text = client.get(address).content.decode()
        assert page.when_empty, model
        assert escape(page.when_empty) in text
        assert "Show all" not in text


def test_list__search_without_a_match__leads_back_to_all():
    text = client_of(roles.VIEWER).get("/admin/gateway/consumer/", {"q": "nobody"}).content.decode()
    assert "None of the consumers matches" in text
    assert ConsumerAdmin.when_empty not in text
    assert re.search(r'<a href="\?".*?Show all', text, re.DOTALL)


@pytest.mark.parametrize(
    ("app", "names"), [("gateway", ["Test a request", "History", "Settings"]), ("auth", ["Roles"])]
)
def test_index_of_an_app__names_as_in_the_sidebar(app, names):
    text = client_of(roles.VIEWER).get(f"/admin/{app}/").content.decode()
    listed = re.search(r'<ul class="brain-index">(.*?)</ul>', text, re.DOTALL)
    found = re.findall(r'href="(.*?)">(.*?)</a>', listed[1])
    assert set(names) <= {title for _, title in found}
    assert all(link.startswith(f"/admin/{app}/") for link, _ in found)
