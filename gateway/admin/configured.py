"""What the pages of configured rows share: who may do what (as docs/gateway-api.md has it for the API), and how rows are
written: what one form or action changes is one revision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models
from django.db.models import ProtectedError, QuerySet
from django.forms import Form, ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from unfold.admin import StackedInline, TabularInline
from unfold.decorators import action

from foundation import audit, roles
from foundation.admin import RoleModelAdmin, asking, done
from gateway import changes, lookups
from gateway import rows as stored

from . import cells, meanwhile


class RowForm(ModelForm):
    """What is wrong with a field that it does not have is said at its top, where Django would fail.

    meanwhile: what somebody else did since its page was opened.
    """

    meanwhile = ""

    def full_clean(self) -> None:
        super().full_clean()
        if self.is_bound and self.meanwhile:
            self.add_error(None, self.meanwhile)

    def add_error(self, field: str | None, error: Any) -> None:
        if field is None and hasattr(error, "error_dict"):
            found: dict[str, Any] = {}
            for name, problems in error.error_dict.items():
                found.setdefault(name if name in self.fields else NON_FIELD_ERRORS, []).extend(problems)
            error = ValidationError(found)
        super().add_error(field, error)


class ConfiguredAdmin(RoleModelAdmin):
    """Everybody with a role looks, admins write. What operators may do besides is an action of its own."""

    form = RowForm
    warn_unsaved_form = True
    change_form_before_template = "admin/gateway/seen.html"

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    def has_administer_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For actions: `@action(permissions=["administer"])`."""
        return roles.allows(request.user, roles.ADMIN)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if request.method != "POST":
            return super().changeform_view(request, object_id, form_url, extra_context)
        lookups.ahead(
            value for name, value in request.POST.items() if name.endswith("url")
        )  # before all is locked
        try:
            with changes.change(**audit.by(request, "admin")) as writing:
                request.writing = writing
                request.meanwhile = self._meanwhile(request, object_id)
                return super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as error:  # of a field that the form does not have
            told = error.messages
        except IntegrityError as error:  # of values that the database compares in another way than we do
            told = writing.refused(error)[1].messages
        for text in told:
            messages.error(request, text)
        return HttpResponseRedirect(request.get_full_path())

    def _meanwhile(self, request: HttpRequest, object_id: str | None) -> str:
        seen = request.POST.get(meanwhile.FIELD)
        row = self.get_object(request, object_id) if object_id and seen else None
        return meanwhile.told(row, self._inside(), seen) if row is not None and seen else ""

    def _inside(self) -> set[type[models.Model]]:
        return {inline.model for inline in self.inlines if getattr(inline, "is_edited", True)}

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        told = getattr(request, "meanwhile", "")
        return type(form.__name__, (form,), {"meanwhile": told}) if told else form

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        if obj is not None and self.has_change_permission(request, obj):
            # Whoever is told of a change has seen it by that.
            is_new = request.method != "POST" or getattr(request, "meanwhile", "")
            seen = request.POST.get(meanwhile.FIELD, "")
            context["seen"] = meanwhile.mark(obj, self._inside()) if is_new else seen
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        writing_of(request).save(obj)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        rows = formset.save(commit=False)
        for row in formset.deleted_objects:
            writing_of(request).delete(row)
        for row in rows:
            writing_of(request).save(row)

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        changes.delete(obj, **audit.by(request, "admin"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with changes.change(**audit.by(request, "admin")) as writing:
            for row in queryset:
                try:
                    writing.delete(row)
                except ProtectedError:
                    messages.error(request, f"{row} is needed by others and was kept.")

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        # Keys and targets go with what they belong to, though nobody may delete them by themselves.
        deleted, counts, _, protected = super().get_deleted_objects(objs, request)
        return deleted, counts, set(), protected


class SwitchedAdmin(ConfiguredAdmin):
    """Rows with `enabled`, which operators turn on and off, one or several."""

    actions = ("enable_selected", "disable_selected")
    actions_detail: tuple[str, ...] = ("enable", "disable")

    @action(
        description="Enable",
        permissions=["operate"],
        icon="toggle_on",
        dialog=asking("Enable it?", "It is in use again within a second.", "Enable it"),
    )
    def enable(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._turn_one(request, object_id, True)

    @action(
        description="Disable",
        permissions=["operate"],
        icon="toggle_off",
        dialog=asking(
            "Disable it?",
            "From then on it is as if it were not there. It can be enabled again.",
            "Disable it",
        ),
    )
    def disable(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._turn_one(request, object_id, False)

    @action(description="Enable them", permissions=["operate"])
    def enable_selected(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        turn(self, request, rows, enabled=True)

    @action(description="Disable them", permissions=["operate"])
    def disable_selected(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        turn(self, request, rows, enabled=False)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        row = self.get_object(request, str(object_id))
        if row is None:
            return []
        absent = "_enable" if row.enabled else "_disable"
        found = super().get_actions_detail(request, object_id)
        return [one for one in found if not one.action_name.endswith(absent)]

    def _turn_one(self, request: HttpRequest, object_id: str, enabled: bool) -> HttpResponse:
        row = get_object_or_404(self.model, pk=object_id)
        turn(self, request, [row], enabled=enabled)
        return done(request, cells.page(row))


def turn(page: RoleModelAdmin, request: HttpRequest, rows: Iterable[Any], **values: Any) -> None:
    """Give all of these rows the values, as one change, and say how many were changed."""
    count = 0
    shown = list(rows)
    changes.look_up_names(*shown)
    try:
        with changes.change(**audit.by(request, "admin")) as writing:
            # As they are now that nobody else writes: a row is written as a whole.
            for row in stored.fresh(shown):
                if any(getattr(row, name) != value for name, value in values.items()):
                    for name, value in values.items():
                        setattr(row, name, value)
                    writing.save(row)
                    count += 1
    except ValidationError as error:
        page.message_user(request, f"Nothing was changed. {' '.join(error.messages)}", messages.ERROR)
        return
    told = f"{count} changed." if count else "Nothing was to be changed."
    page.message_user(request, told, messages.SUCCESS if count else messages.WARNING)


class _FollowsPage:
    """Rows inside a page: admins write them, the others with a role see them."""

    extra = 0

    def _may_write(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    has_add_permission = has_change_permission = has_delete_permission = _may_write

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.VIEWER)


class TableInline(_FollowsPage, TabularInline):
    hide_title = True

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """A column's heading is what is seen of a field's label, and names none of its rows' controls."""
        formset = super().get_formset(request, obj, **kwargs)
        for field in formset.form.base_fields.values():
            field.widget.attrs["aria-label"] = field.label
        return formset


class BlockInline(_FollowsPage, StackedInline):
    collapsible = True


def writing_of(request: HttpRequest) -> changes.Writing:
    found: changes.Writing = request.writing
    return found
