"""The base of our admin pages, by role, and the page of the audit log."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction

from . import roles
from .models import AuditEntry


class RoleModelAdmin(ModelAdmin):
    """Viewers look, operators change and run actions, admins add and delete. Model permissions play no part."""

    list_per_page = 50
    show_full_result_count = False  # counts a whole table for one line of text

    def has_module_permission(self, request: HttpRequest) -> bool:
        return roles.allows(request.user, roles.VIEWER)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return roles.allows(request.user, roles.VIEWER)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For actions: `@action(permissions=["operate"])` also works where rows cannot be changed."""
        return roles.allows(request.user, roles.OPERATOR)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return roles.allows(request.user, roles.OPERATOR)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Django shows an action that names no permission to everybody who may look at the list.
        return super().get_actions(request) if self.has_operate_permission(request) else {}

    def get_unfold_action(self, action: str) -> UnfoldAction:
        # Unfold runs an action that names no permission for everybody who knows its URL.
        found = super().get_unfold_action(action)
        if not getattr(found.method, "allowed_permissions", None):
            found.method = self._for_operators(found.method)
        return found

    def _for_operators(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not self.has_operate_permission(request):
                raise PermissionDenied
            return method(request, *args, **kwargs)

        run.allowed_permissions = ["operate"]  # type: ignore[attr-defined]
        return run


class ReadOnlyModelAdmin(RoleModelAdmin):
    """For rows that a machine writes: they are looked at, and acted on by actions, but never edited."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyModelAdmin):
    list_display = ["created_at", "actor", "action", "target", "source", "ip", "request_id"]
    list_filter = ["source", "action", ("created_at", admin.DateFieldListFilter)]
    list_filter_submit = False
    search_fields = ["actor", "action", "target_label", "target_id", "request_id"]
    search_help_text = "Actor, action, target or request id"
    date_hierarchy = "created_at"
    fields = [
        "created_at",
        "actor",
        "actor_id",
        "action",
        "target",
        "source",
        "ip",
        "request_id",
        "was",
        "became",
    ]
    readonly_fields = fields
    actions = None

    @admin.display(description="before")
    def was(self, entry: AuditEntry) -> str:
        return _pretty(entry.before)

    @admin.display(description="after")
    def became(self, entry: AuditEntry) -> str:
        return _pretty(entry.after)


def _pretty(value: Any) -> str:
    if value is None:
        return "-"
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False))
