"""/api/v1/gateway/status"""

from __future__ import annotations

from dataclasses import asdict

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gateway import issuers
from gateway.outages import KINDS


class TargetStatusSerializer(serializers.Serializer):
    name = serializers.CharField()
    breaker = serializers.CharField()
    inflight = serializers.IntegerField()


class OutageSerializer(serializers.Serializer):
    kind = serializers.ChoiceField(KINDS)
    name = serializers.CharField()
    code = serializers.CharField(help_text="Of a route: as in X-Brain-Error.")
    reason = serializers.CharField()


class StatusSerializer(serializers.Serializer):
    snapshot_version = serializers.IntegerField()
    routes = serializers.IntegerField()
    api_keys = serializers.IntegerField()
    issuers = serializers.ListField(child=serializers.CharField())
    targets = TargetStatusSerializer(many=True)
    out_of_service = OutageSerializer(many=True, help_text="What of the configuration cannot be used.")


class StatusView(APIView):
    """The configuration that this process uses."""

    @extend_schema(summary="Read the status of this process", responses=StatusSerializer)
    def get(self, request: Request) -> Response:
        snapshot = issuers.holder.refresh_if_due()
        targets = [
            {"name": target.name, "breaker": target.breaker.state, "inflight": target.inflight}
            for target in snapshot.targets
        ]
        return Response(
            {
                "snapshot_version": snapshot.version,
                "routes": len(snapshot.routes),
                "api_keys": len(snapshot.keys),
                "issuers": [issuer.name for issuer in snapshot.issuers],
                "targets": targets,
                "out_of_service": [asdict(one) for one in snapshot.outages],
            }
        )
