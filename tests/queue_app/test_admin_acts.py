"""What an operator does to one job in the admin: mend its payload, run it now, cancel it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from foundation.models import AuditEntry
from queue_app.states import State
from tests.foundation.people import client_of

from .dead_letters import PAYLOAD, job, standing

pytestmark = pytest.mark.django_db
CONFIRMED = {"_form_submitted": "True"}


def payload_page(one):
    return reverse("admin:queue_app_job_payload", args=[one.pk])


def test_payload__mended_and_replayed__in_one_step_with_its_difference_on_record():
    dead, client = job(), client_of(roles.OPERATOR)
    assert b"a@example.com" in client.get(payload_page(dead)).content
    text = json.dumps({**PAYLOAD, "to": "b@example.com"})
    answer = client.post(payload_page(dead), {"payload": text, "_replay": "1"}, follow=True)
    assert "Changed: to. Replayed" in answer.content.decode()
    dead.refresh_from_db()
    assert (dead.state, dead.payload["to"]) == ("PENDING", "b@example.com")
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True))[-2:] == [
        "job.edit",
        "job.replay",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "This is not JSON"),
        pytest.param("[" * 100_000, "This is not JSON", id="deep"),
        ("[1]", "A payload is a JSON object"),
        ('{"to": "••••••"}', "is dots"),
    ],
)
def test_payload__bad__told_beside_what_was_typed_and_nothing_changed(text, told):
    dead, client = job(), client_of(roles.OPERATOR)
    answer = client.post(payload_page(dead), {"payload": text, "_replay": "1"})
    assert (answer.status_code, told in answer.content.decode()) == (200, True)
    assert answer.context["form"]["payload"].value() == text
    dead.refresh_from_db()
    assert (dead.state, dead.payload) == ("DEAD_LETTER", PAYLOAD)


def test_payload__not_dead_or_no_operator__refused():
    waiting = job(State.PENDING)
    answer = client_of(roles.OPERATOR).post(payload_page(waiting), {"payload": "{}"})
    assert "not DEAD_LETTER" in answer.content.decode()
    assert client_of(roles.VIEWER).post(payload_page(job()), {"payload": "{}"}).status_code == 403


def test_run_and_cancel__as_the_state_allows__offered_and_done():
    later = job(State.FAILED, run_after=timezone.now() + timedelta(hours=1))
    client = client_of(roles.OPERATOR)
    run = reverse("admin:queue_app_job_run_this", args=[later.pk])
    cancel = reverse("admin:queue_app_job_cancel_this", args=[later.pk])
    page = client.get(reverse("admin:queue_app_job_change", args=[later.pk])).content.decode()
    assert (run in page, cancel in page, "replay-this" in page) == (True, True, False)
    client.get(run)
    assert standing(later) == ["FAILED"]
    client.post(run, CONFIRMED)
    later.refresh_from_db()
    assert later.run_after <= timezone.now()
    client.post(cancel, {**CONFIRMED, "force": "on"})
    assert standing(later) == ["CANCELLED"]
    answer = client.post(cancel, CONFIRMED, follow=True)
    assert "there is nothing to cancel" in answer.content.decode()
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {"job.run_now", "job.cancel"}


def test_selected__run_and_cancel__those_that_can():
    later = job(State.FAILED, run_after=timezone.now() + timedelta(hours=1))
    over, client = job(State.COMPLETED), client_of(roles.OPERATOR)
    chosen = [str(later.pk), str(over.pk)]
    jobs = reverse("admin:queue_app_job_changelist")
    answer = client.post(jobs, {"action": "run_selected", "_selected_action": chosen}, follow=True)
    assert "1 due now." in answer.content.decode()
    client.post(jobs, {"action": "cancel_selected", "_selected_action": chosen})
    assert standing(later, over) == ["CANCELLED", "COMPLETED"]
