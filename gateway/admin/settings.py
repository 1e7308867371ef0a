"""The admin page of what holds for the whole gateway: one row, and no list."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from gateway.models import Configuration

from . import cells
from .configured import ConfiguredAdmin


@admin.register(Configuration)
class ConfigurationAdmin(ConfiguredAdmin):
    fields = ("api_key_header", ("running", "changed_at"))
    readonly_fields = ("running", "changed_at")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """The page of the row."""
        row, _ = Configuration.objects.get_or_create(pk=1)
        return self.changeform_view(request, str(row.pk), extra_context=extra_context)

    @display(description="version")
    def running(self, row: Configuration) -> str:
        return cells.to(cells.list_of("revision"), str(row.version))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
