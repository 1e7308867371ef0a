"""The admin page of statistics: how the queues stand, charts of what they did, and a table by queue and task.

page → its fragment, asked for again while it is visible → JSON in it → static/brain/charts.js, which redraws the same charts
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils.http import urlencode

from foundation import figures
from foundation.admin import ReadOnlyModelAdmin
from queue_app import charts, clock, spans, stats
from queue_app.conf import conf
from queue_app.histograms import Tally
from queue_app.models import Rollup

from . import cells

RANGES = {"1h": "1 hour", "6h": "6 hours", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
_CARDS = 24  # of queues; a platform with more looks into their list
_SORT = "-runs"
_LONG_S = 30  # between two looks
_MOST_KEPT = 32
Look = tuple[list[tuple[datetime, Tally]], dict[tuple[str, str], Tally]]
_kept: dict[spans.Question, tuple[float, Look]] = {}
_HEADS = (
    ("queue", "Queue"), ("task", "Task"), ("runs", "Runs"), ("failures", "Failed"), ("share", "Rate"),
    *((f"{what}_{share}", f"{title} {share}") for what, title in (("wait", "Wait"), ("run", "Run")) for share in charts.SHARES),
)  # fmt: skip


class Head(NamedTuple):
    """Of a column. order: "ascending", "descending" or "", when the table is sorted by another one."""

    name: str
    title: str
    query: str
    order: str


class Asked(NamedTuple):
    """What the address asks for. texts: as it says it; errors: field → what is wrong, and then the last hour is shown."""

    question: spans.Question
    texts: dict[str, str]
    sort: str
    errors: dict[str, str]


@admin.register(Rollup)
class RollupAdmin(ReadOnlyModelAdmin):
    """Its list is the page; a single row tells nobody anything and has none."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="queue_app_rollup_changelist"),
            path("live/", view(self.live), name="queue_app_rollup_live"),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        self._refuse_strangers(request)
        asked = read(request.GET.dict(), clock.now())
        shown = {**self.admin_site.each_context(request), **_page(asked), "title": "Statistics"}
        return render(request, "admin/queue_app/rollup/page.html", shown, status=400 if asked.errors else 200)

    def live(self, request: HttpRequest) -> HttpResponse:
        """The fragment that the page asks for again."""
        self._refuse_strangers(request)
        asked = read(request.GET.dict(), clock.now())
        shown = {**_found(asked), "is_fragment": True}
        return render(request, "admin/queue_app/rollup/live.html", shown, status=400 if asked.errors else 200)

    def _refuse_strangers(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def read(texts: Mapping[str, str], now: datetime) -> Asked:
    """Never raises: a page that is asked for nonsense says so."""
    given = {name: text.strip() for name, text in texts.items() if text.strip()}
    sort, errors = given.pop("sort", _SORT), {}
    if sort.removeprefix("-") not in charts.COLUMNS:
        errors["sort"], sort = f"{sort[:40]!r} is not a column", _SORT
    try:
        return Asked(spans.question(given, now), given, sort, errors)
    except spans.BadQuestion as error:
        return Asked(spans.question({}, now), {}, sort, {**errors, **error.errors})


def drawn(asked: Asked) -> tuple[dict[str, Any], dict[tuple[str, str], Tally]]:
    """What the charts' templates need, and the sums of the same rows by queue and task. One statement."""
    question = asked.question
    points, summary = _both(question)
    found = charts.charts(points, question.step_s, clock.now())
    document = charts.document(found, charts.labels(points, question.step_s))
    document["is_empty"] = not summary
    return {"charts": found, "document": document, "every_s": _every_s(question)}, summary


def _both(question: spans.Question) -> Look:
    """One look for all who watch the same long time, which is thousands of rows."""
    every_s, now = _every_s(question), time.monotonic()
    if every_s < _LONG_S:
        return stats.both(question)
    known = _kept.get(question)
    if known is None or now - known[0] >= every_s:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        known = _kept[question] = (now, stats.both(question))
    return known[1]


def _page(asked: Asked) -> dict[str, Any]:
    """The fragment's, and what stays while that is swapped: filters and ranges."""
    pairs = stats.tasks()
    found = _found(asked)
    names = {queue for queue, _ in pairs} | {card["queue"] for card in found["all_cards"]}
    wanted = asked.question.queue
    return {
        **found,
        "asked": asked,
        "queues": sorted(names | ({wanted} - {""})),
        "tasks": sorted({task for queue, task in pairs if wanted in ("", queue)} | ({asked.question.name} - {""})),
        "ranges": [
            {"title": title, "query": _query(asked, since=since), "is_on": asked.texts.get("since", "1h") == since}
            for since, title in RANGES.items()
        ],
    }  # fmt: skip


def _found(asked: Asked) -> dict[str, Any]:
    shown, summary = drawn(asked)
    cards = queue_cards()
    mine = [card for card in cards if asked.question.queue in ("", card["queue"])]
    mine.sort(key=lambda card: -card["depth"].waiting)  # by name where as many wait
    return {
        **shown,
        "all_cards": cards,
        "cards": sorted(mine[:_CARDS], key=lambda card: card["queue"]),
        "more": max(0, len(mine) - _CARDS),
        "heads": [_head(asked, name, title) for name, title in _HEADS],
        "rows": [_row(asked, row) for row in charts.rows(summary, asked.sort)],
        "is_counting": conf().ROLLUPS,
        "is_filtered": any((asked.question.queue, asked.question.name, asked.question.tenant)),
        "unfiltered": _query(asked, queue="", name="", tenant=""),
        "query": _query(asked),
        "span": _span(asked.texts.get("since", "1h")),
        "updated": clock.now(),
    }


def queue_cards() -> list[dict[str, Any]]:
    """How each queue stands now, with its last hour, by name. Five statements, however many queues there are."""
    recent = stats.recent()
    return [queue_card(depth, recent.get(depth.queue, [])) for depth in stats.depths()]


def queue_card(depth: stats.Depth, recent: list[int]) -> dict[str, Any]:
    of, states = depth.queue, {"Waiting": "waiting", "Running": "PROCESSING", "Dead": "DEAD_LETTER"}
    counts = {"Waiting": depth.waiting, "Running": depth.running, "Dead": depth.dead}
    return {
        "queue": of,
        "depth": depth,
        "page": cells.queue_page(of),
        "key": cells.key(of),
        "counts": [
            {
                "title": title,
                "text": figures.count(counts[title]),
                "link": cells.jobs_page(queue=of, state=state),
                "is_bad": title == "Dead" and counts[title] > 0,
            }
            for title, state in states.items()
        ],
        "latency": figures.duration(depth.oldest_due_s),
        "spark": cells.spark(recent),
    }


def _row(asked: Asked, row: charts.Row) -> dict[str, Any]:
    return {
        "row": row,
        "runs": figures.count(row.runs),
        "failures": figures.count(row.failures),
        "key": cells.key(row.queue, row.task),
        "of_queue": _query(asked, queue=row.queue),
        "of_task": _query(asked, queue=row.queue, name=row.task),
        "jobs": cells.jobs_page(queue=row.queue, task=row.task),
        "share": figures.share(row.share),
        "times": [figures.duration(seconds) for seconds in (*row.wait, *row.run)],
    }


def _head(asked: Asked, name: str, title: str) -> Head:
    """A first click sorts names from A and figures from the highest; the next one turns it round."""
    order = {name: "ascending", f"-{name}": "descending"}.get(asked.sort, "")
    first = name if name in ("queue", "task") else f"-{name}"
    turned = f"-{name}" if asked.sort == name else name
    return Head(name, title, _query(asked, sort=turned if order else first), order)


def _query(asked: Asked, **changes: str) -> str:
    """The address of this page with some of it changed; what is empty or the default is left out."""
    wanted = {**asked.texts, "sort": asked.sort, **changes}
    if wanted["sort"] == _SORT:
        del wanted["sort"]
    found = urlencode({name: text for name, text in wanted.items() if text})
    return f"?{found}" if found else "?"


def _span(since: str) -> str:
    """What follows "the last": hour, 6 hours, 90m."""
    return RANGES.get(since, since).removeprefix("1 ")


def _every_s(question: spans.Question) -> int:
    """How often the page asks again: a longer time changes less from look to look, and costs more to read."""
    return {60: 5, 300: 10, 900: 30}.get(question.step_s, 60)
