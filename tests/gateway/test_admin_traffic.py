"""The admin's traffic page: what the gateway's processes counted in the real Valkey, drawn and in tables."""

from __future__ import annotations

import functools
import json
import re
import time
from typing import Any

import pytest
from django.urls import reverse

from brain_project import overview
from foundation import roles
from gateway import traffic
from gateway.tally import Tally
from gateway.traffic import Traffic
from tests.foundation.people import client_of

from .admin_pages import configuration

pytestmark = pytest.mark.django_db

PAGE, LIVE = "admin:gateway_traffic_changelist", "admin:gateway_traffic_live"


@pytest.fixture
def counted(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """counted(consumer, route, status, took_s, times) puts requests where the page reads them."""
    monkeypatch.setattr(traffic, "read", functools.partial(traffic.read, prefix=prefix))
    tally = Tally()
    found = Traffic(tally, prefix=prefix)

    def count(consumer: str, route: str, status: int, took_s: float = 0.02, times: int = 1) -> None:
        for _ in range(times):
            tally.finished(route, "billing", "a:80", "GET", status, "", took_s, took_s / 2)
            found.count(consumer, route, status)
        found.collect(time.time())
        assert found.send()

    return count


def document(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script id="brain-chart-data" type="application/json">(.*?)</script>', text)
    return dict(json.loads(found))


def rows(text: str, of: str) -> dict[str, list[str]]:
    """Name → figures, of the table below that heading."""
    table = text.partition(f'id="{of}"')[2].partition("</table>")[0]
    found = {}
    for row in table.partition("<tbody>")[2].split("</tr>")[:-1]:
        name, *figures = (re.sub(r"<[^>]+>", "", cell).strip() for cell in row.split("</td>")[:-1])
        found[name] = figures
    return found


def test_page__requests_of_two_routes__drawn_and_in_tables(counted: Any) -> None:
    counted("ann", "/tasks", 200, took_s=0.010, times=8)
    counted("ann", "/tasks", 502, took_s=1.0, times=2)
    counted("", "/<b>", 404)
    text = client_of(roles.VIEWER).get(reverse(PAGE)).content.decode()
    assert rows(text, "by-route")["/tasks"][:4] == ["10", "0", "2", "20 %"]
    assert rows(text, "by-route")["/&lt;b&gt;"][:3] == ["1", "1", "0"]
    assert rows(text, "by-consumer")["ann"] == ["10", "0", "2", "20 %"]
    assert "ms" in rows(text, "by-route")["/tasks"][4]
    shown = document(text)
    assert not shown["is_empty"]
    assert [chart["id"] for chart in shown["charts"]] == ["requests", "latency", "errors"]
    assert len(shown["labels"]) == len(shown["charts"][0]["lines"][0]["values"])


def test_page__one_route_or_consumer__theirs_alone(counted: Any) -> None:
    counted("ann", "/tasks", 200, times=3)
    counted("bob", "/users", 200)
    client = client_of(roles.VIEWER)
    assert list(rows(client.get(f"{reverse(PAGE)}?route=/users").content.decode(), "by-route")) == ["/users"]
    text = client.get(f"{reverse(LIVE)}?consumer=ann&since=24h").content.decode()
    assert list(rows(text, "by-consumer")) == ["ann"]
    assert len(document(text)["labels"]) in (24, 25)


def test_page__nothing_or_nonsense__says_so(counted: Any) -> None:
    client = client_of(roles.VIEWER)
    assert "No request in the last hour" in client.get(reverse(PAGE)).content.decode()
    text = client.get(f"{reverse(PAGE)}?since=ever&route=/<x>").content.decode()
    assert "No such request in the last hour" in text
    assert "/<x>" not in text
    assert document(text)["is_empty"]


def test_page__redis_away__says_so(counted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = traffic.store.link("unix:///nonexistent.sock")
    monkeypatch.setattr(traffic.store, "link", lambda *_: nowhere)
    client = client_of(roles.VIEWER)
    for name in (PAGE, LIVE):
        answer = client.get(reverse(name))
        assert answer.status_code == 200
        assert "Redis does not answer" in answer.content.decode()
    assert overview._traffic()[0].value == "–"


def test_page__no_role__refused(counted: Any) -> None:
    stranger = client_of(None)
    assert [stranger.get(reverse(name)).status_code for name in (PAGE, LIVE)] == [403, 403]


def test_page__more_routes__no_more_queries(counted: Any, django_assert_max_num_queries: Any) -> None:
    for number in range(10):
        configuration(f"-{number}")
        counted("ann", f"/r{number}", 200)
    client = client_of(roles.VIEWER)
    with django_assert_max_num_queries(6):
        assert client.get(reverse(PAGE)).status_code == 200


def test_overview__rate_errors_and_latency__of_the_last_minutes(counted: Any) -> None:
    counted("ann", "/tasks", 200, took_s=0.05, times=9)
    counted("ann", "/tasks", 503, took_s=0.05)
    cards = {card.label: card for card in overview._traffic()}
    assert cards["Errors"].value == "10 %"
    assert cards["Errors"].tone == "bad"
    assert cards["Requests"].value.endswith("/ s")
    assert cards["p95"].value.endswith("ms")
    assert cards["Requests"].link == reverse(PAGE)


def test_charts_script__each_line_of_the_report__has_a_colour(settings: Any) -> None:
    from gateway import traffic_report

    script = (settings.BASE_DIR / "brain_project/static/brain/charts.js").read_text()
    style = (settings.BASE_DIR / "brain_project/static/brain/admin.css").read_text()
    for chart in traffic_report.charts(traffic_report.report([], 60)):
        for line in chart["lines"]:
            (colour,) = re.findall(rf'"?\b{line["name"]}"?: "(\w+)"', script)[:1]
            assert style.count(f"--brain-{colour}: #") == 2  # light and dark
