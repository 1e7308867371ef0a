"""When the alerts' rules were last looked at, and what Prometheus is told. The rows say it: a scrape looks at no rule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Count
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from . import clock, notices
from .alerts import State
from .models import Alert, Lease, Notice

NAME = "alerts"  # of the lease


def looked_at() -> datetime | None:
    """By the database's clock; None: never yet."""
    told = Lease.objects.filter(name=NAME).values_list("position", flat=True).first()
    return datetime.fromisoformat(told) if told else None


def families() -> Iterator[Metric]:
    firing = GaugeMetricFamily(
        "brain_queue_alerts_firing", "1 for each alert that fires.", labels=["rule", "queue"]
    )
    rows = Alert.objects.filter(state=State.FIRING).order_by("name", "queue")
    for rule, queue in rows.values_list("name", "queue").distinct():
        firing.add_metric([rule, queue], 1.0)
    yield firing
    last = looked_at()
    if last is not None:
        age_s = max(0.0, (clock.now() - last).total_seconds())
        help_ = "Since the rules were last looked at; it grows when nobody does."
        yield GaugeMetricFamily("brain_queue_alerts_look_age_seconds", help_, value=age_s)
    unsent = GaugeMetricFamily(
        "brain_queue_notices_unsent", "Notices that their channel has not taken yet.", labels=["channel"]
    )
    waiting = Notice.objects.filter(next_at__isnull=False).order_by()
    for channel, count in waiting.values_list("channel").annotate(Count("pk")):
        unsent.add_metric([channel], count)
    yield unsent
    given_up = GaugeMetricFamily(
        "brain_queue_notices_given_up",
        "Notices of the last day that their channel has not taken, and that are not tried any more.",
        labels=["channel"],
    )
    for found in notices.given_up():
        given_up.add_metric([found.channel], found.number)
    yield given_up
