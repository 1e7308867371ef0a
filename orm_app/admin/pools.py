"""The admin page of an alias' connection pool, as the process that answers has it."""

from __future__ import annotations

import os
from typing import Any

from django.db import connections
from django.http import HttpRequest

from foundation import figures
from foundation.figures import Card
from orm_app import pools
from orm_app.conf import conf
from orm_app.pools import PoolStats

from . import frame


def found(request: HttpRequest, alias: str) -> dict[str, Any]:
    """Nothing is asked of the server: a page about a full pool must not wait for a connection of it."""
    connection: Any = connections[alias]
    stats = next(iter(pools.stats(alias)), None)
    shown = {"stats": stats, "engine": connection.vendor}
    if stats is None:
        return shown
    return shown | {
        "process": os.getpid(),
        "processes": conf().PROCESSES,
        "all_processes": conf().PROCESSES * stats.max_size,
        "cards": _cards(stats),
        "counted": _counted(stats),
        "meter": _meter(stats),
    }


def _meter(stats: PoolStats) -> dict[str, int]:
    """Widths, in per cent of the most connections."""
    in_use = frame.percent(stats.in_use, stats.max_size)
    return {"in_use": in_use, "idle": min(100 - in_use, frame.percent(stats.available, stats.max_size))}


def _cards(stats: PoolStats) -> list[Card]:
    is_full = stats.in_use >= stats.max_size
    return [
        Card("In use", f"{stats.in_use}", f"of at most {stats.max_size}", tone="bad" if is_full else ""),
        Card("Open", f"{stats.size}", f"{stats.available} idle, at least {stats.min_size}"),
        Card("Waiting", f"{stats.waiting}", "callers", tone="bad" if stats.waiting else ""),
        Card("Had to wait", figures.share(_of(stats.queued_num, stats.requests_num)), _waited(stats)),
        Card("Got none", f"{stats.errors_num:,}", "timed out or refused", tone="bad" if stats.errors_num else ""),
        Card("Lent for", figures.duration(_mean_s(stats.usage_ms, stats.requests_num)), "on average"),
    ]  # fmt: skip


def _waited(stats: PoolStats) -> str:
    return (
        f"{figures.duration(_mean_s(stats.wait_ms, stats.queued_num))} each" if stats.queued_num else "nobody"
    )


def _counted(stats: PoolStats) -> list[tuple[str, str]]:
    facts = [
        ("Asked for", stats.requests_num),
        ("Had to wait", stats.queued_num),
        ("Connects", stats.connections_num),
        ("Connects failed", stats.connections_errors),
        ("Found dead", stats.lost_num),
        ("Given back broken", stats.bad_num),
    ]
    if stats.engine == "mysql":
        facts.append(("Closed, session was changed", stats.dirty_num))
    return [(title, f"{number:,}") for title, number in facts]


def _of(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean_s(total_ms: int, number: int) -> float | None:
    return total_ms / number / 1000 if number else None


SECTION = frame.Section("pools", "Pool", found)
