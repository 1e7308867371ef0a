"""The admin pages of plans: how much a caller may ask for."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from foundation import figures
from gateway.models import Plan

from . import cells
from .configured import ConfiguredAdmin, RowForm


class PlanForm(RowForm):
    class Meta:
        model = Plan
        fields = (
            "name", "requests_per_minute", "requests_per_hour", "burst_limit", "counted_by", "exact", "on_store_down",
        )  # fmt: skip
        labels = {"on_store_down": "When Redis is down"}
        help_texts = {
            "on_store_down": "local: each edge process counts by itself.",
            "requests_per_minute": "Empty: no such limit.",
            "requests_per_hour": "Empty: no such limit.",
        }


@admin.register(Plan)
class PlanAdmin(ConfiguredAdmin):
    form = PlanForm
    when_empty = "A plan limits how many requests are let through, of a route or of a consumer."
    list_display = ("name", "minute", "hour", "burst", "by", "exact", "store_down", "routed", "held")
    list_filter = ("counted_by", "exact")
    list_filter_submit = False
    search_fields = ("name",)
    search_help_text = "Part of a name"
    fieldsets = (
        (None, {"fields": ("name",)}),
        ("Limits", {"fields": (("requests_per_minute", "requests_per_hour", "burst_limit"),)}),
        ("Counting", {"fields": (("counted_by", "on_store_down"), "exact")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        found = super().get_queryset(request)
        return found.annotate(
            routes_count=Count("routes", distinct=True), consumers_count=Count("consumers", distinct=True)
        )

    @display(description="per minute", ordering="requests_per_minute")
    def minute(self, plan: Plan) -> str:
        return _limit(plan.requests_per_minute)

    @display(description="per hour", ordering="requests_per_hour")
    def hour(self, plan: Plan) -> str:
        return _limit(plan.requests_per_hour)

    @display(description="at once", ordering="burst_limit")
    def burst(self, plan: Plan) -> str:
        return _limit(plan.burst_limit or plan.requests_per_minute or plan.requests_per_hour)

    @display(description="counted by", ordering="counted_by")
    def by(self, plan: Plan) -> str:
        return plan.counted_by

    @display(description="when Redis is down", ordering="on_store_down")
    def store_down(self, plan: Any) -> str:
        return str(plan.get_on_store_down_display())

    @display(description="routes", ordering="routes_count")
    def routed(self, plan: Any) -> str:
        return cells.counted(plan.routes_count, cells.list_of("route", plan__id__exact=plan.pk))

    @display(description="consumers", ordering="consumers_count")
    def held(self, plan: Any) -> str:
        return cells.counted(plan.consumers_count, cells.list_of("consumer", plan__id__exact=plan.pk))


def _limit(limit: int | None) -> str:
    return cells.NONE if limit is None else figures.count(limit)
