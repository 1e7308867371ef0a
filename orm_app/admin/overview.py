"""The admin's list of all databases: how each stands, side by side."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from foundation import figures
from orm_app import replicas, standing
from orm_app.replicas import State
from orm_app.status import Status

from . import frame

EVERY_S = 5  # it counts pending migrations, which reads the files of all apps
_TONES = {"ok": "good", "degraded": "warn", "down": "bad"}


def page(request: HttpRequest) -> HttpResponse:
    return frame.shown(request, "overview.html", "Databases", **found())


def live(request: HttpRequest) -> HttpResponse:
    return render(request, "admin/orm_app/overview_live.html", found())


def found() -> dict[str, Any]:
    every = standing.every()
    seen = {one.alias: one for one in replicas.states()}
    return {
        "rows": [_row(one, seen.get(one.alias)) for one in every],
        "updated": timezone.now(),
        "every_s": EVERY_S,
    }


def _row(one: Status, replica: State | None) -> dict[str, Any]:
    pending = bool(one.pending_migrations)
    return {
        "one": one,
        "tone": _TONES[one.state],
        "why": one.detail if one.state == "down" or (one.state == "degraded" and not pending) else "",
        "answers": figures.duration(one.took_ms / 1000) if one.state != "down" else "",
        "version": (one.version or "").partition(" ")[0],
        "pool": _pool(one),
        "replica": replica,
        "lag": figures.duration(replica.lag_s) if replica else "",
        "links": {name: frame.link(name, alias=one.alias) for name, _ in frame.TABS},
    }


def _pool(one: Status) -> dict[str, Any] | None:
    if one.pool is None:
        return None
    in_use, most = one.pool["size"] - one.pool["idle"], one.pool["max"]
    return {
        "in_use": in_use,
        "max": most,
        "waiting": one.pool["waiting"],
        "share": frame.percent(in_use, most),
    }
