"""The queue's REST API: jobs and queues to read, jobs to cancel, dead letters to replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import generics, serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit

from . import cancelling, deadletter, offload, stats, workers
from .models import Job, JobEvent, Worker
from .states import Asked, State

_SUMMARY = [
    "id", "task", "queue", "state", "priority", "attempt", "max_attempts", "crash_count", "run_after",
    "is_held", "workflow", "parent", "request_id", "created_at", "started_at", "finished_at",
]  # fmt: skip


class Conflict(APIException):
    status_code = 409
    default_code = "conflict"


@contextmanager
def conflict_if(*errors: type[Exception]) -> Iterator[None]:
    """These errors are the client's to read, as 409."""
    try:
        yield
    except errors as error:
        raise Conflict(str(error)) from error


class Strict(serializers.BaseSerializer[Any]):
    """Refuses fields that it does not have: a misspelt one must not pass for one that is set."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = set(data) - set(self.fields) if isinstance(data, Mapping) else ()
        if unknown:
            raise ValidationError({name: ["is not known here"] for name in sorted(unknown)})
        return super().to_internal_value(data)


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


class NewestFirst(CursorPagination):
    ordering = "-id"  # uuid7: by time
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500


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


class WorkerSerializer(serializers.ModelSerializer[Worker]):
    class Meta:
        model = Worker
        fields = [
            "id", "host", "pid", "pool", "concurrency", "queues", "running", "stuck", "memory_bytes", "ended",
            "asked", "started_at", "last_seen_at", "lease_until",
        ]  # fmt: skip


class AskSerializer(serializers.Serializer[Any]):
    asked = serializers.ChoiceField(choices=[asked.value for asked in Asked], allow_blank=True)


class WorkerList(generics.ListAPIView[Worker]):
    """Workers that are alive, newest first."""

    serializer_class = WorkerSerializer
    pagination_class = None

    def get_queryset(self) -> QuerySet[Worker]:
        return workers.living()


class WorkerAsk(APIView):
    """POST `{"asked": "quiet" | "stop" | "recycle" | ""}`. 409 when it is not alive, or ends already."""

    def post(self, request: Request, pk: UUID) -> Response:
        worker = get_object_or_404(Worker, id=pk)
        given = AskSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        with conflict_if(workers.Refused):
            asked = workers.ask(worker, given.validated_data["asked"], **audit.by(request, "api"))
        return Response(WorkerSerializer(asked).data)


class QueueList(APIView):
    def get(self, request: Request) -> Response:
        return Response({"results": [_depth(depth) for depth in stats.depths()]})


def _depth(depth: stats.Depth) -> dict[str, Any]:
    return {
        "name": depth.queue,
        "paused": depth.paused,
        "oldest_due_s": round(depth.oldest_due_s, 3),
        "jobs": depth.jobs,
    }
