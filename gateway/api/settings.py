"""/api/v1/gateway/settings: what holds for the whole gateway."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from foundation import roles
from gateway.models import Configuration

from . import etags
from .rows import RowSerializer, tagged, writing
from .schema import ETAG, IF_MATCH


class SettingsSerializer(RowSerializer):
    class Meta:
        model = Configuration
        fields = ["api_key_header"]


class SettingsView(GenericAPIView):
    """The name of the header that carries API keys."""

    queryset = Configuration.objects.all()
    serializer_class = SettingsSerializer
    required_role = {"PATCH": roles.ADMIN}

    @extend_schema(parameters=[ETAG])
    def get(self, request: Request) -> Response:
        return tagged(self.get_serializer(self._row(self.get_queryset())))

    @extend_schema(parameters=[IF_MATCH, ETAG])
    def patch(self, request: Request) -> Response:
        with writing():  # first: the row is written as a whole, and the version stands in it
            row = self._row(self.get_queryset())
            etags.require_match(request, self.get_serializer(row).etag())
            serializer = self.get_serializer(row, data=request.data, partial=True)
            serializer.is_valid(raise_exception=True)
            serializer.save()
        return tagged(serializer)

    def _row(self, rows: Any) -> Configuration:
        found: Configuration = rows.filter(pk=1).first() or Configuration(pk=1)
        return found
