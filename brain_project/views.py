"""Health and metrics of the site, for load balancers and Prometheus: plain views without a session."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cache_app import stats as cache
from gateway import views as gateway
from orm_app import pools as database
from orm_app import replicas, slow
from queue_app import stats as queue
from queue_app import workers

from . import health


@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """The process serves. Asks nothing of anybody else, so a database outage restarts no web process."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when database, Redis and broker answer, else 503; the body names each, and how many workers live.

    Without a worker the site is ready all the same: jobs wait in the database. Nor does a recorder that is behind keep
    a web process from serving: its state is "degraded".
    """
    found = health.gather()
    ready = all(part.ok for part in found)
    parts = {part.name: {"ok": part.ok, "state": part.state, "took_ms": part.took_ms} for part in found}
    if not ready:
        return JsonResponse({"status": "not ready", "checks": parts}, status=503)
    return JsonResponse({"status": "ready", "checks": parts, "workers": workers.alive()})


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    registry = CollectorRegistry()
    registry.register(_Families())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Families:
    """Reads the apps' numbers at scrape time. describe() spares the registry a first, needless collection."""

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from queue.families()
        yield from cache.families()
        yield from gateway.families()
        yield from database.families()
        yield from slow.families()
        yield from replicas.families()
