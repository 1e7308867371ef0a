"""The charts of the queue's statistics in a browser: drawn in light and dark, kept when new data comes, without an error."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.utils import quote
from django.test import Client
from django.utils import timezone

from foundation import roles
from orm_app.models import User
from queue_app import queues, rollups
from queue_app.histograms import bucket
from queue_app.models import Rollup

from .browser import fits, is_drawn
from .browser import page as browser_page

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

CHARTS = ["failures", "run", "throughput", "wait"]


@pytest.fixture
def session() -> str:
    """Of a viewer who is logged in; made before the browser, in whose thread Django refuses to ask the database."""
    viewer = User.objects.create_user("ann", "ann@example.com", is_staff=True)
    roles.grant(viewer, roles.VIEWER)
    client = Client()
    client.force_login(viewer)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@pytest.fixture
def counted() -> None:
    queues.create_queue("email_queue")
    now = rollups.floor(timezone.now(), 60)
    for minute in range(30):
        runs = {str(bucket(0.05 * (minute + 1))): 5, str(bucket(2.0)): 1}
        Rollup.objects.create(
            step_s=60, at=now - timedelta(minutes=minute), queue="email_queue", name="send", started=6, completed=5,
            failed=1, wait=runs, run=runs,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "dark"),
    [("rollup/", False), ("rollup/", True), (f"queue/{quote('email_queue')}/change/", True)],
)
def test_charts__page__drawn_and_kept_over_a_refresh_without_an_error(
    live_server, session, counted, path, dark
):
    problems: list[str] = []
    with browser_page(dark=dark) as page:
        page.on(
            "console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        _log_in(page, live_server.url, session)
        page.goto(f"{live_server.url}/admin/queue_app/{path}")
        page.wait_for_function("window.brainCharts && window.brainCharts.size === 4")
        assert sorted(page.evaluate("[...brainCharts.keys()]")) == CHARTS
        for name in CHARTS:
            is_drawn(page, name)
        assert page.evaluate("document.documentElement.classList.contains('dark')") is dark
        axis = page.evaluate("brainCharts.get('wait').options.scales.x.ticks.color")
        assert axis == ("#9ca3af" if dark else "#4b5563")

        page.evaluate("window.before = new Map(brainCharts)")
        page.locator("[data-chart=wait]").get_by_role("button", name="p99").click()
        page.evaluate(
            "window.settled = 0; document.addEventListener('htmx:afterSettle', () => { window.settled += 1; })"
        )
        with page.expect_response(lambda answer: "/live/" in answer.url) as refreshed:
            pass
        assert refreshed.value.status == 200
        page.wait_for_function("window.settled > 0")
        assert page.evaluate("[...brainCharts].every(([name, chart]) => before.get(name) === chart)")
        assert page.evaluate("brainCharts.get('wait').isDatasetVisible(2)") is False

        page.locator("[data-chart=throughput] canvas").focus()
        page.keyboard.press("Home")
        assert "completed" in page.locator("[data-chart=throughput] .brain-spoken").inner_text()
        page.set_viewport_size({"width": 390, "height": 800})
        fits(page)
    assert problems == []


def test_charts__nothing_counted__says_what_to_do(live_server, session):
    with browser_page() as page:
        _log_in(page, live_server.url, session)
        page.goto(f"{live_server.url}/admin/queue_app/rollup/")
        page.get_by_text("Nothing ran in the last hour.").wait_for()
        assert not page.locator(".brain-charts").is_visible()


def _log_in(page: Any, site: str, session: str) -> None:
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": site}])
