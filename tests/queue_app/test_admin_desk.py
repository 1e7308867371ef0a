from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from foundation import roles
from queue_app.models import Replay

from .dead_letters import client_of, job

pytestmark = pytest.mark.django_db
DESK, START = "admin:queue_app_replay_changelist", "admin:queue_app_replay_start"
KEY = "0123456789abcdef"


def test_desk__failures_and_their_jobs__as_many_queries_for_one_as_for_ten():
    client = client_of(roles.VIEWER)
    counts = []
    for number in range(10):
        job(fingerprint=f"{KEY[:-1]}{number}")
        if number in (1, 9):
            with CaptureQueriesContext(connection) as queries:
                page = client.get(reverse(DESK))
            counts.append(len(queries))
    assert counts[0] == counts[1]
    assert b"OSError" in page.content
    assert b"Replay\xe2\x80\xa6" not in page.content  # a viewer acts on nothing
    jobs = client.get(reverse("admin:queue_app_job_changelist"), {"fingerprint": f"{KEY[:-1]}3"})
    assert jobs.context["cl"].result_count == 1


def test_start__asked_then_posted__replay_is_on_the_desk_and_can_be_stopped():
    client = client_of(roles.OPERATOR)
    job(fingerprint=KEY)
    asked = client.get(reverse(START), {"fingerprint": KEY})
    assert b"Replay 1 dead letter of" in asked.content
    assert not Replay.objects.exists()
    refused = client.post(reverse(START), {"fingerprint": KEY, "rate": "-1"})
    assert (refused.status_code, Replay.objects.exists()) == (200, False)
    client.post(reverse(START), {"fingerprint": KEY, "rate": "5"})
    row = Replay.objects.get()
    assert (row.rate, row.wanted, row.actor) == (5, 1, "some-operator")
    assert b"0 of 1" in client.get(reverse("admin:queue_app_replay_progress")).content
    client.get(reverse("admin:queue_app_replay_stop", args=[row.pk]))
    assert Replay.objects.get().finished_at is None
    client.post(reverse("admin:queue_app_replay_stop", args=[row.pk]))
    assert Replay.objects.get().is_stopped
    assert client.get(reverse("admin:queue_app_replay_change", args=[row.pk])).status_code == 200


@pytest.mark.parametrize("role", [None, roles.VIEWER])
def test_start_and_stop__no_operator__refused(role):
    client = client_of(role)
    job(fingerprint=KEY)
    assert client.post(reverse(START), {"fingerprint": KEY}).status_code in (302, 403)
    assert not Replay.objects.exists()
