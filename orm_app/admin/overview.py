"""The admin's list of all databases: how each stands, side by side."""

from __future__ import annotations

import re
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
_VERSION = re.compile(r"\d[\d.]*(?:-MariaDB)?")
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
        "version": _version(one.version or ""),
        "pool": _pool(one),
        "replica": replica,
        "lag": figures.duration(replica.lag_s) if replica else "",
        "links": {name: frame.link(name, alias=one.alias) for name, _ in frame.TABS},
    }


def _version(text: str) -> str:
    """Of "15.20 (Debian 15.20-0+deb12u1)" and "10.11.19-MariaDB-0+deb12u1" what tells them apart."""
    found = _VERSION.match(text)
    return found[0] if found else text


def _pool(one: Status) -> dict[str, Any] | None:
    if one.pool is None or one.state == "down":  # what is being opened would count as in use
        return None
    in_use, most = one.pool["size"] - one.pool["idle"], one.pool["max"]
    return {
        "in_use": in_use,
        "max": most,
        "waiting": one.pool["waiting"],
        "share": frame.percent(in_use, most),
    }
