"""/api/v1/gateway/plans"""

from __future__ import annotations

from gateway.models import Plan

from . import lists
from .rows import NamedDetail, RowList, RowSerializer


class PlanSerializer(RowSerializer):
    class Meta:
        model = Plan
        fields = [
            "id", "name", "requests_per_minute", "requests_per_hour", "burst_limit", "counted_by", "exact",
            "on_store_down",
        ]  # fmt: skip


class PlanList(RowList):
    """GET: the plans. POST: a new one."""

    queryset = Plan.objects.all()
    serializer_class = PlanSerializer
    filters = lists.NAMED


class PlanDetail(NamedDetail):
    """A plan. It cannot be deleted while routes or consumers have it."""

    queryset = Plan.objects.all()
    serializer_class = PlanSerializer
