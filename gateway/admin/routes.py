"""The admin pages of routes: which requests, who may send them, and where they go."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.utils.html import format_html
from unfold.decorators import display

from foundation import roles
from gateway import routing
from gateway.models import Route

from . import cells, tester, traffic
from .configured import RowForm, SwitchedAdmin
from .fields import HeaderMapField, WordsField
from .transforms import TransformInline

_FIELDSETS: Any = (
    (None, {"fields": ("name", "enabled")}),
    ("Which requests", {"fields": (("path", "path_kind"), ("hosts", "methods"), "headers")}),
    ("Who may send them, and how many", {"fields": (
        "auth_required", ("roles", "scopes"), ("plan", "cost"),
    )}),
    ("Where they go", {"fields": (
        ("service", "timeout_s"), ("strip_prefix", "hide_credentials"), "host_header",
    )}),
)  # fmt: skip


class RouteForm(RowForm):
    hosts = WordsField(help_text="api.example.com, *.example.com. Empty: all.")
    methods = WordsField(help_text=f"Of {', '.join(sorted(routing.ANY_METHOD))}. Empty: all.")
    headers = HeaderMapField(help_text="Headers that must have these values, each on a line: X-Version: 2")
    roles = WordsField(
        help_text=f"Any of {', '.join(roles.RANKED)}; a higher one will do. Empty: any caller."
    )
    scopes = WordsField(help_text="All of these. Empty: none is needed.")

    class Meta:
        model = Route
        fields = flatten_fieldsets(_FIELDSETS)
        labels = {"auth_required": "Authentication required", "timeout_s": "Timeout (s)", "path_kind": "Kind"}
        help_texts = {
            "name": "In metrics and logs. Empty: its path.",
            "plan": "Its limits count per caller. Empty: none.",
            "auth_required": "Off: whoever comes without credentials is let in as well.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "name" in self.fields:
            self.fields["name"].required = False

    def clean_methods(self) -> list[str]:
        return [method.upper() for method in self.cleaned_data["methods"]]

    def clean_hosts(self) -> list[str]:
        return [host.lower() for host in self.cleaned_data["hosts"]]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if not values.get("name") and values.get("path"):
            values["name"] = values["path"]
        return values


@admin.register(Route)
class RouteAdmin(SwitchedAdmin):
    form = RouteForm
    when_empty = (
        "A route says which requests go to which service. Where there is none, everybody is answered 404."
    )
    list_display = (
        "title", "where", "methods_shown", "of_service", "of_plan", "authenticated", "traffic", "enabled",
    )  # fmt: skip
    list_filter = ("enabled", "auth_required", "path_kind", "service", "plan")
    list_filter_submit = False
    list_select_related = ("service", "plan")
    search_fields = ("name", "path", "hosts", "service__name")
    search_help_text = "Part of a name, a path, a host or a service's name"
    fieldsets = _FIELDSETS
    inlines = (TransformInline,)

    def get_urls(self) -> list[Any]:
        return [*tester.urls(self), *traffic.urls(self), *super().get_urls()]

    @display(description="name", ordering="name")
    def title(self, route: Route) -> str:
        return cells.url(route.name)

    @display(description="requests to", ordering="path")
    def where(self, route: Route) -> str:
        """Hosts, path and kind; the usual kind goes without saying."""
        kind = "" if route.path_kind == "prefix" else cells.tag(route.path_kind)
        hosts = cells.words(route.hosts, "") if route.hosts else ""
        headers = cells.words(route.headers, "") if route.headers else ""
        return format_html(
            '<span class="brain-stack"><span>{} {}</span>{}{}</span>',
            cells.url(route.path),
            kind,
            hosts,
            headers,
        )

    @display(description="methods")
    def methods_shown(self, route: Route) -> str:
        return cells.words(route.methods, "all")

    @display(description="service", ordering="service__name")
    def of_service(self, route: Route) -> str:
        return cells.link(route.service)

    @display(description="plan", ordering="plan__name")
    def of_plan(self, route: Route) -> str:
        return cells.link(route.plan)

    @display(description="callers", ordering="auth_required")
    def authenticated(self, route: Route) -> str:
        if not route.auth_required:
            return cells.tag("anybody", "warn")
        return cells.words([*route.roles, *route.scopes], "known ones")

    @display(description="traffic")
    def traffic(self, route: Route) -> str:
        return cells.to(traffic.page(route=route.name), "show")
