"""The admin's first page: what the four systems do now, in figures; a fragment that the page asks for again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from redis import RedisError

from cache_app import keyspace
from foundation import roles
from foundation.models import AuditEntry
from gateway.models import Consumer, Route, Target
from queue_app import workers
from queue_app.models import Job

from . import health

JOB_STATES = ("PENDING", "PROCESSING", "FAILED", "DEAD_LETTER", "COMPLETED")


@dataclass(frozen=True, slots=True)
class Card:
    """One figure. tone: "", "good" or "bad"; link: the list behind it, "" for none."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    link: str = ""


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's DASHBOARD_CALLBACK."""
    context["title"] = "Overview"
    context["sections"] = sections() if roles.allows(request.user, roles.VIEWER) else []
    context["recent"] = AuditEntry.objects.order_by("-id")[:8] if context["sections"] else []
    return context


def fragment(request: HttpRequest) -> HttpResponse:
    """The cards alone, for the page to swap in."""
    if not roles.allows(request.user, roles.VIEWER):
        raise PermissionDenied
    return render(request, "admin/overview.html", {"sections": sections()})


def sections() -> list[tuple[str, list[Card]]]:
    return [
        ("Queue", _queue()),
        ("Gateway", _gateway()),
        ("Cache", _cache()),
        ("Dependencies", _dependencies()),
    ]


def _queue() -> list[Card]:
    counts = dict(Job.objects.values_list("state").annotate(Count("pk")))
    jobs = reverse("admin:queue_app_job_changelist")
    cards = [
        Card(
            state.replace("_", " ").capitalize(),
            str(counts.get(state, 0)),
            tone="bad" if state == "DEAD_LETTER" and counts.get(state) else "",
            link=f"{jobs}?state__exact={state}",
        )
        for state in JOB_STATES
    ]
    alive = workers.alive()
    link = reverse("admin:queue_app_worker_changelist")
    return [*cards, Card("Workers", str(alive), tone="good" if alive else "bad", link=link)]


def _gateway() -> list[Card]:
    figures = [
        ("Routes", Route.objects.count(), "route"),
        ("Targets", Target.objects.count(), "upstream"),
        ("Consumers", Consumer.objects.count(), "consumer"),
    ]
    return [
        Card(label, str(count), link=reverse(f"admin:gateway_{name}_changelist"))
        for label, count, name in figures
    ]


def _cache() -> list[Card]:
    try:
        found = keyspace.overview()
    except RedisError:
        return [Card("Redis", "down", tone="bad")]
    lookups = found.hits + found.misses
    ratio = f"{100 * found.hits / lookups:.0f} %" if lookups else "–"
    return [
        Card("Keys", f"{found.keys}", "" if found.keys_exact else "estimated"),
        Card("Hit ratio", ratio, "of the server, all clients"),
        Card("Memory", f"{found.used_memory_bytes / 2**20:.1f} MiB", f"{found.evicted} evicted"),
    ]


def _dependencies() -> list[Card]:
    return [
        Card(
            part.name.capitalize(),
            "up" if part.state == "ok" else part.state,
            f"{part.detail}, {part.took_ms:.1f} ms" if part.ok else part.detail,
            tone="good" if part.state == "ok" else "bad",
        )
        for part in health.gather()
    ]
