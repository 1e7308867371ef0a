"""The dead letters' REST API: groups to read, replays of many at a rate, payloads to mend."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from queue_app import deadletter, replays
from queue_app.deadletter import Choice
from queue_app.models import Job, Replay
from queue_app.offload import PayloadLost
from queue_app.payloads import BadPayload
from queue_app.registry import UnknownTask

from .answers import conflict_if


class ReplaySerializer(serializers.ModelSerializer[Replay]):
    class Meta:
        model = Replay
        fields = [
            "id", "queue", "task", "fingerprint", "rate", "wanted", "replayed", "passed_over", "actor", "created_at",
            "finished_at", "is_stopped",
        ]  # fmt: skip


class StartSerializer(serializers.Serializer[Any]):
    queue = serializers.CharField(default="", allow_blank=True, max_length=100)
    task = serializers.CharField(default="", allow_blank=True, max_length=200)
    fingerprint = serializers.CharField(default="", allow_blank=True, max_length=16)
    all = serializers.BooleanField(default=False)
    rate = serializers.FloatField(
        default=None, allow_null=True, min_value=replays.LOWEST_RATE, max_value=replays.HIGHEST_RATE
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        is_all = attrs.pop("all")
        if is_all == any(attrs[name] for name in Choice._fields):
            raise ValidationError(
                "give a queue, a task or a fingerprint; or all = true, for every dead letter"
            )
        return attrs


class PayloadSerializer(serializers.Serializer[Any]):
    payload = serializers.DictField()


class NewestReplays(CursorPagination):
    ordering = ("-created_at", "-id")
    page_size = 50


class DeadLetters(APIView):
    """The dead letters by what they failed of. Filters: `queue`, `task`, `fingerprint`."""

    def get(self, request: Request) -> Response:
        asked = Choice(**{name: request.query_params.get(name, "") for name in Choice._fields})
        return Response({"results": [group._asdict() for group in deadletter.groups(asked)]})


class ReplayList(generics.ListAPIView[Replay]):
    """GET: replays of many, newest first. POST: start one, of a filter or of all, `rate` jobs per second."""

    queryset = Replay.objects.all()
    serializer_class = ReplaySerializer
    pagination_class = NewestReplays

    def post(self, request: Request) -> Response:
        asked = StartSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        rate = asked.validated_data.pop("rate")
        with conflict_if(replays.NothingDead):
            row = replays.start(Choice(**asked.validated_data), rate=rate, **audit.by(request, "api"))
        return Response(ReplaySerializer(row).data, status=status.HTTP_202_ACCEPTED)


class ReplayDetail(generics.RetrieveAPIView[Replay]):
    queryset = Replay.objects.all()
    serializer_class = ReplaySerializer


class ReplayStop(APIView):
    """POST: replay no more of them. 409 when it is over."""

    def post(self, request: Request, pk: UUID) -> Response:
        get_object_or_404(Replay, id=pk)
        with conflict_if(replays.Ended):
            row = replays.stop(pk, **audit.by(request, "api"))
        return Response(ReplaySerializer(row).data)


class PayloadEdit(APIView):
    """POST: another payload for a dead job. 400 when its task does not take it, 409 when it is not dead."""

    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        asked = PayloadSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            with conflict_if(deadletter.Refused, UnknownTask, PayloadLost):
                changes = deadletter.edit(job, asked.validated_data["payload"], **audit.by(request, "api"))
        except BadPayload as error:
            raise ValidationError({"payload": [str(error)]}) from error
        return Response({"id": str(job.id), "changes": changes})
