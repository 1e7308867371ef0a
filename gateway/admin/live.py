"""How targets and key sets stand now, as the processes of the fleet tell it; "-" where nobody does: no edge runs, or Redis
is away. And lists whose cells say so, asked for again while they are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from foundation import figures
from gateway import board as fleet
from gateway import issuers, origins
from gateway.jwks import Jwks, Status

from . import cells

EVERY_S = 2
_HEALTH = {"healthy": "good", "unhealthy": "bad"}
_BREAKER = {"closed": "good", "half_open": "warn", "open": "bad"}


@dataclass(frozen=True, slots=True)
class View:
    """What one process says of a target."""

    process: str
    breaker: str
    breaker_tone: str
    inflight: int
    latency: str
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A target as pages show it; texts are "-" where nothing is known. tone: of all in all. is_up: it
    takes requests."""

    is_known: bool = False
    is_up: bool = False
    tone: str = ""
    health: str = cells.NONE
    health_tone: str = ""
    breaker: str = cells.NONE
    breaker_tone: str = ""
    why: str = ""
    inflight: str = cells.NONE
    latency: str = cells.NONE
    checked: str = cells.NONE
    next_probe: str = cells.NONE
    views: tuple[View, ...] = ()


UNKNOWN = Standing()


class Board:
    """One look at all targets. is_read: whether Redis answered. processes: how many told something."""

    def __init__(self, standings: Iterable[Any] | None, now: float) -> None:
        self.is_read = standings is not None
        self._found: Mapping[tuple[str, str], Any] = {(one.service, one.name): one for one in standings or ()}
        self._now = now
        self.processes = len({view.process for one in self._found.values() for view in one.views})

    def of(self, service: str, url: str, state: str) -> Standing:
        """state: as it is configured; the fleet may learn of it a moment later."""
        found = self._found.get((service, _name(url)))
        if state == "off" or found is None:
            return UNKNOWN
        return _standing(found, state, self._now)

    def of_row(self, target: Any) -> Standing:
        """target: with its service at hand."""
        return self.of(target.service.name, target.url, target.state)

    def why(self, service: str, name: str) -> str:
        """Why a target gets no traffic, or less, by its name in the pool; "" where nothing is known or wrong."""
        found = self._found.get((service, name))
        return "" if found is None else _reason(found)

    def open_breakers(self) -> list[str]:
        return [f"{one.service} {one.name}" for one in self._found.values() if one.breaker == "open"]


def board() -> Board:
    return Board(fleet.read(), timezone.now().timestamp())


def key_set(url: str, algorithm: str) -> Status | None:
    """How an issuer's published keys stand in this process; None where they are not in use."""
    for issuer in issuers.holder.refresh_if_due().issuers:
        source = issuer.source
        if isinstance(source, Jwks) and (source.url, source.algorithm) == (url, algorithm):
            return source.status()
    return None


def _name(url: str) -> str:
    try:
        return origins.read(url).name
    except ValueError:
        return url


def _standing(found: Any, state: str, now: float) -> Standing:
    views = tuple(_view(view) for view in found.views)
    bad = found.health == "unhealthy" or found.breaker == "open"
    tone = (
        "bad" if bad else "warn" if state == "draining" or any(view.why for view in found.views) else "good"
    )
    return Standing(
        is_known=True,
        is_up=state == "active" and not bad,
        tone=tone,
        health=found.health,
        health_tone=_HEALTH.get(found.health, ""),
        breaker=found.breaker.replace("_", " "),
        breaker_tone=_BREAKER.get(found.breaker, ""),
        why=_reason(found),
        inflight=figures.count(found.inflight),
        latency=figures.duration(found.ewma_s) if found.ewma_s else cells.NONE,
        checked=figures.ago(max(0.0, now - found.checked_at)) if found.checked_at else cells.NONE,
        next_probe=_in(found.next_at - now) if found.next_at else cells.NONE,
        views=views,
    )


def _reason(found: Any) -> str:
    """That of the process which sees it worst, and of how many it is one."""
    reasons = [view.why for view in found.views if view.why]
    if not reasons:
        return f"the last probe: {found.health_reason}" if found.health_reason else ""
    few = len(reasons) < len(found.views)
    return f"{reasons[0]} (in {len(reasons)} of {len(found.views)} processes)" if few else str(reasons[0])


def _view(view: Any) -> View:
    return View(
        process=view.process,
        breaker=view.breaker.replace("_", " "),
        breaker_tone=_BREAKER.get(view.breaker, ""),
        inflight=view.inflight,
        latency=figures.duration(view.ewma_s) if view.ewma_s else cells.NONE,
        why=view.why,
    )


def _in(seconds: float) -> str:
    return "now" if seconds < 1 else f"in {figures.duration(round(seconds))}"


# --- lists -----------------------------------------------------------------------------------------------------------
class LiveList:
    """A list of which the columns in `live` are asked for again. Their methods tell a row's `standings` in a cell."""

    live: Sequence[str] = ()
    list_before_template = "admin/gateway/live_list.html"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.live_cells)  # type: ignore[attr-defined]
        return [path("live/", view, name=self._live_name()), *super().get_urls()]  # type: ignore[misc]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        address = reverse(f"admin:{self._live_name()}")
        query = request.GET.urlencode()
        shown = {"live": f"{address}?{query}" if query else address, "every_s": EVERY_S}
        return super().changelist_view(request, {**(extra_context or {}), **shown})  # type: ignore[misc]

    def live_cells(self, request: HttpRequest) -> HttpResponse:
        """The cells alone, each of which finds its place by its id."""
        if not self.has_view_permission(request):  # type: ignore[attr-defined]
            raise PermissionDenied
        try:
            rows = self.get_changelist_instance(request).result_list  # type: ignore[attr-defined]
        except IncorrectLookupParameters:
            return HttpResponseBadRequest()
        found = [
            (f"live-{name}-{row.pk}", getattr(self, name)(row, is_fragment=True))
            for row in rows
            for name in self.live
        ]
        return render(request, "admin/gateway/live_cells.html", {"cells": found})

    def _live_name(self) -> str:
        return f"gateway_{self.model._meta.model_name}_live"  # type: ignore[attr-defined]


def cell(name: str, row: Any, shown: str, is_fragment: bool = False) -> str:
    return shown if is_fragment else format_html('<span id="live-{}-{}">{}</span>', name, row.pk, shown)


def dots(targets: Sequence[Any], standings: Sequence[Standing]) -> str:
    """A dot for each target, and how many are up."""
    if not targets:
        return format_html('<span class="brain-bad">{}</span>', "none")
    shown = format_html_join(
        "",
        "{}",
        (
            (cells.dot(one.tone, _words(row, one)),)
            for row, one in list(zip(targets, standings, strict=True))[:12]
        ),
    )
    return format_html('<span class="brain-nowrap">{} {}</span>', shown, _up(targets, standings))


def _up(targets: Sequence[Any], standings: Sequence[Standing]) -> str:
    if not any(one.is_known for one in standings):
        return f"{len(targets)}"
    return f"{sum(one.is_up for one in standings)} of {len(targets)} up"


def _words(target: Any, standing: Standing) -> str:
    told = [target.url, target.state]
    if standing.is_known:
        told += [standing.health, f"breaker {standing.breaker}"]
    return ", ".join(told)
