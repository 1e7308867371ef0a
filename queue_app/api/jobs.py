"""The REST API of jobs: /api/v1/queue/jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from foundation.api import Strict
from queue_app import by_hand, cancelling, deadletter, finding, offload, promoting
from queue_app.models import Job, JobEvent
from queue_app.payloads import BadPayload
from queue_app.queues import UnknownQueue
from queue_app.registry import UnknownTask

from .answers import SELECTION, NewestFirst, conflict_if
from .bulk_actions import selected
from .shapes import EnqueuedSerializer

_SUMMARY = [
    "id", "task", "queue", "tenant", "tags", "state", "priority", "attempt", "max_attempts", "crash_count", "run_after",
    "is_held", "workflow", "parent", "request_id", "created_at", "started_at", "finished_at",
]  # fmt: skip


class EventSerializer(serializers.ModelSerializer[JobEvent]):
    class Meta:
        model = JobEvent
        fields = ["state", "at", "worker", "detail"]


class JobSummarySerializer(serializers.ModelSerializer[Job]):
    task = serializers.CharField(source="name")
    tags = serializers.ListField(child=serializers.CharField())
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


class CancelSerializer(Strict, serializers.Serializer[Any]):
    force = serializers.BooleanField(default=False)


class NewJobSerializer(Strict, serializers.Serializer[Any]):
    """What can be enqueued is said by `enqueue` alone."""

    task = serializers.CharField(max_length=200)
    payload = serializers.DictField(default=dict)
    queue = serializers.CharField(required=False, max_length=100)
    priority = serializers.IntegerField(required=False)
    delay_s = serializers.FloatField(required=False)
    run_at = serializers.DateTimeField(required=False)
    expires_s = serializers.FloatField(required=False)
    unique = serializers.CharField(required=False)
    tenant = serializers.CharField(required=False, allow_blank=True)
    tags = serializers.ListField(child=serializers.CharField(), required=False)
    max_retries = serializers.IntegerField(required=False)


@extend_schema_view(get=extend_schema(summary="List jobs"))
class JobList(generics.ListAPIView[Job]):
    """GET: jobs, newest first. Filters: the fields of `Selection`. POST: enqueue one."""

    serializer_class = JobSummarySerializer
    pagination_class = NewestFirst
    filters = SELECTION

    def get_queryset(self) -> QuerySet[Job]:
        asked = self.request.query_params.dict()
        wanted = selected({name: text for name, text in asked.items() if name not in ("cursor", "page_size")})
        return finding.jobs(wanted).defer("payload", "result", "last_error").prefetch_related("tag_rows")

    @extend_schema(
        summary="Enqueue a job",
        request=NewJobSerializer,
        responses={201: EnqueuedSerializer, 200: EnqueuedSerializer},
    )
    def post(self, request: Request) -> Response:
        given = NewJobSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        job = _enqueued(dict(given.validated_data), audit.by(request, "api"))
        code = status.HTTP_200_OK if job.is_duplicate else status.HTTP_201_CREATED
        return Response({"id": str(job.id), "is_duplicate": job.is_duplicate}, status=code)


class JobDetail(generics.RetrieveAPIView[Job]):
    serializer_class = JobSerializer
    queryset = Job.objects.prefetch_related("events", "tag_rows")


class JobReplay(APIView):
    """POST: run a dead job again. 409 when it is not dead."""

    @extend_schema(summary="Replay a dead letter", request=None, responses=JobSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        with conflict_if(deadletter.Refused):
            deadletter.replay(job, **audit.by(request, "api"))
        return Response(JobSerializer(job).data)


class JobDiscard(APIView):
    """POST: give a dead job up. 409 when it is not dead."""

    @extend_schema(summary="Discard a dead letter", request=None, responses=JobSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        with conflict_if(deadletter.Refused):
            deadletter.discard(job, **audit.by(request, "api"))
        return Response(JobSerializer(job).data)


class JobRun(APIView):
    """POST: run a job now that waits for its time or its retry. 409 when it does not."""

    @extend_schema(summary="Run a job now", request=None, responses=JobSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        with conflict_if(promoting.NotLater):
            promoting.run_now(job, **audit.by(request, "api"))
        return Response(JobSerializer(job).data)


class JobCancel(APIView):
    """POST: stop a job; `{"force": true}` does not wait for a running one to notice. 409 when it is over already."""

    @extend_schema(summary="Cancel a job", request=CancelSerializer, responses=JobSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        asked = CancelSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        with conflict_if(cancelling.Over):
            cancelling.cancel(job, force=asked.validated_data["force"], **audit.by(request, "api"))
        return Response(JobSerializer(job).data)


_WORDS = {"delay_s": "delay", "expires_s": "expires"}  # field → option of `enqueue`


def _enqueued(given: dict[str, Any], trace: dict[str, Any]) -> Job:
    try:
        return by_hand.enqueue(
            given.pop("task"),
            given.pop("payload"),
            trace=trace,
            **{_WORDS.get(name, name): value for name, value in given.items()},
        )
    except BadPayload as error:
        raise ValidationError({"payload": [str(error)]}) from error
    except UnknownTask as error:
        raise ValidationError({"task": [str(error)]}) from error
    except UnknownQueue as error:
        raise ValidationError({"queue": [str(error)]}) from error
    except ValueError as error:
        raise ValidationError(str(error)) from error
