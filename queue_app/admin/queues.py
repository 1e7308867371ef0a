"""The admin page of queues: their policy, and how they stand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.forms import Form, ModelForm
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit, figures
from foundation.admin import RoleModelAdmin, asking, done
from queue_app import clock, limits_told, policies, queues, quotas, stats
from queue_app.conf import conf
from queue_app.models import Queue

from . import cells, statistics


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
            limits = {key: values[key] for key in (*queues.LIMITS, "delivery")}
            try:
                quotas.check(limits)
                if self.instance.pk:
                    queues.check_tenants(Queue.objects.get(name=self.instance.pk), limits)
            except quotas.BadLimit as error:
                self.add_error(error.field, error.problem)
        return values


@admin.register(Queue)
class QueueAdmin(RoleModelAdmin):
    form = QueueForm
    when_empty = "A queue is made by its first job, or here; its page has its retries, limits and retention."
    list_display = [
        "name", "status", "waiting", "running", "dead", "latency", "last_hour", "retries", "backoff",
    ]  # fmt: skip
    search_fields = ["name"]
    search_help_text = "Part of a queue's name"
    fieldsets = [
        (None, {"fields": ["name", "paused", "delivery", "created_at"]}),
        ("Retries", {"fields": ["max_retries", ("backoff_base_s", "backoff_max_s")]}),
        ("Runs and records", {"fields": [("soft_time_limit_s", "time_limit_s"), ("retention_s", "dead_retention_s")]}),
        ("Limits", {"fields": [
            ("is_fair", "in_use"), ("max_concurrency", "tenant_concurrency"),
            ("rate_count", "rate_period_s"), "rate_burst",
            ("tenant_rate_count", "tenant_rate_period_s"), "tenant_rate_burst",
        ]}),
    ]  # fmt: skip
    actions_detail = ["pause", "resume"]
    change_form_outer_before_template = "admin/queue_app/queue/standing.html"

    def get_urls(self) -> list[Any]:
        live = path(
            "<path:object_id>/live/", self.admin_site.admin_view(self.live), name="queue_app_queue_live"
        )
        return [live, *super().get_urls()]

    @display(description="status", label={"active": "success", "paused": "warning"})
    def status(self, queue: Queue) -> str:
        return "paused" if queue.paused else "active"

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """How all of them stand from a few statements, put on the rows of this page."""
        shown = super().get_changelist_instance(request)
        standing, recent = {depth.queue: depth for depth in stats.depths()}, stats.recent()
        shown.result_list = list(shown.result_list)
        for queue in shown.result_list:
            queue.depth = standing.get(queue.name) or stats.Depth(queue.name, queue.paused, 0.0)
            queue.recent = recent.get(queue.name, [])
        return shown

    @display(description="waiting")
    def waiting(self, queue: Any) -> str:
        return _counted(queue, queue.depth.waiting, "waiting")

    @display(description="running")
    def running(self, queue: Any) -> str:
        return _counted(queue, queue.depth.running, "PROCESSING")

    @display(description="dead letters")
    def dead(self, queue: Any) -> str:
        return _counted(queue, queue.depth.dead, "DEAD_LETTER")

    @display(description="latency")
    def latency(self, queue: Any) -> str:
        return format_html('<span class="brain-nowrap">{}</span>', figures.duration(queue.depth.oldest_due_s))

    @display(description="last hour")
    def last_hour(self, queue: Any) -> str:
        return cells.spark(queue.recent)

    @display(description="retries", ordering="max_retries")
    def retries(self, queue: Queue) -> str:
        return _or_default(queue.max_retries, conf().MAX_RETRIES)

    @display(description="back-off (s)")
    def backoff(self, queue: Queue) -> str:
        if queue.backoff_base_s is None and queue.backoff_max_s is None:
            return f"{conf().BACKOFF_BASE_S:g} to {conf().BACKOFF_MAX_S:g} (default)"
        first = _or_default(queue.backoff_base_s, conf().BACKOFF_BASE_S)
        return f"{first}, at most {_or_default(queue.backoff_max_s, conf().BACKOFF_MAX_S)}"

    @display(description="limits in use")
    @cells.once
    def in_use(self, queue: Queue) -> str:
        if not queue.pk or not policies.has_limits(queue):
            return "-"
        use = limits_told.in_use(queue.name)
        return f"{limits_told.of_queue(queue)}: {use.held} in use, {use.waiting} wait"

    # --- the page of one queue ---------------------------------------------------------------------------------------
    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        *args: Any,
        obj: Queue | None = None,
        **kwargs: Any,
    ) -> Any:
        if obj is not None:
            context |= self._standing(request, obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def live(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The fragment that a queue's page asks for again."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        queue = _found(object_id)
        return render(request, "admin/queue_app/queue/live.html", self._standing(request, queue))

    def _standing(self, request: HttpRequest, queue: Queue) -> dict[str, Any]:
        depth = next((depth for depth in stats.depths() if depth.queue == queue.name), None)
        asked = statistics.read({"queue": queue.name}, clock.now())
        shown, _ = statistics.drawn(asked)
        return {
            **shown,
            "card": statistics.queue_card(
                depth or stats.Depth(queue.name, queue.paused, 0.0), stats.recent().get(queue.name, [])
            ),
            "limits": self.in_use(queue),
            "live": cells.queue_page(queue.name, "live"),
            "statistics": cells.statistics_page(queue.name),
            "updated": clock.now(),
        }

    @action(
        description="Pause",
        permissions=["operate"],
        icon="pause",
        dialog=asking(
            "Pause this queue?",
            "Jobs are accepted and wait; workers take none. What runs goes on.",
            "Pause it",
        ),
    )
    def pause(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._set_paused(request, object_id, True, "Paused: workers take no more of its jobs.")

    @action(
        description="Resume",
        permissions=["operate"],
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        dialog=asking("Resume this queue?", "Workers take its jobs again.", "Resume it"),
    )
    def resume(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._set_paused(request, object_id, False, "Resumed: workers take its jobs.")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        paused = Queue.objects.filter(name=unquote(str(object_id))).values_list("paused", flat=True).first()
        if paused is None:
            return []
        offered = "_resume" if paused else "_pause"
        actions = super().get_actions_detail(request, object_id)
        return [found for found in actions if found.action_name.endswith(offered)]

    def _set_paused(self, request: HttpRequest, object_id: str, paused: bool, told: str) -> HttpResponse:
        queue = _found(object_id)
        queues.pause(queue.name, is_paused=paused, **audit.by(request, "admin"))
        self.message_user(request, told, messages.SUCCESS)
        return done(request, cells.queue_page(queue.name))

    def get_readonly_fields(self, request: HttpRequest, obj: Queue | None = None) -> list[str]:
        return ["created_at", "in_use", *([] if obj is None else ["name"])]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its jobs would stay behind, without a policy

    def save_model(self, request: HttpRequest, obj: Queue, form: ModelForm, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in queues.EDITABLE}
        trace = audit.by(request, "admin")
        if not change:
            queues.create_queue(obj.name, actor=trace["actor"], source=trace["source"])
        if gap := limits_told.gap(queues.configure(obj.name, **trace, **changes)):
            self.message_user(request, f"Limits: {gap}.", messages.WARNING)


def _found(object_id: str) -> Queue:
    queue = Queue.objects.filter(name=unquote(object_id)).first()
    if queue is None:
        raise Http404(f"no queue is called {unquote(object_id)!r}")
    return queue


def _counted(queue: Queue, count: int, states: str) -> str:
    if not count:
        return "0"
    page = cells.jobs_page(queue=queue.name, state=states)
    return format_html('<a class="brain-link" href="{}">{}</a>', page, figures.count(count))


def _or_default(value: float | None, default: float) -> str:
    return f"{default:g} (default)" if value is None else f"{value:g}"
