"""The REST API of queues: /api/v1/queue/queues."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit, roles
from foundation.api import Strict
from queue_app import bulk, queues, quotas, stats
from queue_app.models import Queue
from queue_app.selection import Selection
from queue_app.states import Bulk

from .answers import conflict_if
from .bulk_actions import BulkActionSerializer
from .shapes import DepthSerializer, DepthsSerializer

_POLICY = [name for name in queues.EDITABLE if name not in queues.LIMITS]  # limits have their own address


class PolicySerializer(Strict, serializers.ModelSerializer[Queue]):
    class Meta:
        model = Queue
        fields = _POLICY


class NewQueueSerializer(PolicySerializer):
    name = serializers.CharField(max_length=100)

    class Meta(PolicySerializer.Meta):
        fields = ["name", *_POLICY]

    def validate_name(self, name: str) -> str:
        try:
            queues.check_name(name)
        except ValueError as error:
            raise ValidationError(str(error)) from error
        if Queue.objects.filter(name=name).exists():
            raise ValidationError("there is a queue of this name")
        return name


class QueueSerializer(DepthSerializer):
    policy = PolicySerializer(help_text="Null: the default.")
    created_at = serializers.DateTimeField()


class QueueList(APIView):
    """GET: every queue as it stands. POST: a new one, by an admin."""

    required_role = {"POST": roles.ADMIN}

    @extend_schema(summary="List queues", operation_id="queue_queues_list", responses=DepthsSerializer)
    def get(self, request: Request) -> Response:
        return Response({"results": [_depth(depth) for depth in stats.depths()]})

    @extend_schema(summary="Make a queue", request=NewQueueSerializer, responses={201: QueueSerializer})
    def post(self, request: Request) -> Response:
        given = NewQueueSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        policy = dict(given.validated_data)
        name, trace = policy.pop("name"), audit.by(request, "api")
        with transaction.atomic():  # no queue where its policy is refused
            queues.create_queue(name, actor=trace["actor"], source=trace["source"])
            made = _configured(name, policy, trace)
        return Response(_whole(made), status=status.HTTP_201_CREATED)


class QueueDetail(APIView):
    """GET: its policy and how it stands. PATCH: change the policy. DELETE: forget it, when it has no jobs; by an admin."""

    required_role = {"DELETE": roles.ADMIN}

    @extend_schema(summary="Read one queue", responses=QueueSerializer)
    def get(self, request: Request, name: str) -> Response:
        return Response(_whole(found(name)))

    @extend_schema(summary="Change a queue's policy", request=PolicySerializer, responses=QueueSerializer)
    def patch(self, request: Request, name: str) -> Response:
        given = PolicySerializer(data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        queue = _configured(found(name).name, dict(given.validated_data), audit.by(request, "api"))
        return Response(_whole(queue))

    @extend_schema(summary="Delete a queue", request=None, responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        try:
            with conflict_if(queues.InUse):
                queues.delete(name, **audit.by(request, "api"))
        except queues.UnknownQueue as error:
            raise Http404(str(error)) from error
        return Response(status=status.HTTP_204_NO_CONTENT)


class QueuePause(APIView):
    """POST: workers take none of its jobs; jobs are accepted still."""

    is_paused = True

    @extend_schema(summary="Pause a queue", request=None, responses=QueueSerializer)
    def post(self, request: Request, name: str) -> Response:
        queue = queues.pause(found(name).name, is_paused=self.is_paused, **audit.by(request, "api"))
        return Response(_whole(queue))


@extend_schema_view(post=extend_schema(summary="Resume a queue"))
class QueueResume(QueuePause):
    """POST: workers take its jobs again."""

    is_paused = False


class QueuePurge(APIView):
    """POST: cancel all that waits or runs in it, as a bulk action. 409 when nothing does."""

    @extend_schema(summary="Purge a queue", request=None, responses={202: BulkActionSerializer})
    def post(self, request: Request, name: str) -> Response:
        with conflict_if(bulk.NothingToDo):
            row = bulk.start(Bulk.CANCEL, Selection(queue=found(name).name), **audit.by(request, "api"))
        return Response(BulkActionSerializer(row).data, status=status.HTTP_202_ACCEPTED)


def found(name: str) -> Queue:
    """Raises Http404."""
    try:
        return queues.find(name)
    except queues.UnknownQueue as error:
        raise Http404(str(error)) from error


def _configured(name: str, policy: dict[str, Any], trace: dict[str, Any]) -> Queue:
    try:
        return queues.configure(name, **policy, **trace)
    except queues.BadPolicy as error:
        raise ValidationError(error.errors) from error
    except quotas.BadLimit as error:
        raise ValidationError({error.field: [error.problem]}) from error


def _whole(queue: Queue) -> dict[str, Any]:
    depth = next(
        (depth for depth in stats.depths() if depth.queue == queue.name), stats.Depth(queue.name, False, 0.0)
    )
    return {
        **_depth(depth),
        "policy": {name: getattr(queue, name) for name in _POLICY},
        "created_at": queue.created_at,
    }


def _depth(depth: stats.Depth) -> dict[str, Any]:
    return {
        "name": depth.queue,
        "paused": depth.paused,
        "oldest_due_s": round(depth.oldest_due_s, 3),
        "jobs": depth.jobs,
    }
