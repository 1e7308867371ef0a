"""The page of statistics: what it shows, whom it lets in, what it asks of the database."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from foundation import roles
from queue_app import queues, rollups
from queue_app.admin import statistics
from queue_app.histograms import bucket
from queue_app.models import Rollup
from queue_app.states import State
from tests.foundation.people import client_of

from . import counted
from .dead_letters import job

pytestmark = pytest.mark.django_db

PAGE = "/admin/queue_app/rollup/"
LIVE = f"{PAGE}live/"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    statistics._kept.clear()


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER)


def put(
    queue: str, name: str = "send", *, minutes_ago: int = 3, tenant: str = "", step_s: int = 60, **counts: int
) -> None:
    at = (
        rollups.EPOCH
        if not step_s
        else rollups.floor(timezone.now() - timedelta(minutes=minutes_ago), step_s)
    )
    runs = {bucket(0.5): counts.get("completed", 0)}
    counted.put(step_s, at, queue, name, tenant, run=runs, wait=runs, **counts)


def document(answer: Any) -> Any:
    """What the script of the page draws."""
    found = re.search(
        r'<script id="brain-chart-data" type="application/json">(.*?)</script>', answer.content.decode()
    )
    return json.loads(found[1])


def lines(answer: Any, chart: str) -> dict[str, list[float | None]]:
    (found,) = [one for one in document(answer)["charts"] if one["id"] == chart]
    return {line["name"]: line["values"] for line in found["lines"]}


def rows(answer: Any) -> list[str]:
    return [f"{found['row'].queue}/{found['row'].task}" for found in answer.context["rows"]]


# --- who may look ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("role", "status"), [(None, 403), (roles.VIEWER, 200), (roles.ADMIN, 200)])
def test_page__role__viewers_look_and_others_do_not(role, status):
    client = client_of(role)
    assert [client.get(url).status_code for url in (PAGE, LIVE)] == [status, status]


def test_page__not_logged_in__asked_to():
    assert [Client().get(url).status_code for url in (PAGE, LIVE)] == [302, 302]


def test_page__anything_but_looking__has_no_address(viewer):
    put("mail", completed=1)
    row = Rollup.objects.get()
    for path in ("add/", f"{row.pk}/change/", f"{row.pk}/delete/"):
        assert viewer.get(PAGE + path).status_code == 404


# --- what it shows --------------------------------------------------------------------------------------------------------
def test_page__an_hour__charts_in_steps_of_a_minute_and_a_table(viewer):
    put("mail", completed=1200, failed=3, dead=1)
    put("pay", completed=5, minutes_ago=90)
    answer = viewer.get(PAGE)
    throughput = lines(answer, "throughput")
    assert len(document(answer)["labels"]) == len(throughput["completed"]) == 61
    assert (sum(throughput["completed"]), sum(throughput["failed"]), sum(throughput["dead"])) == (1200, 3, 1)
    assert max(filter(None, lines(answer, "run")["p95"])) == pytest.approx(0.5, rel=0.05)
    assert rows(answer) == ["mail/send"]
    text = answer.content.decode()
    assert ">1.2k<" in text  # runs
    assert ">0.3 %<" in text
    assert 'aria-label="Runs per minute. ' in text


def test_page__queue_task_and_tenant__narrow_charts_and_table(viewer):
    put("mail", completed=1, tenant="acme")
    put("mail", "other", completed=2)
    put("pay", completed=4)
    shown = {
        query: (sum(lines(answer, "throughput")["completed"]), rows(answer))
        for query in ("queue=mail", "name=send", "queue=mail&name=send&tenant=acme")
        if (answer := viewer.get(f"{LIVE}?{query}"))
    }
    assert shown == {
        "queue=mail": (3, ["mail/other", "mail/send"]),
        "name=send": (5, ["pay/send", "mail/send"]),
        "queue=mail&name=send&tenant=acme": (1, ["mail/send"]),
    }


@pytest.mark.parametrize(
    ("sort", "order"), [("queue", ["a", "b"]), ("-queue", ["b", "a"]), ("runs", ["b", "a"])]
)
def test_page__sorted__by_the_column_and_its_head_says_so(viewer, sort, order):
    put("a", completed=9)
    put("b", completed=1)
    answer = viewer.get(PAGE, {"sort": sort, "since": "6h"})
    assert [row.split("/")[0] for row in rows(answer)] == order
    text = answer.content.decode()
    assert text.count("aria-sort=") == 1
    assert f"since=6h&amp;sort={sort}" in text  # the fragment is asked for likewise


def test_page__a_row__leads_to_its_jobs_and_to_its_own_charts(viewer):
    job(State.COMPLETED)
    put("email_queue", "tasks_service.send_email", completed=1)
    answer = viewer.get(PAGE, {"since": "24h"})
    (found,) = answer.context["rows"]
    assert found["of_task"] == "?since=24h&queue=email_queue&name=tasks_service.send_email"
    jobs = viewer.get(found["jobs"])
    assert (jobs.status_code, jobs.context["cl"].result_count) == (200, 1)
    assert viewer.get(PAGE + found["of_task"]).context["is_filtered"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"since": "yesterday"}, "since"), ({"since": "401d"}, "since"), ({"step": "7s"}, "step"), ({"queu": "mail"}, "queu"),
        ({"sort": "colour"}, "sort"), ({"since": SCRIPT}, "since"), ({SCRIPT: "x"}, SCRIPT),
    ],
)  # fmt: skip
def test_page__nonsense__says_which_field_and_shows_the_last_hour(viewer, query, field):
    put("mail", completed=3)
    answer = viewer.get(PAGE, query)
    assert answer.status_code == 400
    assert list(answer.context["asked"].errors) == [field]
    assert sum(lines(answer, "throughput")["completed"]) == 3
    assert SCRIPT not in answer.content.decode()
    assert viewer.get(LIVE, query).status_code == 400


def test_page__names_with_markup__are_text(viewer):
    put(SCRIPT, SCRIPT, completed=1)
    put(SCRIPT, SCRIPT, step_s=0, completed=1)
    for url in (PAGE, LIVE):
        assert SCRIPT not in viewer.get(url).content.decode()


def test_live__the_fragment__has_cards_table_and_data_but_no_page(viewer):
    put("mail", completed=1)
    queues.create_queue("mail")
    text = viewer.get(LIVE).content.decode()
    assert "<html" not in text
    assert 'id="brain-queues" hx-swap-oob="innerHTML"' in text
    assert "canvas" not in text  # they stay: data of the existing charts is changed
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


# --- how the queues stand -------------------------------------------------------------------------------------------------
def test_cards__queues__depth_latency_and_the_last_hour(viewer):
    job(), job(State.PENDING), job(State.FAILED), job(State.PROCESSING)
    put("email_queue", completed=7, failed=1)
    (card,) = [card for card in viewer.get(PAGE).context["cards"] if card["queue"] == "email_queue"]
    assert [(count["title"], count["text"]) for count in card["counts"]] == [
        ("Waiting", "2"), ("Running", "1"), ("Dead", "1"),
    ]  # fmt: skip
    assert "8 runs in the last hour, 8 in its busiest minute" in card["spark"]
    for count in card["counts"]:
        assert viewer.get(count["link"]).context["cl"].result_count == int(count["text"])


def test_cards__more_queues_than_fit__those_with_a_backlog_are_shown(viewer):
    for number in range(30):
        queues.create_queue(f"q{number:02}")
    job(State.PENDING, queue="q29")
    answer = viewer.get(PAGE)
    assert len(answer.context["cards"]) == 24
    assert answer.context["cards"][-1]["queue"] == "q29"
    assert f"and {answer.context['more']} more" in answer.content.decode()


# --- nothing to show ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "counts", "said"),
    [
        ("", True, "or enqueue a job"),
        ("?queue=mail", True, "Show all queues, tasks and tenants"),
        ("", False, "The counting is switched off"),
    ],
)
def test_page__nothing_ran__says_what_to_do(viewer, settings, query, counts, said):
    settings.BRAIN = {**settings.BRAIN, "QUEUE": {**settings.BRAIN.get("QUEUE", {}), "ROLLUPS": counts}}
    answer = viewer.get(PAGE + query)
    assert said in answer.content.decode()
    assert document(answer)["is_empty"]


# --- what it costs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("url", [PAGE, LIVE])
def test_page__one_queue_or_many__as_many_queries_and_no_job_that_is_over_is_counted(viewer, url):
    counts = []
    for number in range(20):
        put(f"q{number}", completed=1)
        put(f"q{number}", step_s=0, completed=1)
        queues.create_queue(f"q{number}")
        if number in (0, 19):
            with CaptureQueriesContext(connection) as asked:
                viewer.get(url)
            counts.append(len(asked))
    assert counts[0] == counts[1]
    assert counts[1] <= 12
    of_jobs = [query["sql"] for query in asked if 'FROM "queue_app_job"' in query["sql"]]
    assert len(of_jobs) == 2  # open ones by their partial index, and the oldest that are due
    assert not any('"payload"' in sql for sql in of_jobs)


def test_live__a_long_time_asked_for_again__is_read_once_in_its_interval(viewer):
    put("mail", completed=1)
    viewer.get(LIVE, {"since": "24h"})
    put("pay", completed=1)
    assert rows(viewer.get(LIVE, {"since": "24h"})) == ["mail/send"]
    assert rows(viewer.get(LIVE, {"since": "1h"})) == ["mail/send", "pay/send"]
