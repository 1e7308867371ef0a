"""/api/v1/gateway/test: what would become of a request, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import roles
from foundation.api import Strict
from gateway import board, issuers, tester

_MOST_HEADERS = 100


class TestedSerializer(Strict, serializers.Serializer):
    """A request."""

    method = serializers.CharField(max_length=20, default="GET")
    url = serializers.CharField(max_length=8192, help_text="A path, or a whole URL, whose host then counts.")
    headers = serializers.DictField(
        child=serializers.CharField(allow_blank=True, max_length=16_384),
        required=False,
        help_text="Credentials among them are neither stored nor logged, and not in the answer.",
    )
    consumer = serializers.CharField(
        max_length=150,
        required=False,
        help_text="Who calls, by name, instead of a credential among the headers.",
    )
    client_ip = serializers.CharField(max_length=60, default="127.0.0.1")

    def validate_headers(self, headers: dict[str, str]) -> dict[str, str]:
        if len(headers) > _MOST_HEADERS:
            raise ValidationError(f"at most {_MOST_HEADERS}")
        return headers


class StepSerializer(serializers.Serializer):
    rule = serializers.CharField(help_text="One of the pipeline's, in its order.")
    result = serializers.ChoiceField(["ok", "refused", "skipped"])
    why = serializers.CharField()


class TestedTargetSerializer(serializers.Serializer):
    name = serializers.CharField()
    why = serializers.CharField(help_text="Why it gets no traffic, or less; empty where nothing is wrong.")


class OtherRouteSerializer(serializers.Serializer):
    name = serializers.CharField()
    why = serializers.CharField()


class ExplanationSerializer(serializers.Serializer):
    """What would become of it."""

    verdict = serializers.CharField(help_text="In a sentence.")
    status = serializers.IntegerField(
        allow_null=True, help_text="Of the refusal; null where it would be passed on."
    )
    route = serializers.CharField(allow_null=True)
    service = serializers.CharField(allow_null=True)
    plan = serializers.ListField(child=serializers.CharField(), help_text="The limits that would be counted.")
    transforms = serializers.ListField(child=serializers.CharField(), help_text="By name, in order.")
    targets = TestedTargetSerializer(many=True)
    steps = StepSerializer(many=True)
    others = OtherRouteSerializer(
        many=True, help_text="Routes whose path matches as well, and why they were not taken."
    )


class TesterView(APIView):
    """Which route, plan and transformations a request would meet, step by step. Nothing is sent, counted or stored."""

    required_role = roles.VIEWER  # it looks, though it is a POST

    @extend_schema(summary="Test a request", request=TestedSerializer, responses=ExplanationSerializer)
    def post(self, request: Request) -> Response:
        asked = TestedSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return Response(_explained(**asked.validated_data), headers={"Cache-Control": "no-store"})


def _explained(
    method: str, url: str, client_ip: str, headers: dict[str, str] | None = None, consumer: str | None = None
) -> dict[str, Any]:
    snapshot = issuers.holder.refresh_if_due()
    try:
        found = tester.explain(
            snapshot, method, url, list((headers or {}).items()), client_ip, consumer, board.read()
        )
    except ValueError as error:
        raise ValidationError([str(error)]) from error
    told = asdict(found)
    for name in ("targets", "others"):
        told[name] = [{"name": of, "why": why} for of, why in told[name]]
    return told
