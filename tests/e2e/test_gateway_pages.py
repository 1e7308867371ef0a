"""The gateway's live pages in a browser: charts drawn in colour, cells renewed in place, a dialog that acts."""

from __future__ import annotations

import functools
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from foundation import roles
from gateway import traffic
from gateway.admin import live
from gateway.models import Service, Target
from gateway.tally import Tally
from gateway.traffic import Traffic
from orm_app.models import User

from .browser import fits, is_drawn
from .browser import page as browser_page

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def session() -> str:
    """Of an operator who is logged in; made before the browser, in whose thread Django refuses to ask the database."""
    operator = User.objects.create_user("olga", "olga@example.com", is_staff=True)
    roles.grant(operator, roles.OPERATOR)
    client = Client()
    client.force_login(operator)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@pytest.fixture
def counted(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "read", functools.partial(traffic.read, prefix=prefix))
    tally = Tally()
    found = Traffic(tally, prefix=prefix)
    for status in (200, 301, 404, 502) * 10:
        tally.finished("/tasks", "billing", "a:80", "GET", status, "", 0.01, 0.005)
        found.count("ann", "/tasks", status)
    found.collect(time.time())
    assert found.send()


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    """Of which the fleet tells, from look to look, one request more."""
    made = Target.objects.create(service=Service.objects.create(name="billing"), url="http://127.0.0.1:9101")
    looks = iter(range(1, 1000))

    def board() -> live.Board:
        view = SimpleNamespace(
            process="p", inflight=1, breaker="open", why="<b>why", ejected_until=0.0, ewma_s=0.1
        )
        one = SimpleNamespace(
            service="billing", name="127.0.0.1:9101", state="active", health="healthy", health_reason="",
            checked_at=98.0, next_at=103.0, inflight=next(looks), breaker="open", ewma_s=0.1, panicked=0, views=(view,),
        )  # fmt: skip
        return live.Board([one], 100.0)

    monkeypatch.setattr(live, "board", board)
    return made


def test_pages__looked_at_and_acted_on__without_an_error(
    live_server: Any, session: str, counted: None, target: Target
) -> None:
    problems: list[str] = []
    with browser_page() as page:
        page.on(
            "console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}
        page.context.add_cookies([cookie])  # type: ignore[list-item]

        page.goto(f"{live_server.url}/admin/gateway/route/traffic/")
        page.wait_for_function("window.brainCharts && window.brainCharts.size === 3")
        for name in ("requests", "latency", "errors"):
            is_drawn(page, name)
        colours = "brainCharts.get('requests').data.datasets.map(line => line.backgroundColor)"
        assert len(set(page.evaluate(colours))) == 4

        page.goto(f"{live_server.url}/admin/gateway/target/")
        cell = page.locator(f"#live-inflight-{target.pk}")
        before = cell.inner_text()
        page.wait_for_function("([id, before]) => document.getElementById(id).innerText !== before", arg=[
            f"live-inflight-{target.pk}", before,
        ])  # fmt: skip
        assert page.locator(f"#live-reason-{target.pk}").inner_text() == "<b>why"
        assert page.locator(f"#live-breaker-{target.pk} .brain-tone-bad").count() == 1
        fits(page)

        page.locator(".field-actions_holder span.material-symbols-outlined").click()
        page.get_by_text("Drain", exact=True).locator("visible=true").click()
        page.get_by_role("button", name="Drain it").click()
        page.wait_for_function(
            "document.body?.innerText.includes('is draining.')"  # none yet, while the answer comes
        )
        assert page.url == f"{live_server.url}/admin/gateway/target/"
    assert problems == []
