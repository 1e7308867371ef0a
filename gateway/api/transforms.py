"""/api/v1/gateway/transforms"""

from __future__ import annotations

from rest_framework import serializers

from gateway.models import Route, Service, Transform

from . import lists
from .answers import Named
from .rows import NamedDetail, RowList, RowSerializer


class TransformSerializer(RowSerializer):
    route = Named(queryset=Route.objects.all(), allow_null=True, required=False)
    service = Named(queryset=Service.objects.all(), allow_null=True, required=False)
    request = serializers.DictField(required=False, help_text="What is changed in requests.")
    response = serializers.DictField(required=False, help_text="What is changed in responses.")
    settings = serializers.DictField(required=False, help_text="Of the plugin.")

    class Meta:
        model = Transform
        fields = [
            "id", "name", "route", "service", "position", "request", "response", "plugin", "settings", "on_failure",
            "enabled",
        ]  # fmt: skip


class TransformList(RowList):
    """GET: the transforms. POST: a new one, of a route or of a service."""

    queryset = Transform.objects.select_related("route", "service")
    serializer_class = TransformSerializer
    orderings = ("name", "id")
    filters = {
        **lists.NAMED,
        "route": lists.text("route__name", "Of the route of this name."),
        "service": lists.text("service__name", "Of the service of this name."),
        "plugin": lists.text("plugin", "With this plugin."),
        "enabled": lists.flag("enabled", "Whether it is in use."),
    }


class TransformDetail(NamedDetail):
    """A transform. Operators enable and disable it."""

    queryset = Transform.objects.select_related("route", "service")
    serializer_class = TransformSerializer
    operable = frozenset({"enabled"})
