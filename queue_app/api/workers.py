"""The REST API of workers: /api/v1/queue/workers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from queue_app import workers
from queue_app.models import Worker
from queue_app.states import Asked

from .answers import conflict_if


class WorkerSerializer(serializers.ModelSerializer[Worker]):
    class Meta:
        model = Worker
        fields = [
            "id", "host", "pid", "version", "pool", "concurrency", "queues", "running", "stuck", "memory_bytes", "ended",
            "asked", "started_at", "last_seen_at", "lease_until",
        ]  # fmt: skip


class AskSerializer(serializers.Serializer[Any]):
    asked = serializers.ChoiceField(choices=[asked.value for asked in Asked], allow_blank=True)


@extend_schema_view(get=extend_schema(summary="List workers that are alive"))
class WorkerList(generics.ListAPIView[Worker]):
    """Workers that are alive, newest first."""

    serializer_class = WorkerSerializer
    pagination_class = None

    def get_queryset(self) -> QuerySet[Worker]:
        return workers.living()


class WorkerAsk(APIView):
    """POST `{"asked": "quiet" | "stop" | "recycle" | ""}`. 409 when it is not alive, or ends already."""

    @extend_schema(summary="Ask a worker", request=AskSerializer, responses=WorkerSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        worker = get_object_or_404(Worker, id=pk)
        given = AskSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        with conflict_if(workers.Refused):
            asked = workers.ask(worker, given.validated_data["asked"], **audit.by(request, "api"))
        return Response(WorkerSerializer(asked).data)
