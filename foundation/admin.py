"""The base of our admin pages, by role, and the page of the audit log."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ERROR_FLAG, IGNORED_PARAMS
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import DatabaseError, connections, models, transaction
from django.forms import Field, Form, MultiWidget
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.cache import patch_vary_headers
from django.utils.functional import cached_property
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction

from . import roles
from .htmx import is_part
from .models import AuditEntry

MOST_COUNTED = 2_000  # rows of a list: whoever wants more of them filters, or asks the API, which has cursors


class BoundedPaginator(Paginator):
    """Counts no further than MOST_COUNTED and pages no further, so that a list of millions costs what its page costs."""

    template_name = "admin/pagination_bounded.html"

    @cached_property
    def count(self) -> int:
        return int(self.object_list.order_by()[: MOST_COUNTED + 1].count())

    @property
    def is_more(self) -> bool:
        """Whether there are rows beyond the last page."""
        return self.count > MOST_COUNTED

    @property
    def counted(self) -> str:
        return f"more than {MOST_COUNTED:,}" if self.is_more else f"{self.count:,}"


def _undone_alone(alias: str) -> AbstractContextManager[Any]:
    """A query that fails spoils no transaction that is open around it."""
    return transaction.atomic(alias) if connections[alias].in_atomic_block else nullcontext()


class RoleModelAdmin(ModelAdmin):
    """Viewers look, operators change and run actions, admins add and delete. Model permissions play no part."""

    when_empty = ""  # what a list without a row says: what would be in it, and what it takes
    list_per_page = 50
    paginator = BoundedPaginator
    show_facets = admin.ShowFacets.NEVER  # a count of the whole table for each choice
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

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        shown = self._read_list(request)
        if shown.paginator.is_more or not (shown.query or shown.has_active_filters):
            # Unfold offers "Show all" when this number differs from what is shown, so also where it was not counted.
            shown.full_result_count = shown.result_count
        return shown

    def _read_list(self, request: HttpRequest) -> Any:
        """The list with its rows. Django lets any lookup on a column into an address, and finds out while it renders the
        page that the database cannot do it: `?name__regex=(`, a NUL byte, a number that no column holds. Raises
        IncorrectLookupParameters then, as for what it finds out itself."""
        try:
            with _undone_alone(self.get_queryset(request).db):
                shown = super().get_changelist_instance(request)
                len(shown.result_list)
        except (DatabaseError, ValueError, TypeError, ArithmeticError, LookupError) as error:
            if request.GET.keys() <= {*IGNORED_PARAMS, ERROR_FLAG}:  # then it is not the address
                raise
            raise IncorrectLookupParameters(error) from error
        return shown

    def formfield_for_dbfield(
        self, db_field: models.Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        name_parts(field)
        return field

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Django shows an action that names no permission to everybody who may look at the list.
        return super().get_actions(request) if self.has_operate_permission(request) else {}

    def get_unfold_action(self, action: str) -> UnfoldAction:
        # Unfold runs an action that names no permission for everybody who knows its URL.
        found = super().get_unfold_action(action)
        if not getattr(found.method, "allowed_permissions", None):
            found.method = self._for_operators(found.method)
        if found.dialog:
            found.method = self._also_as_page(found.method, found.description)
        return found

    def _for_operators(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not self.has_operate_permission(request):
                raise PermissionDenied
            return method(request, *args, **kwargs)

        run.allowed_permissions = ["operate"]  # type: ignore[attr-defined]
        return run

    def _also_as_page(self, method: Callable[..., Any], title: str) -> Callable[..., Any]:
        """htmx puts what an action asks into the modal of a page. Whoever opens the address by itself gets a page around it.

        method: what it answers with 200 is what it asks; by itself it answers with `done`, which leads elsewhere.
        """

        @functools.wraps(method)
        def run(request: HttpRequest, **of_row: str) -> Any:
            around = method if is_part(request) else functools.partial(self._asked_as_page, method, title)
            answer = around(request, **of_row)
            patch_vary_headers(answer, ["HX-Request", "HX-History-Restore-Request"])
            return answer

        return run

    def _asked_as_page(
        self, method: Callable[..., Any], title: str, request: HttpRequest, **of_row: str
    ) -> HttpResponse:
        pages = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        row = self.get_object(request, unquote(of_row["object_id"])) if of_row else None
        request.dialog_back = (
            reverse(f"{pages}_changelist")
            if row is None
            else reverse(f"{pages}_change", args=[quote(row.pk)])
        )
        answer: HttpResponse = method(request, **of_row)
        if answer.status_code != HTTPStatus.OK:
            return answer
        if of_row and row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, of_row["object_id"])
        context = {"title": title, "opts": self.opts, "original": row, "dialog": answer.text}
        return render(request, "admin/dialog.html", {**self.admin_site.each_context(request), **context})


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
    when_empty = "Everything that changes state is kept here: who, what, when and from where."
    list_display = ["created_at", "actor", "action", "on", "came_by", "ip", "traced"]
    list_filter = ["source", "action", ("created_at", admin.DateFieldListFilter)]
    list_filter_submit = False
    search_fields = ["actor", "action", "target_label", "target_id", "request_id"]
    search_help_text = "Actor, action, target or request id"
    date_hierarchy = "created_at"
    fields = [
        ("created_at", "came_by"),
        ("actor", "action"),
        ("on", "actor_id"),
        ("ip", "request_id"),
        ("was", "became"),
    ]
    readonly_fields = [name for row in fields for name in row]
    actions = None

    @admin.display(description="target", ordering="target_label")
    def on(self, entry: AuditEntry) -> str:
        """Its page, where it has one; looked up by name alone, so that a list asks the database for none."""
        page = f"admin:{entry.target_label.replace('.', '_').lower()}_change"
        try:
            link = reverse(page, args=[entry.target_id])
        except NoReverseMatch:
            return entry.target
        return format_html('<a class="brain-link" href="{}">{}</a>', link, entry.target)

    @admin.display(description="source", ordering="source")
    def came_by(self, entry: AuditEntry) -> str:
        return entry.source  # "cli", where the choice's label would be "Cli"

    @admin.display(description="request id", ordering="request_id")
    def traced(self, entry: AuditEntry) -> str:
        return shortened(entry.request_id)

    @admin.display(description="before")
    def was(self, entry: AuditEntry) -> str:
        return as_json(entry.before)

    @admin.display(description="after")
    def became(self, entry: AuditEntry) -> str:
        return as_json(entry.after)


def as_json(value: Any) -> str:
    """A JSON value as a block to read; "-" for none."""
    return "-" if value is None else as_block(json.dumps(value, indent=2, ensure_ascii=False))


def as_block(text: str) -> str:
    """Text of several lines, escaped, in the shape that it has."""
    return format_html('<pre class="brain-pre">{}</pre>', text)


def shortened(identifier: str) -> str:
    """The end of a long id, which tells ids made at one time apart; the whole one is its tooltip."""
    if len(identifier) <= 12:
        return identifier or "-"
    return format_html('<code title="{}">…{}</code>', identifier, identifier[-8:])


def asking(title: str, description: str, submit: str, form: type[Form] | None = None) -> dict[str, Any]:
    """The dialog by which an action asks first: Unfold's `@action(dialog=…)`."""
    return {"title": title, "description": description, "form_class": form, "form_submit_text": submit}


def name_parts(field: Field | None) -> None:
    """Gives each part of a date with its time a name; the label that is seen stands for none of them."""
    if field is not None and isinstance(field.widget, MultiWidget):
        for part in field.widget.widgets:
            part.attrs["aria-label"] = f"{field.label}: {part.attrs.get('placeholder', '')}".lower()


def done(request: HttpRequest, page: str) -> HttpResponse:
    """The answer of an action that asked in a dialog. Where htmx sent it, it goes to `page` by this header alone."""
    if is_part(request):
        return HttpResponse(headers={"HX-Redirect": page})
    return HttpResponseRedirect(page)
