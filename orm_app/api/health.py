"""/api/v1/database/health: what a DBA looks at first."""

from __future__ import annotations

from dataclasses import asdict

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation.api import asked
from orm_app import standing

from .answers import ALIAS, alias_of, value


class HealthFindingSerializer(serializers.Serializer):
    name = serializers.CharField()
    level = serializers.CharField(help_text="ok, warn or bad.")
    text = serializers.CharField(help_text="Why.")
    hint = serializers.CharField(allow_blank=True, help_text="What to do.")
    value = serializers.JSONField(allow_null=True, help_text="The number or word behind the text.")


class TableSizeSerializer(serializers.Serializer):
    name = serializers.CharField()
    rows = serializers.IntegerField(allow_null=True, help_text="By the engine's statistics.")
    size_bytes = serializers.IntegerField(allow_null=True)


class CheckupSerializer(serializers.Serializer):
    alias = serializers.CharField()
    engine = serializers.CharField()
    version = serializers.CharField(allow_null=True)
    state = serializers.CharField(help_text="ok, warn or bad: of the worst finding.")
    findings = HealthFindingSerializer(many=True)
    size_bytes = serializers.IntegerField(allow_null=True)
    tables = TableSizeSerializer(many=True, help_text="The biggest first.")


class HealthView(APIView):
    """A database's findings with their reasons and hints, its size and biggest tables."""

    @extend_schema(summary="Read the health", parameters=[ALIAS], responses=CheckupSerializer)
    def get(self, request: Request) -> Response:
        alias = alias_of(asked(request, ["alias"])["alias"])
        return Response(asdict(value(alias, standing.checkup(alias))))
