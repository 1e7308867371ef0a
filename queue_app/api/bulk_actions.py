"""The REST API of bulk actions: /api/v1/queue/bulk-actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from foundation.api import Strict
from queue_app import bulk, selection
from queue_app.models import BulkAction
from queue_app.selection import Selection
from queue_app.states import Bulk

from .answers import Pages, conflict_if
from .shapes import WantedSerializer


class BulkActionSerializer(serializers.ModelSerializer[BulkAction]):
    progress = serializers.FloatField()

    class Meta:
        model = BulkAction
        fields = [
            "id", "action", "selection", "rate", "is_forced", "wanted", "seen", "done", "passed_over", "progress", "actor",
            "created_at", "finished_at", "is_stopped",
        ]  # fmt: skip


class StartSerializer(Strict, serializers.Serializer[Any]):
    """selection: as the filters of `jobs`; or all = true, for every job that is in a state for the action."""

    action = serializers.ChoiceField(choices=[action.value for action in Bulk])
    selection = serializers.DictField(child=serializers.CharField(), default=dict)
    all = serializers.BooleanField(default=False)
    rate = serializers.FloatField(
        default=None, allow_null=True, min_value=bulk.LOWEST_RATE, max_value=bulk.HIGHEST_RATE
    )
    force = serializers.BooleanField(default=False)
    dry_run = serializers.BooleanField(default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs["selection"] = selected(attrs["selection"], at="selection")
        if attrs.pop("all") != attrs["selection"].is_empty:
            raise ValidationError("give a selection; or all = true, for every job")
        if attrs["force"] and attrs["action"] != Bulk.CANCEL:
            raise ValidationError({"force": ["goes with cancel alone"]})
        return attrs


def selected(asked: Mapping[str, str], *, at: str = "") -> Selection:
    """Raises ValidationError. at: the field that holds them, if it is not the request itself."""
    try:
        return selection.read(asked, timezone.now())
    except selection.BadSelection as error:
        told = {name: [text] for name, text in error.errors.items()}
        raise ValidationError({at: told} if at else told) from error


class NewestStarted(Pages):
    ordering = ("-created_at", "-id")


class BulkActionList(generics.ListAPIView[BulkAction]):
    """GET: newest first. POST: start one; with `"dry_run": true` only count."""

    queryset = BulkAction.objects.all()
    serializer_class = BulkActionSerializer
    pagination_class = NewestStarted

    @extend_schema(
        summary="Start a bulk action",
        request=StartSerializer,
        responses={202: BulkActionSerializer, 200: WantedSerializer},
    )
    def post(self, request: Request) -> Response:
        asked = StartSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = dict(asked.validated_data)
        action, wanted = given.pop("action"), given.pop("selection")
        if given.pop("dry_run"):
            return Response({"wanted": bulk.count(action, wanted)})
        with conflict_if(bulk.NothingToDo):
            row = bulk.start(action, wanted, **given, **audit.by(request, "api"))
        return Response(BulkActionSerializer(row).data, status=status.HTTP_202_ACCEPTED)


class BulkActionDetail(generics.RetrieveAPIView[BulkAction]):
    queryset = BulkAction.objects.all()
    serializer_class = BulkActionSerializer


class BulkActionStop(APIView):
    """POST: go no further. 409 when it is over."""

    @extend_schema(summary="Stop a bulk action", request=None, responses=BulkActionSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        get_object_or_404(BulkAction, id=pk)
        with conflict_if(bulk.Ended):
            row = bulk.stop(pk, **audit.by(request, "api"))
        return Response(BulkActionSerializer(row).data)
