"""The REST API of workflows: /api/v1/queue/workflows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import OuterRef, QuerySet, Subquery
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from queue_app import trees
from queue_app.composition import Kind
from queue_app.models import Job, Member, Workflow

from .answers import NewestFirst, Pages, conflict_if
from .jobs import CancelSerializer
from .shapes import CutSerializer


class WorkflowSerializer(serializers.ModelSerializer[Workflow]):
    status = serializers.CharField()
    progress = serializers.FloatField()

    class Meta:
        model = Workflow
        fields = [
            "id", "kind", "name", "status", "progress", "total", "tried", "completed", "dead", "cancelled", "is_cancelled",
            "parent", "request_id", "created_at", "finished_at",
        ]  # fmt: skip


class MemberSerializer(serializers.ModelSerializer[Member]):
    """state and task are null when the job's row is past its retention."""

    task = serializers.CharField()
    state = serializers.CharField()

    class Meta:
        model = Member
        fields = ["position", "job", "task", "state", "role", "is_held", "behind", "opens"]


class CancelledWorkflowSerializer(CutSerializer, WorkflowSerializer):
    """The workflow as it stands then, and what became of its jobs."""

    class Meta(WorkflowSerializer.Meta):
        fields = [*WorkflowSerializer.Meta.fields, *CutSerializer().fields]


class ByPosition(Pages):
    ordering = "position"


@extend_schema_view(get=extend_schema(summary="List workflows"))
class WorkflowList(generics.ListAPIView[Workflow]):
    """Workflows, newest first. Filters: `kind`, `finished` (true or false)."""

    serializer_class = WorkflowSerializer
    pagination_class = NewestFirst
    filters = {
        "kind": f"One of {', '.join(Kind)}.",
        "finished": "true: those that are over; false: the others.",
    }

    def get_queryset(self) -> QuerySet[Workflow]:
        asked, found = self.request.query_params, Workflow.objects.all()
        kind, finished = asked.get("kind"), asked.get("finished")
        if kind and kind not in set(Kind):
            raise ValidationError({"kind": [f"is not one of {', '.join(Kind)}"]})
        if finished and finished not in ("true", "false"):
            raise ValidationError({"finished": ["is neither true nor false"]})
        found = found.filter(kind=kind) if kind else found
        return found.filter(finished_at__isnull=finished == "false") if finished else found


class WorkflowDetail(generics.RetrieveAPIView[Workflow]):
    queryset = Workflow.objects.all()
    serializer_class = WorkflowSerializer


@extend_schema_view(get=extend_schema(summary="List a workflow's jobs"))
class WorkflowJobs(generics.ListAPIView[Member]):
    """The places of its jobs, in their order."""

    serializer_class = MemberSerializer
    pagination_class = ByPosition

    def get_queryset(self) -> QuerySet[Member]:
        flow = get_object_or_404(Workflow, pk=self.kwargs["pk"])
        job = Job.objects.filter(id=OuterRef("job"))
        return Member.objects.filter(workflow=flow).annotate(
            task=Subquery(job.values("name")[:1]), state=Subquery(job.values("state")[:1])
        )


class WorkflowCancel(APIView):
    """POST: cancel all of it, and what its jobs have enqueued; `{"force": true}` as for a job. 409 when it is over."""

    @extend_schema(
        summary="Cancel a workflow", request=CancelSerializer, responses=CancelledWorkflowSerializer
    )
    def post(self, request: Request, pk: UUID) -> Response:
        flow, asked = get_object_or_404(Workflow, pk=pk), CancelSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return Response(
            cut(flow, request, force=asked.validated_data["force"]) | WorkflowSerializer(flow).data
        )


class JobTreeCancel(APIView):
    """POST: cancel a job and all that it has enqueued, directly or not."""

    @extend_schema(summary="Cancel a job with its tree", request=CancelSerializer, responses=CutSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        job, asked = get_object_or_404(Job, pk=pk), CancelSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return Response(cut(job, request, force=asked.validated_data["force"]))


def cut(root: Job | Workflow, request: Request, *, force: bool) -> dict[str, Any]:
    """How many jobs were cancelled and asked to stop, as the answer says it. Raises Conflict."""
    with conflict_if(trees.NothingToCancel, trees.TooLarge):
        done = trees.cancel_tree(root, force=force, **audit.by(request, "api"))
    return {f"jobs_{name}": count for name, count in done._asdict().items()}
