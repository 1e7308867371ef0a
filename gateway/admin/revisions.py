"""The admin pages of the configuration's history: who changed what and when, in full, and the way back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from foundation import audit, roles
from foundation.admin import ReadOnlyModelAdmin, asking, done
from gateway import entries, history, rows, soundness
from gateway.entries import Change
from gateway.errors import RollbackRefused
from gateway.models import Revision

from . import cells

_VERBS = {"create": "created", "update": "changed", "delete": "deleted"}
_TONES = {"create": "good", "update": "warn", "delete": "bad"}
_NAMED = 3  # changes that a line of the list names
_SHOWN = 100  # changes on a page: `manage.py gateway history` has them all
_SHOWN_IN_DIALOG = 30


class RollbackForm(BaseDialogForm):
    """Shows what would change before it is done."""

    form_before_template = "admin/gateway/revision/way_back.html"

    def get_before_template_context(self, request: HttpRequest, object_id: Any = None) -> dict[str, Any]:
        try:
            found = history.way_back(int(object_id))
        except (RollbackRefused, ValueError) as error:
            return {"refused": str(error)}
        return {
            "changes": [diff(change) for change in found[:_SHOWN_IN_DIALOG]],
            "more": max(0, len(found) - _SHOWN_IN_DIALOG),
        }


@admin.register(Revision)
class RevisionAdmin(ReadOnlyModelAdmin):
    when_empty = "Each change of the gateway's configuration is kept here, and can be gone back to."
    list_display = ("number", "made_at", "actor", "source", "counts", "summary")
    list_filter = ("source",)
    list_filter_submit = False
    ordering = ("-version",)
    search_fields = ("actor",)
    search_help_text = "Part of a name of somebody"
    fields = (("version", "made_at"), ("actor", "source"), "counts")
    readonly_fields = ("version", "made_at", "actor", "source", "counts")
    actions = None
    actions_detail = ("roll_back",)
    list_before_template = "admin/gateway/revision/out_of_service.html"
    change_form_after_template = "admin/gateway/revision/changes.html"

    def has_administer_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        found = soundness.look()
        shown = {"outages": found.outages[:_SHOWN], "refused": found.refused}
        return super().changelist_view(request, {**(extra_context or {}), **shown})

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        shown = super().get_changelist_instance(request)
        shown.result_list = list(shown.result_list)
        back = history.rollbacks(row.version for row in shown.result_list)
        for row in shown.result_list:
            row.back_to = back.get(row.version)
        return shown

    @display(description="version", ordering="version")
    def number(self, row: Revision) -> str:
        return str(row.version)

    @display(description="changes")
    def counts(self, row: Revision) -> str:
        counted = Counter(change.verb for change in _changes(row))
        tags = (
            (cells.tag(f"{counted[verb]} {word}", _TONES[verb]),)
            for verb, word in _VERBS.items()
            if counted[verb]
        )
        return format_html('<span class="brain-nowrap">{}</span>', format_html_join(" ", "{}", tags))

    @display(description="what")
    def summary(self, row: Any) -> str:
        found = _changes(row)
        lines = [_line(change) for change in found[:_NAMED]]
        if row.back_to is not None:
            lines.insert(0, f"back to version {row.back_to}")
        if len(found) > _NAMED:
            lines.append(f"and {len(found) - _NAMED} more")
        return format_html(
            '<span class="brain-lines">{}</span>',
            format_html_join("", "<span>{}</span>", ((line,) for line in lines)),
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        if obj is not None:
            found = _changes(obj)
            context |= {
                "changes": [diff(change) for change in found[:_SHOWN]],
                "more": max(0, len(found) - _SHOWN),
                "back_to": history.rollbacks([obj.version]).get(obj.version),
                "is_newest": obj.version == history.newest(),
            }
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    @action(
        description="Roll back to this version",
        permissions=["administer"],
        icon="settings_backup_restore",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Roll back to this version?",
            "The configuration becomes what it was right after it, as a new version. Keys that were revoked or have "
            "ended since stay so; keys issued since stay valid.",
            "Roll back",
            RollbackForm,
        ),
    )
    def roll_back(self, request: HttpRequest, form: RollbackForm, object_id: str) -> HttpResponse:
        before = history.newest()
        try:
            made = history.rollback(int(object_id), **audit.by(request, "admin"))
        except RollbackRefused as error:
            self.message_user(request, f"Nothing was changed: {error}.", messages.ERROR)
            return done(request, cells.page_of("revision", object_id))
        if made == before:
            self.message_user(request, "It is what it was then already.", messages.WARNING)
            return done(request, cells.list_of("revision"))
        self.message_user(
            request, f"Rolled back to version {object_id}, as version {made}.", messages.SUCCESS
        )
        return done(request, cells.page_of("revision", made))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        if str(history.newest()) == str(object_id):
            return []  # it is this version already
        return super().get_actions_detail(request, object_id)


def diff(change: Change) -> dict[str, Any]:
    """A change as a template shows it: each field that differs, before and after, secrets masked."""
    shown = change.shown()
    before, after = shown["before"] or {}, shown["after"] or {}
    return {
        "verb": _VERBS[change.verb],
        "tone": _TONES[change.verb],
        "kind": "API key" if change.kind == "key" else change.kind,
        "name": _name(change),
        "is_update": change.verb == "update",
        "fields": [
            (name, _text(before.get(name)), _text(after.get(name)))
            for name in _worth_naming(change, change.fields())
        ],
    }


def _line(change: Change) -> str:
    line = change.line(rows.defaults(change.kind))
    return line.replace(entries.short(change.entry), _name(change), 1)


def _name(change: Change) -> str:
    """As people know it: of a key not its digest, but its prefix and whose it is."""
    if change.kind != "key":
        return change.name
    fields = change.after or change.before or {}
    shown = f"brn_{fields['prefix']}_…" if fields.get("prefix") else f"imported …{change.name[-6:]}"
    return f"{shown} of {fields.get('consumer')}"


def _worth_naming(change: Change, names: Iterable[str]) -> Sequence[str]:
    """Of a thing that is new or gone without what it has by itself."""
    if change.verb == "update":
        return list(names)
    usual, whole = rows.defaults(change.kind), change.after or change.before or {}
    return [name for name in names if name not in usual or usual[name] != whole.get(name)]


def _changes(row: Revision) -> list[Change]:
    return [Change(**one) for one in row.changes]


def _text(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return json.dumps(value, indent=2, ensure_ascii=False)
