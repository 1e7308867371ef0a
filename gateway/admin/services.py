"""The admin pages of services: how requests are spread over their targets, and how much failure is borne."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import path, reverse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from foundation import figures
from gateway.models import Service, Target

from . import cells, live
from .configured import ConfiguredAdmin, RowForm, TableInline
from .live import LiveList
from .targets import standing_of

_PEM = UnfoldAdminTextareaWidget(attrs={"rows": 4, "spellcheck": "false", "class": "brain-code"})


_FIELDSETS: Any = (
    (None, {"fields": ("name", ("strategy", "hash_on"))}),
    ("Timeouts", {"classes": ["tab"], "fields": (
        ("connect_timeout_s", "response_timeout_s"), ("idle_timeout_s", "total_timeout_s"),
    )}),
    ("Circuit breaker of each target", {"classes": ["tab"], "fields": (
        ("breaker_window_s", "breaker_volume"), "breaker_failure_ratio", ("breaker_slow_s", "breaker_slow_ratio"),
        ("breaker_open_s", "breaker_open_max_s"), "breaker_probes",
    )}),
    ("Retries", {"classes": ["tab"], "fields": ("retries", ("retry_budget_ratio", "retry_budget_min"))}),
    ("Health and ejection", {"classes": ["tab"], "fields": (
        "health_enabled", ("health_path", "health_statuses"), ("health_interval_s", "health_timeout_s"),
        ("healthy_after", "unhealthy_after"), ("eject_after", "eject_s"), ("eject_most_percent", "slow_start_s"),
    )}),
    ("TLS to targets", {"classes": ["tab"], "fields": ("tls_server_name", "tls_ca")}),
    ("When no target is left", {"classes": ["tab"], "fields": (
        "stale_s", ("fallback_status", "fallback_type"), "fallback_body",
    )}),
)  # fmt: skip


class TargetForm(RowForm):
    class Meta:
        model = Target
        fields = ("url", "weight", "state")
        labels = {"url": "URL"}


class TargetInline(TableInline):
    model = Target
    form = TargetForm


class ServiceForm(RowForm):
    class Meta:
        model = Service
        fields = flatten_fieldsets(_FIELDSETS)
        labels = {
            "hash_on": "Hash on",
            "connect_timeout_s": "Connect (s)",
            "response_timeout_s": "Response (s)",
            "idle_timeout_s": "Idle (s)",
            "total_timeout_s": "In all (s)",
            "breaker_window_s": "Window (s)",
            "breaker_volume": "Volume",
            "breaker_failure_ratio": "Failures",
            "breaker_slow_s": "Slow from (s)",
            "breaker_slow_ratio": "Slow ones",
            "breaker_open_s": "Open for (s)",
            "breaker_open_max_s": "At most (s)",
            "breaker_probes": "Probes",
            "retry_budget_ratio": "Budget",
            "retry_budget_min": "At least",
            "health_enabled": "Probe the targets",
            "health_path": "Path",
            "health_statuses": "Good statuses",
            "health_interval_s": "Every (s)",
            "health_timeout_s": "Timeout (s)",
            "eject_after": "Eject after",
            "eject_s": "Out for (s)",
            "eject_most_percent": "At most (%)",
            "slow_start_s": "Slow start (s)",
            "tls_ca": "Authorities",
            "tls_server_name": "Server name",
            "fallback_status": "Status",
            "fallback_type": "Content type",
            "fallback_body": "Body",
            "stale_s": "Stale answers (s)",
        }
        widgets = {"tls_ca": _PEM, "fallback_body": _PEM}


@admin.register(Service)
class ServiceAdmin(LiveList, ConfiguredAdmin):
    form = ServiceForm
    when_empty = (
        "A service is what routes lead to: some targets, and how they are chosen, probed and retried."
    )
    list_display = ("name", "strategy", "spread", "breaker", "tries", "probed", "routed")
    live = ("spread",)
    list_filter = ("strategy",)
    list_filter_submit = False
    search_fields = ("name", "targets__url")
    search_help_text = "Part of a name or of a target's URL"
    inlines = (TargetInline,)
    change_form_outer_before_template = "admin/gateway/target/standing_live.html"
    fieldsets = _FIELDSETS

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.standing_now)
        return [
            path("<int:pk>/standing/", view, name="gateway_service_standing"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Service]:
        found = super().get_queryset(request).annotate(routes_count=Count("routes", distinct=True))
        return found.prefetch_related("targets")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """One look at the board for the whole page."""
        shown = super().get_changelist_instance(request)
        found = live.board()
        shown.result_list = list(shown.result_list)
        for service in shown.result_list:
            targets = list(service.targets.all())
            standings = [found.of(service.name, target.url, target.state) for target in targets]
            service.now = targets, standings
        return shown

    @display(description="targets")
    def spread(self, service: Any, is_fragment: bool = False) -> str:
        return live.cell("spread", service, live.dots(*service.now), is_fragment)

    @display(description="breaker opens at")
    def breaker(self, service: Service) -> str:
        parts = []
        if service.breaker_failure_ratio:
            parts.append(f"{figures.share(service.breaker_failure_ratio)} failures")
        if service.breaker_slow_s:
            parts.append(f"{figures.share(service.breaker_slow_ratio)} over {service.breaker_slow_s:g} s")
        return f"{' or '.join(parts)} of {service.breaker_volume}" if parts else "never"

    @display(description="retries", ordering="retries")
    def tries(self, service: Service) -> str:
        if not service.retries:
            return "none"
        return f"{service.retries}, budget {figures.share(service.retry_budget_ratio)}"

    @display(description="probes", ordering="health_enabled")
    def probed(self, service: Service) -> str:
        if not service.health_enabled:
            return "none"
        return f"{service.health_path or 'connect'} every {service.health_interval_s:g} s"

    @display(description="routes", ordering="routes_count")
    def routed(self, service: Any) -> str:
        return cells.counted(service.routes_count, cells.list_of("route", service__id__exact=service.pk))

    # --- the page of one service -------------------------------------------------------------------------------------
    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        if obj is not None:
            context |= _standing(obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def standing_now(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The fragment that a service's page asks for again."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return render(
            request, "admin/gateway/target/standing.html", _standing(get_object_or_404(Service, pk=pk))
        )


def _standing(service: Service) -> dict[str, Any]:
    targets = service.targets.select_related("service")
    return standing_of(targets, reverse("admin:gateway_service_standing", args=[service.pk]))
