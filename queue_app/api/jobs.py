"""The REST API of jobs: /api/v1/queue/jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import generics, serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from queue_app import cancelling, deadletter, offload
from queue_app.models import Job, JobEvent
from queue_app.states import State

from .answers import NewestFirst, conflict_if

_SUMMARY = [
    "id", "task", "queue", "state", "priority", "attempt", "max_attempts", "crash_count", "run_after",
    "is_held", "workflow", "parent", "request_id", "created_at", "started_at", "finished_at",
]  # fmt: skip


class EventSerializer(serializers.ModelSerializer[JobEvent]):
    class Meta:
        model = JobEvent
        fields = ["state", "at", "worker", "detail"]


class JobSummarySerializer(serializers.ModelSerializer[Job]):
    task = serializers.CharField(source="name")
    run_after = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = _SUMMARY

    def get_run_after(self, job: Job) -> datetime | None:
        return None if job.is_held else job.run_after


class JobSerializer(JobSummarySerializer):
    events = EventSerializer(many=True)
    payload = serializers.SerializerMethodField()

    class Meta(JobSummarySerializer.Meta):
        fields = [*_SUMMARY, "payload", "result", "last_error", "owner", "events"]

    def get_payload(self, job: Job) -> Any:
        return offload.shown(job)


class CancelSerializer(serializers.Serializer[Any]):
    force = serializers.BooleanField(default=False)


class JobList(generics.ListAPIView[Job]):
    """Jobs, newest first. Filters: `state`, `queue`, `request_id`."""

    serializer_class = JobSummarySerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Job]:
        asked = self.request.query_params
        if asked.get("state") and asked["state"] not in set(State):
            raise ValidationError({"state": [f"is not one of {', '.join(State)}"]})
        wanted = {key: asked[key] for key in ("state", "queue", "request_id") if asked.get(key)}
        return Job.objects.defer("payload", "result", "last_error").filter(**wanted)


class JobDetail(generics.RetrieveAPIView[Job]):
    serializer_class = JobSerializer
    queryset = Job.objects.prefetch_related("events")


class JobReplay(APIView):
    """POST: run a dead job again. 409 when it is not dead."""

    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        with conflict_if(deadletter.Refused):
            deadletter.replay(job, **audit.by(request, "api"))
        return Response(JobSerializer(job).data)


class JobCancel(APIView):
    """POST: stop a job; `{"force": true}` does not wait for a running one to notice. 409 when it is over already."""

    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        asked = CancelSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        with conflict_if(cancelling.Over):
            cancelling.cancel(job, force=asked.validated_data["force"], **audit.by(request, "api"))
        return Response(JobSerializer(job).data)
