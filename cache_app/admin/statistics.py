"""The admin page of statistics: how each alias stands and what all processes counted, renewed while it is looked at."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from cache_app import operations, standing, stats_store
from cache_app.standing import Standing
from cache_app.stats import EVENTS
from cache_app.tallies import Tallies, Tally, by_alias
from foundation import audit, figures
from foundation.figures import Card
from foundation.pages import query

from . import pages

EVERY_S = 5
_ROWS = 50  # namespaces of an alias, the most looked up first
_FEW_HITS = 0.5  # 0 to 1, of at least _WORTH lookups: from here on somebody should look
_WORTH = 100
_NAME = 40  # characters of a function's name: its end tells them apart
_COLUMNS = ("stale", "loads", "coalesced", "refreshes", "load_errors")


def page(request: HttpRequest) -> HttpResponse:
    return pages.shown(request, "statistics.html", "Cache statistics", **found())


def live(request: HttpRequest) -> HttpResponse:
    return pages.fragment(request, "statistics_live.html", **found())


def reset(request: HttpRequest) -> HttpResponse:
    """GET asks, POST does."""
    if request.method != "POST":
        return pages.shown(request, "reset.html", "Reset the statistics")
    with pages.told(request):
        operations.reset_statistics(**audit.by(request, "admin"))
        messages.success(request, "The statistics begin anew.")
    return HttpResponseRedirect(reverse("cache-admin:statistics"))


def found() -> dict[str, Any]:
    """What the fragment's template needs."""
    totals = stats_store.totals()
    sums = by_alias(totals.tallies)
    return {
        "aliases": [
            *(_section(one, sums.pop(one.alias, Tally()), totals.tallies) for one in standing.all_aliases()),
            *(
                _section(standing.unlisted(alias), tally, totals.tallies)
                for alias, tally in sorted(sums.items())
                if tally.events
            ),
        ],
        "is_shared": totals.is_shared,
        "has_redis": stats_store.is_there(),
        "since": totals.since,
        "updated": timezone.now(),
        "every_s": EVERY_S,
    }


def _section(one: Standing, tally: Tally, tallies: Tallies) -> dict[str, Any]:
    namespaces = [
        (namespace, found)
        for (alias, namespace), found in tallies.items()
        if alias == one.alias and namespace
    ]
    namespaces.sort(key=lambda item: (-item[1].lookups, item[0]))
    return {
        "alias": one,
        "has_pages": one.kind != standing.UNLISTED,
        "keys": reverse("cache-admin:keys") + query({"alias": one.alias}),
        "memory": reverse("cache-admin:memory") + query({"alias": one.alias}),
        "tone": "bad" if one.error else "warn" if one.degraded else "good",
        "cards": [*_counted(tally), *_kept(one), *_connected(one)],
        "namespaces": [_row(namespace, found) for namespace, found in namespaces[:_ROWS]],
        "more": max(0, len(namespaces) - _ROWS),
        "events": [
            (event.replace("_", " "), f"{tally.of(event):,}", text)
            for event, text in EVENTS.items()
            if tally.of(event)
        ],
    }


def _counted(tally: Tally) -> list[Card]:
    took = tally.operations.get("get")
    note = f"{figures.count(tally.hits)} hits, {figures.count(tally.of('misses'))} misses"
    if tally.of("hits_l1"):
        note += f"; {figures.share(tally.l1_ratio)} from memory"
    cards = [Card("Hit ratio", figures.share(tally.hit_ratio), note, tone=_tone(tally))]
    loads = tally.of("loads")
    shared = f"{figures.count(tally.of('coalesced'))} more waited for one" if tally.of("coalesced") else ""
    cards.append(Card("Loads", figures.count(loads), shared))
    if took is not None and took.count:
        p50_s, p95_s, p99_s = took.quantiles().values()
        note = f"p50; p95 {pages.fine(p95_s)}, p99 {pages.fine(p99_s)}"
        cards.append(Card("get takes", pages.fine(p50_s), note))
    if tally.errors:
        parts = ("store_errors", "corrupt", "load_errors")
        note = ", ".join(
            f"{figures.count(tally.of(event))} {event.replace('_', ' ')}"
            for event in parts
            if tally.of(event)
        )
        cards.append(Card("Errors", figures.count(tally.errors), note, tone="bad"))
    return cards


def _kept(one: Standing) -> list[Card]:
    keys = reverse("cache-admin:keys") + query({"alias": one.alias})
    memory = reverse("cache-admin:memory") + query({"alias": one.alias})
    cards = []
    if one.keys is not None:
        note = "" if one.keys_exact else "estimated"
        cards.append(
            Card(
                "Keys", figures.count(one.keys), standing.OF_PROCESS if one.is_of_process else note, link=keys
            )
        )
    if one.held is not None:
        title = {standing.TIERED: "Memory (L1)", standing.FILE: "Files"}.get(one.kind, "Memory")
        entries = f"{figures.count(one.held.entries)} entr{'y' if one.held.entries == 1 else 'ies'}"
        note = f"of {figures.size(one.held.most_bytes)}, {entries}"
        cards.append(Card(title, figures.size(one.held.size_bytes), note, link=memory))
    for server in one.servers:
        most = f"of {figures.size(server.max_memory_bytes)}" if server.max_memory_bytes else "no limit"
        note = f"{most}, {figures.count(server.evicted)} evicted"
        title = "Server" if len(one.servers) == 1 else server.name
        tone = "bad" if server.degraded else ""
        cards.append(Card(title, figures.size(server.used_memory_bytes), note, tone=tone, link=memory))
    return cards


def _connected(one: Standing) -> list[Card]:
    cards = []
    if one.tracker is not None:
        heard = one.tracker and all(one.tracker.values())
        value = "heard" if heard else "silent" if one.tracker else "not begun"
        note = "memory is kept right" if heard else "memory is not used, in this process"
        cards.append(Card("Tracker", value, note, tone="good" if heard else "bad" if one.tracker else ""))
    if opened := [name for name, state in one.breakers.items() if state != "closed"]:
        cards.append(Card("Breaker", one.breakers[opened[0]], ", ".join(opened), tone="bad"))
    return cards


def _tone(tally: Tally) -> str:
    ratio = tally.hit_ratio
    return "bad" if ratio is not None and ratio < _FEW_HITS and tally.lookups >= _WORTH else ""


def _row(namespace: str, tally: Tally) -> dict[str, Any]:
    took = tally.operations.get("load")
    times = took.quantiles() if took is not None else {}
    return {
        "name": namespace,
        "short": namespace if len(namespace) <= _NAME else f"…{namespace[1 - _NAME :]}",
        "ratio": figures.share(tally.hit_ratio),
        "is_bad": _tone(tally) == "bad",
        "l1": figures.share(tally.l1_ratio),
        "hits": figures.count(tally.hits),
        "misses": figures.count(tally.of("misses")),
        "events": [figures.count(tally.of(event)) for event in _COLUMNS],
        "times": [pages.fine(times.get(name)) for name in ("p50", "p99")],
    }
