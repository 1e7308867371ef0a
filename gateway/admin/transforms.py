"""The admin pages of transforms: what is changed in requests and responses, of a route or of all routes of a service."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget

from gateway import edits, plugins
from gateway.conf import conf
from gateway.models import Transform

from . import cells
from .configured import BlockInline, RowForm, SwitchedAdmin
from .fields import JsonField

_REQUEST = 'Such as {"headers": {"set": {"X-Team": "billing"}}}. Keys: headers, query, path, body.'
_RESPONSE = 'Such as {"headers": {"remove": ["Server"]}}. Keys: headers, status, body.'


class TransformForm(RowForm):
    request = JsonField(help_text=_REQUEST)
    response = JsonField(help_text=_RESPONSE)
    settings = JsonField(rows=3, help_text="Of the plugin.")
    plugin = forms.ChoiceField(
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text="One of BRAIN['GATEWAY']['PLUGINS'].",
    )

    class Meta:
        model = Transform
        fields = (
            "name", "route", "service", "position", "request", "response", "plugin", "settings", "on_failure", "enabled",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = {*conf().PLUGINS, *([self.instance.plugin] if self.instance.plugin else [])}
        self.fields["plugin"].choices = [("", "none"), *((name, name) for name in sorted(known))]

    def clean_request(self) -> Any:
        return self._checked("request")

    def clean_response(self) -> Any:
        return self._checked("response")

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("plugin") and "settings" in values:
            for problem in plugins.problems(values["plugin"], values["settings"], conf().PLUGINS):
                self.add_error("settings" if problem.startswith("settings:") else "plugin", problem)
        return values

    def _checked(self, phase: str) -> Any:
        spec = self.cleaned_data[phase]
        if wrong := edits.problems(spec, phase):
            raise forms.ValidationError(wrong)
        return spec


class TransformInline(BlockInline):
    """On a route's page, so it names no route and no service."""

    model = Transform
    form = TransformForm
    fields = (
        ("name", "position", "enabled"), ("request", "response"), ("plugin", "on_failure"), "settings",
    )  # fmt: skip


@admin.register(Transform)
class TransformAdmin(SwitchedAdmin):
    form = TransformForm
    when_empty = "A transform changes the requests or the answers of a route."
    list_display = ("name", "of", "position", "edits_request", "edits_response", "plugged", "enabled")
    list_filter = ("enabled", "service", "route")
    list_filter_submit = False
    list_select_related = ("route", "service")
    search_fields = ("name", "route__name", "service__name", "plugin")
    search_help_text = "Part of a name, of its route's or service's, or of a plugin's"
    fieldsets = (
        (None, {"fields": ("name", ("route", "service"), ("position", "enabled"))}),
        ("Edits", {"fields": ("request", "response")}),
        ("Plugin", {"fields": (("plugin", "on_failure"), "settings")}),
    )

    @display(description="of")
    def of(self, transform: Transform) -> str:
        return cells.link(transform.route or transform.service)

    @display(description="request")
    def edits_request(self, transform: Transform) -> str:
        return cells.words(transform.request, cells.NONE)

    @display(description="response")
    def edits_response(self, transform: Transform) -> str:
        return cells.words(transform.response, cells.NONE)

    @display(description="plugin", ordering="plugin")
    def plugged(self, transform: Transform) -> str:
        return transform.plugin or cells.NONE
