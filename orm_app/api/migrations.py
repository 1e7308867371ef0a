"""/api/v1/database/migrations: what is applied, what migrate would do, and what the lint says of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation.api import asked
from orm_app import migration_standing
from orm_app.migration_journal import Broken

from .answers import ALIAS, alias_of, value


class MigrationSerializer(serializers.Serializer):
    app = serializers.CharField()
    name = serializers.CharField()
    state = serializers.ChoiceField(
        ["applied", "pending", "edited", "gone"],
        help_text="edited: its SQL is another one than was applied. gone: it has no file.",
    )
    applied_at = serializers.DateTimeField(allow_null=True)


class OperationSerializer(serializers.Serializer):
    describes = serializers.CharField()
    sql = serializers.ListField(child=serializers.CharField())
    note = serializers.CharField(allow_blank=True, help_text="Why there is no SQL.")


class PlannedMigrationSerializer(serializers.Serializer):
    app = serializers.CharField()
    name = serializers.CharField()
    is_backwards = serializers.BooleanField()
    is_atomic = serializers.BooleanField(help_text="In one transaction; else it can break half way.")
    operations = OperationSerializer(many=True)


class FindingSerializer(serializers.Serializer):
    """Of the lint, for this database's dialect."""

    rule = serializers.CharField()
    level = serializers.ChoiceField(["error", "warning"])
    app = serializers.CharField()
    migration = serializers.CharField()
    message = serializers.CharField()
    rewrite = serializers.CharField(help_text="How to do it safely.")
    allowed = serializers.CharField(allow_blank=True, help_text="Its author's reason.")


class UnfinishedSerializer(serializers.Serializer):
    """It stands half way: broken, stopped, or running now."""

    app = serializers.CharField()
    name = serializers.CharField()
    is_backwards = serializers.BooleanField()
    operations_done = serializers.IntegerField()
    statements_done = serializers.IntegerField(help_text="Of the operation that follows.")
    has_error = serializers.BooleanField()


class MigrationsSerializer(serializers.Serializer):
    alias = serializers.CharField()
    pending = serializers.IntegerField()
    refused = serializers.IntegerField(help_text="Findings that stop `migrate` as this site is set.")
    migrations = MigrationSerializer(many=True)
    plan = PlannedMigrationSerializer(many=True)
    findings = FindingSerializer(many=True)
    unfinished = UnfinishedSerializer(many=True)


class MigrationsView(APIView):
    """Applied and pending migrations of a database, and the plan with its SQL. `manage.py database migrate` applies it."""

    @extend_schema(summary="Read the migrations", parameters=[ALIAS], responses=MigrationsSerializer)
    def get(self, request: Request) -> Response:
        alias = alias_of(asked(request, ["alias"])["alias"])
        found = value(alias, migration_standing.asked(alias))
        return Response(
            {
                "alias": alias,
                "pending": found.pending,
                "refused": found.refused,
                "migrations": [asdict(one) for one in found.rows],
                "plan": [asdict(one) for one in found.planned],
                "findings": [_finding(one) for one in found.findings],
                "unfinished": [_unfinished(one) for one in found.unfinished],
            }
        )


def _finding(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in FindingSerializer().fields}


def _unfinished(one: Broken) -> dict[str, Any]:
    return {
        "app": one.key[0],
        "name": one.key[1],
        "is_backwards": one.is_backwards,
        "operations_done": len(one.done),
        "statements_done": len(one.statements),
        "has_error": bool(one.error),
    }
