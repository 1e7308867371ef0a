"""/api/v1/gateway/consumers"""

from __future__ import annotations

from rest_framework import serializers

from foundation import roles
from gateway.models import Consumer, Plan

from . import lists
from .answers import Choice
from .rows import NamedDetail, RowList, RowSerializer


class ConsumerSerializer(RowSerializer):
    roles = serializers.ListField(child=Choice(roles.RANKED), required=False)
    scopes = serializers.ListField(child=serializers.CharField(), required=False)
    plan = serializers.SlugRelatedField(
        slug_field="name",
        queryset=Plan.objects.all(),
        allow_null=True,
        required=False,
        help_text="Its limits count over all routes.",
    )

    class Meta:
        model = Consumer
        fields = ["id", "name", "roles", "scopes", "plan", "enabled"]


class ConsumerList(RowList):
    """GET: the consumers. POST: a new one; its keys are made below it."""

    queryset = Consumer.objects.select_related("plan")
    serializer_class = ConsumerSerializer
    filters = {
        **lists.NAMED,
        "plan": lists.text("plan__name", "With the plan of this name."),
        "enabled": lists.flag("enabled", "Whether its keys are accepted."),
    }


class ConsumerDetail(NamedDetail):
    """A consumer. Operators enable and disable it. Its keys are deleted with it."""

    queryset = Consumer.objects.select_related("plan")
    serializer_class = ConsumerSerializer
    operable = frozenset({"enabled"})
