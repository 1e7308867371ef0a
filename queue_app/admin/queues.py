"""The admin page of queues: their policy, and how they stand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from unfold.decorators import display

from foundation import audit
from foundation.admin import RoleModelAdmin
from queue_app import limits_told, queues, quotas
from queue_app.conf import conf
from queue_app.models import Job, Queue
from queue_app.states import WAITING, State


class QueueForm(ModelForm):
    class Meta:
        model = Queue
        fields = ["name", *queues.EDITABLE]

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not queues.is_name(name):
            raise ValidationError("Letters, digits, dots, dashes and underscores, at most 100 of them.")
        return name

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if not self.errors:
            try:
                quotas.check({key: values[key] for key in (*queues.LIMITS, "delivery")})
            except quotas.BadLimit as error:
                self.add_error(error.field, error.problem)
        return values


@admin.register(Queue)
class QueueAdmin(RoleModelAdmin):
    form = QueueForm
    list_display = ["name", "status", "waiting", "running", "dead", "retries", "backoff", "created_at"]
    search_fields = ["name"]
    search_help_text = "Part of a queue's name"
    fieldsets = [
        (None, {"fields": ["name", "paused", "delivery", "created_at"]}),
        ("Retries", {"fields": ["max_retries", ("backoff_base_s", "backoff_max_s")]}),
        ("Runs and records", {"fields": [("soft_time_limit_s", "time_limit_s"), ("retention_s", "dead_retention_s")]}),
        ("Limits", {"fields": [
            ("is_fair", "in_use"), ("max_concurrency", "tenant_concurrency"),
            ("rate_count", "rate_period_s", "rate_burst"),
            ("tenant_rate_count", "tenant_rate_period_s", "tenant_rate_burst"),
        ]}),
    ]  # fmt: skip

    @display(description="status", label={"active": "success", "paused": "warning"})
    def status(self, queue: Queue) -> str:
        return "paused" if queue.paused else "active"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Queue]:
        running, dead = [State.PROCESSING], [State.DEAD_LETTER]
        counts = {"waiting": WAITING, "running": running, "dead": dead}
        return (
            super()
            .get_queryset(request)
            .annotate(**{f"jobs_{name}": _jobs_in(states) for name, states in counts.items()})
        )

    @display(description="waiting")
    def waiting(self, queue: Any) -> int:
        return int(queue.jobs_waiting)

    @display(description="running")
    def running(self, queue: Any) -> int:
        return int(queue.jobs_running)

    @display(description="dead letters")
    def dead(self, queue: Any) -> str:
        if not queue.jobs_dead:
            return "0"
        jobs = reverse("admin:queue_app_job_changelist")
        query = {"queue": queue.name, "state__exact": State.DEAD_LETTER.value}
        return format_html(
            '<a class="brain-link" href="{}?{}">{}</a>', jobs, urlencode(query), queue.jobs_dead
        )

    @display(description="retries", ordering="max_retries")
    def retries(self, queue: Queue) -> str:
        return _or_default(queue.max_retries, conf().MAX_RETRIES)

    @display(description="back-off (s)")
    def backoff(self, queue: Queue) -> str:
        first = _or_default(queue.backoff_base_s, conf().BACKOFF_BASE_S)
        return f"{first}, at most {_or_default(queue.backoff_max_s, conf().BACKOFF_MAX_S)}"

    @display(description="limits in use")
    def in_use(self, queue: Queue) -> str:
        if not queue.pk or not queues.has_limits(queue):
            return "-"
        use = limits_told.in_use(queue.name)
        return f"{limits_told.of_queue(queue)}: {use.held} in use, {use.waiting} wait"

    def get_readonly_fields(self, request: HttpRequest, obj: Queue | None = None) -> list[str]:
        return ["created_at", "in_use", *([] if obj is None else ["name"])]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its jobs would stay behind, without a policy

    def save_model(self, request: HttpRequest, obj: Queue, form: ModelForm, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in queues.EDITABLE}
        trace = audit.by(request, "admin")
        if not change:
            queues.create_queue(obj.name, actor=trace["actor"], source=trace["source"])
        queues.configure(obj.name, **trace, **changes)


def _jobs_in(states: Any) -> Any:
    counted = Job.objects.filter(queue=OuterRef("name"), state__in=[State(state).value for state in states])
    return Coalesce(Subquery(counted.order_by().values("queue").annotate(n=Count("pk")).values("n")), 0)


def _or_default(value: float | None, default: float) -> str:
    return f"{default:g} (default)" if value is None else f"{value:g}"
