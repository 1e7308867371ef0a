"""/api/v1/gateway/routes"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from foundation import roles
from gateway import routing
from gateway.models import Plan, Route, Service

from . import lists
from .answers import Choice, Named
from .rows import NamedDetail, RowList, RowSerializer


class RouteSerializer(RowSerializer):
    name = serializers.CharField(
        max_length=200, required=False, help_text="Of a new route: its path when left out."
    )
    hosts = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="api.example.com, *.example.com. Empty: all.",
    )
    methods = serializers.ListField(
        child=Choice(sorted(routing.ANY_METHOD)), required=False, help_text="Empty: all."
    )
    headers = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="Headers that must have these values."
    )
    roles = serializers.ListField(
        child=Choice(roles.RANKED),
        required=False,
        help_text="Any of these, or a higher one. Empty: any caller.",
    )
    scopes = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="All of these. Empty: none is needed."
    )
    service = Named(queryset=Service.objects.all())
    plan = Named(queryset=Plan.objects.all(), allow_null=True, required=False)

    class Meta:
        model = Route
        fields = [
            "id", "name", "hosts", "path", "path_kind", "methods", "headers", "auth_required", "roles", "scopes", "plan",
            "cost", "service", "strip_prefix", "host_header", "hide_credentials", "timeout_s", "enabled", "created_at",
        ]  # fmt: skip
        read_only_fields = ["created_at"]
        kept = ["name"]

    def create(self, validated_data: dict[str, Any]) -> Any:
        return super().create({"name": validated_data["path"]} | validated_data)


class RouteList(RowList):
    """GET: the routes. POST: a new one."""

    queryset = Route.objects.select_related("service", "plan")
    serializer_class = RouteSerializer
    orderings = ("name", "path", "created_at", "id")
    filters = {
        **lists.NAMED,
        "path": lists.text("path__contains", "A part of the path."),
        "host": lists.holding("hosts", "Routes that name this host."),
        "service": lists.text("service__name", "To the service of this name."),
        "plan": lists.text("plan__name", "With the plan of this name."),
        "enabled": lists.flag("enabled", "Whether it is in use."),
    }


class RouteDetail(NamedDetail):
    """A route. Operators enable and disable it. Its transforms are deleted with it."""

    queryset = Route.objects.select_related("service", "plan")
    serializer_class = RouteSerializer
    operable = frozenset({"enabled"})
