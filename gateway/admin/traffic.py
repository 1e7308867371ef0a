"""The admin page of traffic: charts of the requests, their latency and errors, and tables by route and by consumer.

page → its fragment, asked for again while it is visible → JSON in it → static/brain/charts.js, which redraws the charts
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.http import urlencode

from foundation import figures
from gateway import traffic, traffic_report
from gateway.errors import TrafficUnavailable
from gateway.models import Consumer, Route
from gateway.traffic_report import Report, Sums

RANGES = {"1h": (3_600, "1 hour"), "24h": (86_400, "24 hours"), "7d": (7 * 86_400, "7 days")}
_USUAL = "1h"
_ROWS = 50  # of a table: who wants more narrows it down, or asks the metrics
_MANY_FAIL = 0.1  # of the requests: from here on it is bad


class Asked(NamedTuple):
    """What the address asks for; an unknown `since` is the last hour."""

    since: str
    route: str
    consumer: str

    def query(self, **changes: str) -> str:
        """This page's address with some of it changed; what is empty or usual is left out."""
        wanted = {**self._asdict(), **changes}
        if wanted["since"] == _USUAL:
            del wanted["since"]
        return "?" + urlencode({name: text for name, text in wanted.items() if text})


def urls(page: Any) -> list[Any]:
    """page: the admin of routes, whose permissions count."""
    view = page.admin_site.admin_view
    return [
        path("traffic/", view(lambda request: _page(page, request)), name="gateway_traffic_changelist"),
        path("traffic/live/", view(lambda request: _live(page, request)), name="gateway_traffic_live"),
    ]


def page(**wanted: str) -> str:
    """The address of the page, narrowed to a `route` or a `consumer`."""
    return f"{reverse('admin:gateway_traffic_changelist')}?{urlencode(wanted)}"


def _page(page: Any, request: HttpRequest) -> HttpResponse:
    """What stays while the fragment is swapped, filters and ranges, and the fragment."""
    asked = _asked(page, request)
    ranges = [
        {"title": title, "query": asked.query(since=since), "is_on": since == asked.since}
        for since, (_, title) in RANGES.items()
    ]
    context = {
        **page.admin_site.each_context(request),
        **found(asked),
        "title": "Traffic",
        "ranges": ranges,
        "routes": _names(Route, asked.route),
        "consumers": _names(Consumer, asked.consumer),
    }
    return render(request, "admin/gateway/traffic/page.html", context)


def _live(page: Any, request: HttpRequest) -> HttpResponse:
    """The fragment that the page asks for again."""
    return render(request, "admin/gateway/traffic/live.html", found(_asked(page, request)))


def _asked(page: Any, request: HttpRequest) -> Asked:
    if not page.has_view_permission(request):
        raise PermissionDenied
    given: Mapping[str, str] = request.GET
    since = given.get("since", _USUAL)
    return Asked(since if since in RANGES else _USUAL, given.get("route", ""), given.get("consumer", ""))


def _names(model: Any, asked: str) -> list[str]:
    """To choose from, with the one that is asked for: it may be gone, or no consumer but the subject of a token."""
    known = model.objects.order_by("name").values_list("name", flat=True)[:500]
    return sorted({*known, *([asked] if asked else [])})


def found(asked: Asked) -> dict[str, Any]:
    """What the fragment's template needs."""
    now = timezone.now()
    shown = {
        "asked": asked,
        "query": asked.query(),
        "unfiltered": asked.query(route="", consumer=""),
        "span": RANGES[asked.since][1].removeprefix("1 "),
        "every_s": 5 if asked.since == _USUAL else 30,
        "updated": now,
        "is_read": True,
    }
    wall = now.timestamp()
    try:
        report = traffic.read(
            wall - RANGES[asked.since][0], wall, wall, route=asked.route, consumer=asked.consumer
        )
    except TrafficUnavailable:
        return {**shown, "is_read": False, "charts": _empty(), "document": {"is_empty": True}}
    return {**shown, **_drawn(report), **_tables(report, asked)}


def _drawn(report: Report) -> dict[str, Any]:
    charts = traffic_report.charts(report)
    moments = [datetime.fromtimestamp(at, UTC) for at, _ in report.points]
    labels = figures.steps(moments, report.step_s)
    return {
        "charts": charts,
        "document": {"labels": labels, "charts": charts, "is_empty": not report.total.requests},
    }


def _empty() -> list[dict[str, Any]]:
    """The charts' frames, which the page keeps hidden until there is something to draw."""
    return traffic_report.charts(traffic_report.report([], traffic.MINUTE_S))


def _tables(report: Report, asked: Asked) -> dict[str, Any]:
    return {
        "by_route": [_row(name, sums, asked.query(route=name)) for name, sums in report.routes[:_ROWS]],
        "more_routes": max(0, len(report.routes) - _ROWS),
        "by_consumer": [
            _row(name, sums, asked.query(consumer=name)) for name, sums in report.consumers[:_ROWS]
        ],
        "more_consumers": max(0, len(report.consumers) - _ROWS),
    }


def _row(name: str, sums: Sums, query: str) -> dict[str, Any]:
    ratio = sums.error_ratio
    return {
        "name": name,
        "query": query,
        "requests": figures.count(sums.requests),
        "refused": figures.count(sums.by_class[4]),
        "errors": figures.count(sums.errors),
        "ratio": figures.share(ratio),
        "is_bad": ratio is not None and ratio >= _MANY_FAIL,
        "times": [figures.duration(seconds) for seconds in sums.quantiles_s],
    }
