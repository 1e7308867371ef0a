"""The REST API of schedules: /api/v1/queue/schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit, roles
from foundation.api import Strict
from queue_app import clock, schedules
from queue_app.models import Firing, Schedule

from .answers import Pages, conflict_if
from .shapes import BackfilledSerializer, FiredSerializer

T = TypeVar("T")


class ScheduleSerializer(Strict, serializers.ModelSerializer[Schedule]):
    when = serializers.SerializerMethodField()
    next_in_words = serializers.SerializerMethodField()

    class Meta:
        model = Schedule
        fields = [
            "id", "name", *schedules.EDITABLE, "paused", "when", "next_at", "next_in_words", "last_at", "last_job", "waits_at",
            "created_at",
        ]  # fmt: skip
        read_only_fields = ["next_at", "last_at", "last_job", "waits_at", "created_at"]

    def get_when(self, schedule: Schedule) -> str:
        return schedules.words(schedule)

    def get_next_in_words(self, schedule: Schedule) -> str | None:
        if schedule.paused or schedule.next_at is None:
            return None
        return schedules.next_words(schedule, schedule.next_at, clock.now())

    def create(self, validated_data: dict[str, Any]) -> Schedule:
        return _checked(schedules.create, **validated_data, **audit.by(self.context["request"], "api"))

    def update(self, instance: Schedule, validated_data: dict[str, Any]) -> Schedule:
        for name in ("name", "paused"):
            if validated_data.pop(name, getattr(instance, name)) != getattr(instance, name):
                raise ValidationError({name: ["cannot be changed here"]})
        trace = audit.by(self.context["request"], "api")
        return _checked(schedules.change, instance, **validated_data, **trace)


class ScheduleDetailSerializer(ScheduleSerializer):
    next_runs = serializers.SerializerMethodField()

    class Meta(ScheduleSerializer.Meta):
        fields = [*ScheduleSerializer.Meta.fields, "next_runs"]

    def get_next_runs(self, schedule: Schedule) -> list[datetime]:
        return schedules.next_runs(schedule)


class FiringSerializer(serializers.ModelSerializer[Firing]):
    class Meta:
        model = Firing
        fields = ["due_at", "at", "outcome", "cause", "job", "note"]


class BackfillSerializer(Strict, serializers.Serializer[Any]):
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    dry_run = serializers.BooleanField(default=False)


class ByName(Pages):
    ordering = "name"


class NewestDue(Pages):
    ordering = "-due_at"


class ScheduleList(generics.ListCreateAPIView[Schedule]):
    queryset = Schedule.objects.all()
    serializer_class = ScheduleSerializer
    pagination_class = ByName
    required_role = {"POST": roles.ADMIN}


class ScheduleDetail(generics.RetrieveUpdateDestroyAPIView[Schedule]):
    queryset = Schedule.objects.all()
    serializer_class = ScheduleDetailSerializer
    required_role = {"DELETE": roles.ADMIN}
    http_method_names = ["get", "patch", "delete", "head", "options"]

    def perform_destroy(self, instance: Schedule) -> None:
        _checked(schedules.delete, instance, **audit.by(self.request, "api"))


@extend_schema_view(get=extend_schema(summary="List a schedule's firings"))
class ScheduleFirings(generics.ListAPIView[Firing]):
    """What the schedule's moments came to, newest first."""

    serializer_class = FiringSerializer
    pagination_class = NewestDue

    def get_queryset(self) -> QuerySet[Firing]:
        return Firing.objects.filter(schedule=get_object_or_404(Schedule, pk=self.kwargs["pk"]))


class SchedulePause(APIView):
    @extend_schema(summary="Pause a schedule", request=None, responses=ScheduleDetailSerializer)
    def post(self, request: Request, pk: int) -> Response:
        paused = _checked(schedules.pause, _found(pk), **audit.by(request, "api"))
        return Response(ScheduleDetailSerializer(paused).data)


class ScheduleResume(APIView):
    @extend_schema(summary="Resume a schedule", request=None, responses=ScheduleDetailSerializer)
    def post(self, request: Request, pk: int) -> Response:
        resumed = _checked(schedules.resume, _found(pk), **audit.by(request, "api"))
        return Response(ScheduleDetailSerializer(resumed).data)


class ScheduleRun(APIView):
    """POST: a job at once. 409 when it cannot be made."""

    @extend_schema(summary="Run a schedule now", request=None, responses={201: FiredSerializer})
    def post(self, request: Request, pk: int) -> Response:
        job = _checked(schedules.run_now, _found(pk), **audit.by(request, "api"))
        return Response({"job": str(job.id)}, status=status.HTTP_201_CREATED)


class ScheduleBackfill(APIView):
    """POST `{"start": …, "end": …}`: a job for each moment that has none; with `"dry_run": true` only the moments."""

    @extend_schema(
        summary="Backfill a schedule",
        request=BackfillSerializer,
        responses={201: BackfilledSerializer, 200: BackfilledSerializer},
    )
    def post(self, request: Request, pk: int) -> Response:
        schedule, asked = _found(pk), BackfillSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        ends = asked.validated_data["start"], asked.validated_data["end"]
        if asked.validated_data["dry_run"]:
            return Response({"moments": _checked(schedules.backfillable, schedule, *ends)})
        jobs = _checked(schedules.backfill, schedule, *ends, **audit.by(request, "api"))
        return Response({"jobs": [str(job.id) for job in jobs]}, status=status.HTTP_201_CREATED)


def _found(pk: int) -> Schedule:
    return get_object_or_404(Schedule, pk=pk)


def _checked(act: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        with conflict_if(schedules.Refused):
            return act(*args, **kwargs)
    except schedules.BadSchedule as error:
        raise ValidationError({field: [told] for field, told in error.errors.items()}) from error
