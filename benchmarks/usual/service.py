"""The tasks service: URLs and views."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Q
from django.db.models.functions import TruncDate
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from . import celery  # noqa: F401  (so that .delay() finds the broker)
from .models import Task
from .tasks import send_email


class TaskSerializer(serializers.ModelSerializer):
    class Meta:
        model = Task
        fields = ("id", "title", "done", "assignee_email", "created_at")


class TasksView(APIView):
    def post(self, request: Request) -> Response:
        draft = TaskSerializer(data=request.data)
        draft.is_valid(raise_exception=True)
        task = draft.save()
        send_email.delay(task.assignee_email, f"New task: {task.title}", task.pk)
        return Response(draft.data, status=201)


class StatsView(APIView):
    def get(self, request: Request) -> Response:
        return Response(cache.get_or_set("stats", totals, 10))


def totals() -> dict[str, Any]:
    sums = Task.objects.aggregate(total=Count("id"), done=Count("id", filter=Q(done=True)))
    people = Task.objects.values("assignee_email").annotate(
        total=Count("id"), done=Count("id", filter=Q(done=True))
    )
    recent = Task.objects.filter(created_at__gte=timezone.now() - timedelta(days=14))
    days = (
        recent.annotate(day=TruncDate("created_at"))
        .values("day")
        .annotate(created=Count("id"))
        .order_by("day")
    )
    return {
        **sums,
        "open": sums["total"] - sums["done"],
        "assignees": list(people.order_by("-total", "assignee_email")[:5]),
        "days": [{"day": row["day"].isoformat(), "created": row["created"]} for row in days],
    }


urlpatterns = [path("api/v1/tasks", TasksView.as_view()), path("api/v1/stats", StatsView.as_view())]
