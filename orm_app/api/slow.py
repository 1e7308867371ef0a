"""/api/v1/database/slow: statements that were slow or repeated."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation.api import Strict, asked, by
from orm_app import operations, slow
from orm_app.models import SlowQuery

from .answers import alias_of, chosen

_ORDERS = ("total", "max", "count", "last")
_KINDS = ("slow", "n_plus_one")
_USUAL, _MOST = 100, 1_000  # rows of an answer


class SlowStatementSerializer(serializers.ModelSerializer):
    mean_ms = serializers.FloatField()

    class Meta:
        model = SlowQuery
        fields = (
            "fingerprint", "kind", "alias", "sql", "call_site", "hint", "count", "statements", "most", "total_ms",
            "mean_ms", "max_ms", "last_ms", "rows", "in_transaction", "error", "unit_kind", "unit_name", "unit_id",
            "first_seen", "last_seen", "plan", "plan_at",
        )  # fmt: skip


class SlowStatementsSerializer(serializers.Serializer):
    slow = SlowStatementSerializer(many=True)


class ClearSlowSerializer(Strict, serializers.Serializer):
    """Of which database; without it of all."""

    alias = serializers.CharField(default="", allow_blank=True)


class DroppedSerializer(serializers.Serializer):
    dropped = serializers.IntegerField()


class SlowView(APIView):
    """Of all processes, without values, with the call site and the request or job that was last."""

    @extend_schema(
        summary="List slow statements",
        operation_id="database_slow_list",
        parameters=[
            OpenApiParameter("alias", str, description="Of this database alone."),
            OpenApiParameter("kind", str, enum=list(_KINDS), description="Slow, or repeated by one unit of work."),
            OpenApiParameter("order", str, enum=list(_ORDERS), description="The largest first; usually total."),
            OpenApiParameter("limit", int, description=f"Usually {_USUAL}, at most {_MOST}."),
        ],
        responses=SlowStatementsSerializer,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        given = asked(request, ["alias", "kind", "order", "limit"])
        found = slow.every(
            alias_of(given["alias"]) if given["alias"] else None,
            chosen("kind", given["kind"], _KINDS, "") or None,
            chosen("order", given["order"], _ORDERS, "total"),
            limit=_limit(given["limit"]),
        )
        return Response({"slow": SlowStatementSerializer(found, many=True).data})


class ClearView(APIView):
    """Their counts, call sites and plans go, of all processes."""

    @extend_schema(summary="Clear slow statements", request=ClearSlowSerializer, responses=DroppedSerializer)
    def post(self, request: Request) -> Response:
        given = ClearSlowSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        alias: Any = given.validated_data["alias"]
        return Response({"dropped": operations.clear_slow(alias_of(alias) if alias else None, **by(request))})


def _limit(text: str) -> int:
    if not text:
        return _USUAL
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= _MOST):
        raise ValidationError({"limit": [f"is a whole number from 1 to {_MOST}"]})
    return int(text)
