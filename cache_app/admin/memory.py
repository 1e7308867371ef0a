"""The admin pages of memory (a server's figures, the biggest keys) and of slow operations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from cache_app import browsing, operations, slow, standing, stats_store
from cache_app.conf import conf
from cache_app.keyspace import Server
from foundation import figures
from foundation.pages import query

from . import pages

_SLOW_EVERY_S = 5


def page(request: HttpRequest) -> HttpResponse:
    alias = pages.alias_of(request)
    found = standing.of(alias)
    rows: list[browsing.Row] | None = None
    among = 0
    with pages.told(request):
        rows, among = browsing.biggest(operations.cache_of(alias))
    return pages.shown(
        request, "memory.html", "Cache memory", alias=alias, aliases=operations.aliases(), found=found,
        servers=[(server, _facts(server)) for server in found.servers], held=_held(found),
        rows=None if rows is None else [_row(alias, row) for row in rows], among=among,
    )  # fmt: skip


def slow_page(request: HttpRequest) -> HttpResponse:
    return pages.shown(request, "slow.html", "Slow operations", **_slow())


def slow_live(request: HttpRequest) -> HttpResponse:
    return pages.fragment(request, "slow_live.html", **_slow())


def _facts(server: Server) -> list[tuple[str, str]]:
    lookups = server.hits + server.misses
    return [
        ("Used", figures.size(server.used_memory_bytes)),
        ("Limit", figures.size(server.max_memory_bytes) if server.max_memory_bytes else "none"),
        ("At the limit", server.policy or figures.NONE),
        ("Peak", figures.size(server.peak_memory_bytes)),
        ("Resident", figures.size(server.resident_bytes)),
        ("Fragmentation", f"{server.fragmentation:.2f}" if server.fragmentation else figures.NONE),
        ("Evicted", f"{server.evicted:,}"),
        ("Expired", f"{server.expired:,}"),
        ("Hits of all clients", figures.share(server.hits / lookups if lookups else None)),
        ("Clients", f"{server.clients:,}"),
        ("Up for", figures.duration(server.uptime_s)),
    ]


def _held(found: standing.Standing) -> list[tuple[str, str]]:
    if found.held is None:
        return []
    return [
        ("Holds", figures.size(found.held.size_bytes)),
        ("Limit", figures.size(found.held.most_bytes)),
        ("Entries", f"{found.held.entries:,}"),
        ("At most", f"{found.held.most_entries:,}"),
    ]


def _row(alias: str, row: browsing.Row) -> dict[str, Any]:
    address = {"alias": alias, "key": row.key, "version": row.version}
    return {
        "row": row,
        "link": reverse("cache-admin:entry") + query(address),
        "size": figures.size(row.memory_bytes or row.size_bytes),
        "left": pages.left(row.left_s),
    }


def _slow() -> dict[str, Any]:
    now = timezone.now()
    found = stats_store.slow_operations()
    return {
        "rows": [_told(one, now.timestamp()) for one in found],
        "slow_ms": conf().SLOW_MS,
        "is_shared": not stats_store.is_failing() and stats_store.is_there(),
        "updated": now,
        "every_s": _SLOW_EVERY_S,
    }


def _told(one: slow.Slow, now: float) -> dict[str, Any]:
    return {
        "one": one,
        "took": figures.duration(one.took_s),
        "ago": figures.ago(max(0.0, now - one.at_s)),
        "at": f"{datetime.fromtimestamp(one.at_s, UTC):%Y-%m-%d %H:%M:%S} UTC",
    }
