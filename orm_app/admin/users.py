"""Users and their role groups in the admin. Only admins change them; every change is audited."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db import models, transaction
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from foundation import audit, roles
from foundation.admin import RoleModelAdmin
from orm_app import users
from orm_app.models import User


class AuditedAdmin(RoleModelAdmin):
    """Saves and deletes through the admin leave an audit entry each, in the same transaction."""

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:
        stored = self.model._default_manager.filter(pk=obj.pk).first() if change else None
        request.audit_before = users.snapshot(stored) if stored else None
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)  # the groups of a user are known from here on
        users.record_saved(form.instance, request.audit_before, **audit.by(request, "admin"))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        users.record_deleted(obj, **audit.by(request, "admin"))
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        with transaction.atomic():
            for obj in queryset:
                users.record_deleted(obj, **audit.by(request, "admin"))
            super().delete_queryset(request, queryset)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, AuditedAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "email", "role", "is_staff", "is_active", "last_login", "created_at"]
    list_filter = ["groups", "is_active", "is_staff", "is_superuser"]
    search_fields = ["username", "email"]
    search_help_text = "Part of a username or of an address"
    ordering = ["username"]
    filter_horizontal = ()
    readonly_fields = ["last_login", "created_at"]
    fieldsets = [
        (None, {"fields": ["username", "email", "password"]}),
        ("Access", {"fields": ["is_active", "is_staff", "groups", "is_superuser"]}),
        ("Dates", {"fields": ["last_login", "created_at"]}),
    ]
    add_fieldsets = [
        (
            None,
            {
                "classes": ["wide"],
                "fields": ["username", "email", "usable_password", "password1", "password2"],
            },
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "groups":  # Django's own help speaks of permissions, which play no part here
            kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget
            kwargs["label"] = "Roles"
            kwargs["help_text"] = "A viewer sees, an operator acts as well, an admin configures as well."
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "groups" and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget.can_add_related = False  # a group of another name is no role
        return field

    @admin.display(description="role")
    def role(self, user: User) -> str:
        if user.is_superuser:
            return f"{roles.ADMIN} (superuser)"
        held = {group.name for group in user.groups.all()}
        return next((name for name in reversed(roles.RANKED) if name in held), "-")

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        fixed = [] if getattr(request.user, "is_superuser", False) else ["is_superuser"]
        return [*super().get_readonly_fields(request, obj), *fixed]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return sets
        return [
            (title, options | {"fields": [f for f in options["fields"] if f != "password"]})
            for title, options in sets
        ]

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        with transaction.atomic():
            answer: HttpResponse = super().user_change_password(request, id, form_url)
            if request.method == "POST" and answer.status_code == 302:
                users.record_password(User.objects.get(pk=id), **audit.by(request, "admin"))
        return answer


def _may_touch(request: HttpRequest, user: models.Model | None) -> bool:
    """A superuser's account is a superuser's to change: else an admin could take it over by its password."""
    return not getattr(user, "is_superuser", False) or bool(getattr(request.user, "is_superuser", False))


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, AuditedAdmin):
    list_display = ["name", "members"]
    filter_horizontal = ()
    fields = ["name", "members"]
    readonly_fields = ["members"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Group]:
        return super().get_queryset(request).annotate(member_count=models.Count("user"))

    @admin.display(ordering="member_count")
    def members(self, group: Any) -> int:
        return getattr(group, "member_count", 0)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not _is_role(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not _is_role(obj)


def _is_role(group: Any) -> bool:
    return getattr(group, "name", None) in roles.RANKED
