"""The admin's list of all databases: how each stands, side by side."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from foundation import figures
from orm_app import standing
from orm_app.status import Status

from . import frame

EVERY_S = 5  # it counts pending migrations, which reads the files of all apps
_TONES = {"ok": "good", "degraded": "warn", "down": "bad"}


def page(request: HttpRequest) -> HttpResponse:
    return frame.shown(request, "overview.html", "Databases", **found())


def live(request: HttpRequest) -> HttpResponse:
    return render(request, "admin/orm_app/overview_live.html", found())


def found() -> dict[str, Any]:
    return {
        "rows": [_row(one) for one in standing.every()],
        "updated": timezone.now(),
        "every_s": EVERY_S,
    }


def _row(one: Status) -> dict[str, Any]:
    return {
        "one": one,
        "tone": _TONES[one.state],
        "answers": figures.duration(one.took_ms / 1000) if one.state != "down" else figures.NONE,
        "pool": _pool(one),
        "links": {name: frame.link(name, alias=one.alias) for name, _ in frame.TABS},
    }


def _pool(one: Status) -> dict[str, Any] | None:
    if one.pool is None:
        return None
    in_use, most = one.pool["size"] - one.pool["idle"], one.pool["max"]
    return {"in_use": in_use, "max": most, "waiting": one.pool["waiting"], "share": share(in_use, most)}


def share(part: float, whole: float) -> int:
    """In whole per cent, for the width of a meter."""
    return round(100 * min(part, whole) / whole) if whole else 0
