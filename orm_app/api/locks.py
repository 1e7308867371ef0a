"""/api/v1/database/locks: who waits for whom, and ending one of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db import Error
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import roles
from foundation.api import Strict, asked, by
from orm_app import asking, health, locks

from .answers import ALIAS, DatabaseUnavailable, alias_of, value


class DatabaseSessionSerializer(serializers.Serializer):
    id = serializers.IntegerField()
    user = serializers.CharField(allow_blank=True)
    application = serializers.CharField(allow_blank=True)
    client = serializers.CharField(allow_blank=True)
    state = serializers.CharField(help_text="waiting, active, idle in transaction or idle.")
    sql = serializers.CharField(allow_blank=True, help_text="Without its values.")
    waits_for = serializers.CharField(allow_blank=True, help_text="Mode and table.")
    blocked_by = serializers.ListField(child=serializers.IntegerField())
    blocks = serializers.ListField(child=serializers.IntegerField())
    waiting_s = serializers.FloatField(allow_null=True)
    statement_s = serializers.FloatField(allow_null=True)
    transaction_s = serializers.FloatField(allow_null=True)
    is_ours = serializers.BooleanField(help_text="The one that asked.")


class LocksSerializer(serializers.Serializer):
    """Sessions that wait, that are waited for, or that are long in a transaction; the longest wait first."""

    alias = serializers.CharField()
    engine = serializers.CharField()
    waiting = serializers.IntegerField()
    longest_wait_s = serializers.FloatField()
    sessions = DatabaseSessionSerializer(many=True)
    notes = serializers.ListField(child=serializers.CharField())
    facts = serializers.DictField(help_text="Of a SQLite file.")


class WhichSessionSerializer(Strict, serializers.Serializer):
    """Which session."""

    alias = serializers.CharField(default="default")
    id = serializers.IntegerField(min_value=1, max_value=2**63 - 1)


class LocksView(APIView):
    """Who waits for whom now. Statements are without their values."""

    @extend_schema(summary="Read the locks", parameters=[ALIAS], responses=LocksSerializer)
    def get(self, request: Request) -> Response:
        alias = alias_of(asked(request, ["alias"])["alias"])
        found = value(alias, asking.of(alias, "locks", lambda: locks.every(alias)))
        return Response(asdict(found) | {"waiting": found.waiting, "longest_wait_s": found.longest_wait_s})


class CancelView(APIView):
    """The session's statement fails; the session stays."""

    @extend_schema(
        summary="Cancel a session's statement",
        request=WhichSessionSerializer,
        responses=DatabaseSessionSerializer,
    )
    def post(self, request: Request) -> Response:
        return _done(request, locks.cancel)


class EndView(APIView):
    """The session is closed, and its transaction rolled back."""

    required_role = roles.ADMIN

    @extend_schema(
        summary="End a session", request=WhichSessionSerializer, responses=DatabaseSessionSerializer
    )
    def post(self, request: Request) -> Response:
        return _done(request, locks.end)


def _done(request: Request, act: Any) -> Response:
    given = WhichSessionSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    alias = alias_of(given.validated_data["alias"])
    try:
        session = act(alias, given.validated_data["id"], **by(request))
    except locks.NoSuchSession as error:
        raise NotFound(f"{error}.") from error
    except Error as error:
        raise DatabaseUnavailable(f"{alias}: {health.reason(alias, error)}") from error
    return Response(asdict(session))
