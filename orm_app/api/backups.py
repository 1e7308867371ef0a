"""/api/v1/database/backups: the list, taking one, verifying one. Both go on in a process of their own."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import roles
from foundation.api import Strict, asked, by
from orm_app import backup_checks, backups, operations
from orm_app.backups import Backup, BackupFailed

from .answers import alias_of


class BackupSerializer(serializers.Serializer):
    name = serializers.CharField()
    state = serializers.ChoiceField(["ok", "running", "failed"])
    alias = serializers.CharField(allow_blank=True)
    engine = serializers.CharField(allow_blank=True)
    database = serializers.CharField(allow_blank=True)
    server_version = serializers.CharField(allow_blank=True)
    taken_at = serializers.CharField(allow_blank=True, help_text="ISO 8601, UTC.")
    took_s = serializers.FloatField(allow_null=True)
    size_bytes = serializers.IntegerField(allow_null=True)
    tables = serializers.IntegerField(allow_null=True)
    rows = serializers.IntegerField(allow_null=True)
    verified = serializers.ChoiceField(
        ["restored", "archive", "no"], help_text="restored: into a scratch database, and compared."
    )
    is_being_verified = serializers.BooleanField()
    problem = serializers.CharField(allow_blank=True, help_text="What the last verification found.")
    detail = serializers.CharField(allow_blank=True, help_text="Why it failed, or how far it is.")


class BackupsSerializer(serializers.Serializer):
    backups = BackupSerializer(many=True)


class WhichDatabaseSerializer(Strict, serializers.Serializer):
    """Which database."""

    alias = serializers.CharField(default="default")


class WhichBackupSerializer(Strict, serializers.Serializer):
    """Which backup, by its name in the list."""

    name = serializers.CharField(max_length=255)


class BegunSerializer(serializers.Serializer):
    pid = serializers.IntegerField(help_text="Of the process that does it; the list says how far it is.")


class CannotBegin(APIException):
    status_code = 409
    default_code = "cannot_begin"


class BackupsView(APIView):
    """The newest first, with those that are being made and those that failed. Restoring is the command line's."""

    @extend_schema(summary="List backups", operation_id="database_backups_list", responses=BackupsSerializer)
    def get(self, request: Request) -> Response:
        asked(request, [])
        try:
            found = backups.every()
        except BackupFailed as failed:
            raise CannotBegin(_told(failed)) from failed
        return Response({"backups": [_document(one) for one in found]})


class TakeView(APIView):
    """Begins one: a snapshot, restored into a scratch database and compared."""

    required_role = roles.ADMIN

    @extend_schema(summary="Take a backup", request=WhichDatabaseSerializer, responses={202: BegunSerializer})
    def post(self, request: Request) -> Response:
        given = WhichDatabaseSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        alias = alias_of(given.validated_data["alias"])
        return _begun(lambda: operations.begin_backup(alias, **by(request)))


class VerifyView(APIView):
    """Begins to restore it into a scratch database beside its own, and to compare."""

    required_role = roles.ADMIN

    @extend_schema(summary="Verify a backup", request=WhichBackupSerializer, responses={202: BegunSerializer})
    def post(self, request: Request) -> Response:
        given = WhichBackupSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        return _begun(lambda: operations.begin_check(given.validated_data["name"], **by(request)))


def _begun(begin: Any) -> Response:
    try:
        return Response({"pid": begin()}, status=status.HTTP_202_ACCEPTED)
    except operations.NoSuchBackup as error:
        raise NotFound(f"{error}.") from error
    except BackupFailed as failed:
        raise CannotBegin(_told(failed)) from failed


def _document(one: Backup) -> dict[str, Any]:
    check = backup_checks.last(one.path)
    more = {
        "is_being_verified": check is not None and check.is_running,
        "problem": check.error if check is not None else "",
    }
    return {name: getattr(one, name) for name in BackupSerializer().fields if name not in more} | more


def _told(failed: BackupFailed) -> str:
    return f"{failed}. {failed.hint}".strip()
