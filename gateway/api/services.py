"""/api/v1/gateway/services"""

from __future__ import annotations

from gateway.models import Service

from . import lists
from .rows import NamedDetail, RowList, RowSerializer


class ServiceSerializer(RowSerializer):
    class Meta:
        model = Service
        fields = [
            "id", "name", "strategy", "hash_on",
            "connect_timeout_s", "response_timeout_s", "idle_timeout_s", "total_timeout_s",
            "breaker_window_s", "breaker_volume", "breaker_failure_ratio", "breaker_slow_s", "breaker_slow_ratio",
            "breaker_open_s", "breaker_open_max_s", "breaker_probes",
            "retries", "retry_budget_ratio", "retry_budget_min",
            "health_enabled", "health_path", "health_statuses", "health_interval_s", "health_timeout_s", "healthy_after",
            "unhealthy_after", "eject_after", "eject_s", "eject_most_percent", "slow_start_s",
            "tls_ca", "tls_server_name",
            "fallback_status", "fallback_type", "fallback_body", "stale_s",
        ]  # fmt: skip


class ServiceList(RowList):
    """GET: the services. POST: a new one; its targets are made below it."""

    queryset = Service.objects.all()
    serializer_class = ServiceSerializer
    filters = lists.NAMED


class ServiceDetail(NamedDetail):
    """A service. It cannot be deleted while routes go to it; its targets are deleted with it."""

    queryset = Service.objects.all()
    serializer_class = ServiceSerializer
