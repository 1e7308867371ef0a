"""The figures of GET /api/v1/stats: an aggregate over all tasks, kept in the cache for a few seconds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Count, Q
from django.db.models.functions import TruncDate
from django.utils import timezone

from cache_app import cached

from .models import Task

TTL_S = 10
DAYS = 14
TOP = 5


@cached(
    ttl_s=TTL_S, lock=True
)  # a cache_lock around the rebuild: the instances together ask the database once
def totals() -> dict[str, Any]:
    """Behind the tables by up to TTL_S seconds: a write does not invalidate it."""
    sums = Task.objects.aggregate(total=Count("id"), done=Count("id", filter=Q(done=True)))
    return {**sums, "open": sums["total"] - sums["done"], "assignees": _assignees(), "days": _days()}


def _assignees() -> list[dict[str, Any]]:
    counted = Task.objects.values("assignee_email").annotate(
        total=Count("id"), done=Count("id", filter=Q(done=True))
    )
    return list(counted.order_by("-total", "assignee_email")[:TOP])


def _days() -> list[dict[str, Any]]:
    recent = Task.objects.filter(created_at__gte=timezone.now() - timedelta(days=DAYS))
    counted = (
        recent.annotate(day=TruncDate("created_at"))
        .values("day")
        .annotate(created=Count("id"))
        .order_by("day")
    )
    return [{"day": row["day"].isoformat(), "created": row["created"]} for row in counted]
