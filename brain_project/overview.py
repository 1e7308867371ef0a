"""The admin's first page: what the four systems do now, in figures; a fragment that the page asks for again."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from cache_app import keyspace, operations, stats_store
from cache_app.tallies import summed
from foundation import figures, roles
from foundation.figures import Card
from foundation.models import AuditEntry
from gateway import traffic
from gateway.admin import live
from gateway.errors import TrafficUnavailable
from gateway.models import Target
from queue_app import alerts, charts, firing, stats, workers
from queue_app.conf import conf as queue_conf
from queue_app.histograms import quantile
from queue_app.models import Alert

from . import health

JOB_STATES = {
    "PENDING": "", "PROCESSING": "", "FAILED": "will be tried again", "DEAD_LETTER": "", "COMPLETED": "of all time",
}  # fmt: skip
_LATELY_MINUTES = 5
_MANY_FAIL = 0.1  # of the runs: from here on it is bad


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
    """A fixed number of statements; none reads jobs that are over."""
    depths = stats.depths()
    alive = workers.alive()
    link = reverse("admin:queue_app_worker_changelist")
    return [
        *_states(depths),
        _oldest(depths),
        *_lately(),
        _schedules(),
        _alerts(),
        Card("Workers", str(alive), tone="good" if alive else "bad", link=link),
    ]


def _states(depths: list[stats.Depth]) -> list[Card]:
    jobs = reverse("admin:queue_app_job_changelist")
    counts = {state: sum(depth.jobs.get(state, 0) for depth in depths) for state in JOB_STATES}
    return [
        Card(
            state.replace("_", " ").capitalize(),
            figures.count(counts[state]),
            note,
            tone="bad" if state == "DEAD_LETTER" and counts[state] else "",
            link=f"{jobs}?state={state}",
        )
        for state, note in JOB_STATES.items()
    ]


def _oldest(depths: list[stats.Depth]) -> Card:
    """Of paused queues too: their jobs wait all the same, and somebody may have forgotten them."""
    worst = max(depths, key=lambda depth: depth.oldest_due_s, default=None)
    note = worst.queue if worst and worst.oldest_due_s else "nothing is due"
    link = reverse("admin:queue_app_queue_changelist")
    return Card("Oldest due", figures.duration(worst.oldest_due_s if worst else 0), note, link=link)


def _lately() -> list[Card]:
    found = stats.lately(_LATELY_MINUTES)
    link, note = reverse("admin:queue_app_rollup_changelist"), f"last {_LATELY_MINUTES} minutes"
    share = found.failure_share
    per_minute = figures.count(charts.runs(found) / _LATELY_MINUTES)
    return [
        Card("Runs", f"{per_minute} / min", note, link=link),
        Card("Wait p95", figures.duration(quantile(found.wait, 0.95)), note, link=link),
        Card(
            "Failure rate",
            figures.share(share),
            note,
            tone="bad" if share is not None and share >= _MANY_FAIL else "",
            link=link,
        ),
    ]


def _alerts() -> Card:
    names = list(
        Alert.objects.filter(state=alerts.State.FIRING).order_by("name").values_list("name", flat=True)[:100]
    )
    note = ", ".join(dict.fromkeys(names)) or "nothing fires"
    link = reverse("admin:queue_app_alert_changelist")
    return Card("Alerts", str(len(names)), note, tone="bad" if names else "", link=link)


def _schedules() -> Card:
    late_s = firing.overdue_s()
    is_late = late_s > queue_conf().SCHEDULE_GRACE_S
    return Card(
        "Schedules",
        f"{figures.duration(late_s)} late" if is_late else "on time",
        "nobody fires: is a worker running?" if is_late else "",
        tone="bad" if is_late else "",
        link=reverse("admin:queue_app_schedule_changelist"),
    )


def _gateway() -> list[Card]:
    board = live.board()
    return [*_traffic(), _services(board), _breakers(board)]


def _traffic() -> list[Card]:
    link, note = reverse("admin:gateway_traffic_changelist"), f"last {_LATELY_MINUTES} minutes"
    wall = timezone.now().timestamp()
    try:
        found = traffic.read(wall - 60 * _LATELY_MINUTES, wall, wall)
    except TrafficUnavailable:
        return [
            Card(label, figures.NONE, "Redis is away", link=link) for label in ("Requests", "Errors", "p95")
        ]
    total, counted_s = found.total, max(1.0, wall - found.points[0][0])
    share, p95_s = total.error_ratio, total.quantiles_s[1]
    tone = "bad" if share is not None and share >= _MANY_FAIL else ""
    return [
        Card("Requests", f"{figures.count(total.requests / counted_s)} / s", note, link=link),
        Card("Errors", figures.share(share), note, tone=tone, link=link),
        Card("p95", figures.duration(p95_s), note, link=link),
    ]


def _services(board: live.Board) -> Card:
    """Down is one that has targets of which none is up, as far as anybody knows."""
    targets: dict[str, list[live.Standing]] = {}
    for target in Target.objects.select_related("service").order_by("service__name"):
        targets.setdefault(target.service.name, []).append(board.of_row(target))
    down = [
        name
        for name, standings in targets.items()
        if any(one.is_known for one in standings) and not any(one.is_up for one in standings)
    ]
    note = f"down: {', '.join(down[:5])}" if down else _told(board)
    link = reverse("admin:gateway_service_changelist")
    value = f"{len(down)} down" if down else str(len(targets))
    return Card("Services", value, note, tone="bad" if down else "", link=link)


def _told(board: live.Board) -> str:
    if not board.is_read:
        return "nobody says how they stand"
    return "all up" if board.processes else "no gateway process runs"


def _breakers(board: live.Board) -> Card:
    opened = board.open_breakers()
    note = ", ".join(opened[:5]) or ("none is open" if board.processes else "nobody says")
    link = reverse("admin:gateway_target_changelist")
    value = str(len(opened)) if board.processes else figures.NONE
    return Card("Open breakers", value, note, tone="bad" if opened else "", link=link)


def _cache() -> list[Card]:
    link = reverse("cache-admin:statistics")
    try:
        found = keyspace.overview()
    except operations.CacheUnavailable:
        return [Card("Redis", "down", tone="bad", link=link)]
    if found is None:
        return [_hit_ratio(link)]
    memory = f"{found.sum('used_memory_bytes') / 2**20:.1f} MiB"
    return [
        Card(
            "Keys", f"{found.keys}", "" if found.keys_exact else "estimated", link=reverse("cache-admin:keys")
        ),
        _hit_ratio(link),
        Card("Memory", memory, f"{found.sum('evicted')} evicted", link=reverse("cache-admin:memory")),
    ]


def _hit_ratio(link: str) -> Card:
    """Of the cache, where the server's own figure would count the queue's and the gateway's reads too."""
    found = stats_store.totals()
    tally = summed(found.tallies.values())
    note = "of all processes" if found.is_shared else "of this process"
    return Card("Hit ratio", figures.share(tally.hit_ratio), note, link=link)


def _dependencies() -> list[Card]:
    return [
        Card(
            part.name.capitalize(),
            "up" if part.state == "ok" else part.state,
            f"{part.detail}, {part.took_ms:.1f} ms" if part.ok else part.detail,
            tone="good" if part.state == "ok" else "bad",
            link=reverse("database-admin:overview") if part.name == "database" else "",
        )
        for part in health.gather()
    ]
