"""/api/v1/gateway/revisions: what each change did, and the way back."""

from __future__ import annotations

from collections import Counter
from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit, roles
from foundation.api import Conflict
from gateway import history
from gateway.errors import RollbackRefused
from gateway.models import Revision

from . import references
from .answers import told
from .documents import ChangeSerializer, change_shown
from .rows import RowList


class RevisionSerializer(serializers.ModelSerializer):
    counts = serializers.SerializerMethodField(help_text="Changes by their verb.")

    class Meta:
        model = Revision
        fields = ["version", "made_at", "actor", "source", "counts"]

    def get_counts(self, revision: Revision) -> dict[str, int]:
        return dict(Counter(change["verb"] for change in _changes(revision)))


class RevisionDetailSerializer(RevisionSerializer):
    changes = serializers.SerializerMethodField()

    class Meta(RevisionSerializer.Meta):
        fields = [*RevisionSerializer.Meta.fields, "changes"]

    @extend_schema_field(ChangeSerializer(many=True))
    def get_changes(self, revision: Revision) -> list[dict[str, Any]]:
        return _changes(revision)


def _changes(revision: Revision) -> list[dict[str, Any]]:
    return [change_shown(one["kind"], one["name"], one["before"], one["after"]) for one in revision.changes]


class VersionSerializer(serializers.Serializer):
    version = serializers.IntegerField()


class RevisionList(RowList):
    """Newest first."""

    queryset = history.revisions()
    serializer_class = RevisionSerializer
    orderings = ("-version",)
    http_method_names = ["get", "head", "options"]


class RevisionDetail(generics.GenericAPIView):
    """A revision with its changes: of each, the fields that differ, without secrets."""

    queryset = history.revisions()
    serializer_class = RevisionDetailSerializer

    def get(self, request: Request, version: int) -> Response:
        return Response(self.get_serializer(references.find(self.get_queryset(), version)).data)


class Rollback(APIView):
    """Make the configuration what it was at this version, as a new version. Takes no body."""

    required_role = roles.ADMIN

    @extend_schema(summary="Go back to one revision", request=None, responses=VersionSerializer)
    def post(self, request: Request, version: int) -> Response:
        references.find(history.revisions(), version)
        try:
            with told():
                made = history.rollback(version, **audit.by(request, "api"))
        except RollbackRefused as error:
            raise Conflict(str(error)) from error
        return Response({"version": made})
