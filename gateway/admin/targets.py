"""The admin pages of targets: on, off and drain, and how each stands in the whole fleet."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import path, reverse
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit, roles
from foundation.admin import asking, done
from gateway import changes
from gateway.models import Target

from . import cells, live
from .configured import ConfiguredAdmin, RowForm, turn
from .live import LiveList

_STATES = {"active": "success", "draining": "warning", "off": "info"}


class TargetForm(RowForm):
    class Meta:
        model = Target
        fields = ("service", "url", "weight", "state")
        labels = {"url": "URL"}


@admin.register(Target)
class TargetAdmin(LiveList, ConfiguredAdmin):
    form = TargetForm
    fields = ("service", "url", ("weight", "state"))
    when_empty = "Targets are the addresses of a service; they can be added on its page as well."
    list_display = (
        "address", "of_service", "weight", "standing", "health", "breaker", "inflight", "next_probe", "reason",
    )  # fmt: skip
    live = ("health", "breaker", "inflight", "next_probe", "reason")
    list_filter = ("state", "service")
    list_filter_submit = False
    list_select_related = ("service",)
    ordering = ("service__name", "pk")
    search_fields = ("url", "service__name")
    search_help_text = "Part of a URL or of a service's name"
    actions = ("turn_on_selected", "drain_selected", "turn_off_selected")
    actions_detail = actions_row = ("turn_on", "drain", "turn_off")
    change_form_outer_before_template = "admin/gateway/target/standing_live.html"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.OPERATOR)  # weight and state, which can be put back at once

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [] if roles.allows(request.user, roles.ADMIN) else ["service", "url"]

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.standing_now)
        return [
            path("<int:pk>/standing/", view, name="gateway_target_standing"),
            *super().get_urls(),
        ]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """One look at the board for the whole page."""
        shown = super().get_changelist_instance(request)
        found = live.board()
        shown.result_list = list(shown.result_list)
        for target in shown.result_list:
            target.now = found.of_row(target)
        return shown

    @display(description="URL", ordering="url")
    def address(self, target: Target) -> str:
        return cells.url(target.url)

    @display(description="service", ordering="service__name")
    def of_service(self, target: Target) -> str:
        return cells.link(target.service)

    @display(description="state", ordering="state", label=_STATES)
    def standing(self, target: Target) -> str:
        return target.state

    @display(description="health")
    def health(self, target: Any, is_fragment: bool = False) -> str:
        shown = cells.tag(target.now.health, target.now.health_tone) if target.now.is_known else cells.NONE
        return live.cell("health", target, shown, is_fragment)

    @display(description="breaker")
    def breaker(self, target: Any, is_fragment: bool = False) -> str:
        shown = cells.tag(target.now.breaker, target.now.breaker_tone) if target.now.is_known else cells.NONE
        return live.cell("breaker", target, shown, is_fragment)

    @display(description="in flight")
    def inflight(self, target: Any, is_fragment: bool = False) -> str:
        return live.cell("inflight", target, target.now.inflight, is_fragment)

    @display(description="next probe")
    def next_probe(self, target: Any, is_fragment: bool = False) -> str:
        shown = format_html('<span class="brain-nowrap">{}</span>', target.now.next_probe)
        return live.cell("next_probe", target, shown, is_fragment)

    @display(description="reason")
    def reason(self, target: Any, is_fragment: bool = False) -> str:
        shown = format_html('<span class="brain-reason">{}</span>', target.now.why or cells.NONE)
        return live.cell("reason", target, shown, is_fragment)

    # --- the page of one target --------------------------------------------------------------------------------------
    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        if obj is not None:
            context |= standing_of([obj], reverse("admin:gateway_target_standing", args=[obj.pk]))
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def standing_now(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The fragment that a target's page asks for again."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        target = get_object_or_404(Target.objects.select_related("service"), pk=pk)
        return render(request, "admin/gateway/target/standing.html", standing_of([target], request.path))

    # --- on, drain, off ----------------------------------------------------------------------------------------------
    @action(
        description="Turn on",
        permissions=["operate"],
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        dialog=asking("Turn this target on?", "It gets requests again.", "Turn it on"),
    )
    def turn_on(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._put(request, object_id, "active")

    @action(
        description="Drain",
        permissions=["operate"],
        icon="hourglass_bottom",
        dialog=asking(
            "Drain this target?", "It gets no new requests; those under way end undisturbed.", "Drain it"
        ),
    )
    def drain(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._put(request, object_id, "draining")

    @action(
        description="Turn off",
        permissions=["operate"],
        icon="power_settings_new",
        variant=ActionVariant.DANGER,
        dialog=asking("Turn this target off?", "From then on it is as if it were not there.", "Turn it off"),
    )
    def turn_off(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._put(request, object_id, "off")

    @action(description="Turn them on", permissions=["operate"])
    def turn_on_selected(self, request: HttpRequest, targets: QuerySet[Target]) -> None:
        turn(self, request, targets.select_related("service"), state="active")

    @action(description="Drain them", permissions=["operate"])
    def drain_selected(self, request: HttpRequest, targets: QuerySet[Target]) -> None:
        turn(self, request, targets.select_related("service"), state="draining")

    @action(description="Turn them off", permissions=["operate"])
    def turn_off_selected(self, request: HttpRequest, targets: QuerySet[Target]) -> None:
        turn(self, request, targets.select_related("service"), state="off")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Without the one that would change nothing."""
        target = self.get_object(request, str(object_id))
        if target is None:
            return []
        absent = {"active": "_turn_on", "draining": "_drain", "off": "_turn_off"}[target.state]
        found = super().get_actions_detail(request, object_id)
        return [one for one in found if not one.action_name.endswith(absent)]

    def _put(self, request: HttpRequest, object_id: str, state: str) -> HttpResponse:
        target = get_object_or_404(Target.objects.select_related("service"), pk=object_id)
        try:
            changes.set_target_state(target, state, **audit.by(request, "admin"))
            self.message_user(request, f"{target} is {state}.", messages.SUCCESS)
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
        return done(request, _back(request, target))


def _back(request: HttpRequest, target: Target) -> str:
    """To the list as it was, when the dialog was opened there; else to the target's page."""
    came_from = urlsplit(request.headers.get("HX-Current-URL", ""))
    if came_from.path == cells.list_of("target"):
        return f"{came_from.path}?{came_from.query}".removesuffix("?")
    return cells.page(target)


def standing_of(targets: Any, address: str) -> dict[str, Any]:
    """What the standing's template needs. targets: with their service. address: of the fragment."""
    found = live.board()
    return {
        "standings": [(target, found.of_row(target)) for target in targets],
        "is_read": found.is_read,
        "processes": found.processes,
        "live": address,
        "every_s": live.EVERY_S,
    }
