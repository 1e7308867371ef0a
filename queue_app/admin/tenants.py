"""The admin page of tenants: what one may take of a queue that differs from the others'."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import BooleanField, ModelForm
from django.http import HttpRequest
from unfold.decorators import action, display
from unfold.widgets import UnfoldBooleanSwitchWidget

from foundation import audit
from foundation.admin import RoleModelAdmin
from queue_app import limits_told, quotas, tenants
from queue_app.models import Tenant

from .cells import once


class TenantForm(ModelForm):
    paused = BooleanField(  # the column knows a third answer, which is the same as no
        required=False, help_text="Its jobs wait; what runs goes on", widget=UnfoldBooleanSwitchWidget
    )
    is_new = BooleanField(
        label="New", required=False, help_text="No job of this tenant need be in the queue yet", initial=False
    )

    class Meta:
        model = Tenant
        fields = ["queue", "name", *tenants.EDITABLE]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if self.errors:
            return values
        try:
            quotas.check({key: values[key] for key in tenants.EDITABLE})
            if self.instance.pk is None:
                tenants.check_known(values["queue"].name, values["name"], is_new=values["is_new"])
        except quotas.BadLimit as error:
            self.add_error(error.field, error.problem)
        except tenants.UnknownTenant as error:
            self.add_error("name", str(error))
        return values


@admin.register(Tenant)
class TenantAdmin(RoleModelAdmin):
    form = TenantForm
    when_empty = (
        "The tenants of queues with limits, from their first job on; or added here, to have their own limits."
    )
    list_display = ["name_or_none", "queue", "turns", "limits", "seen_at"]
    list_filter = ["queue"]
    list_filter_submit = False
    search_fields = ["name"]
    search_help_text = "Part of a tenant's name"
    ordering = ["queue", "name"]
    actions = ["pause_selected", "resume_selected"]

    def get_fields(self, request: HttpRequest, obj: Tenant | None = None) -> list[Any]:
        limits = ["paused", "weight", "max_concurrency", ("rate_count", "rate_period_s", "rate_burst")]
        return [("queue", "name"), *limits, *(["is_new"] if obj is None else ["standing", "seen_at"])]

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> list[str]:
        return [] if obj is None else ["queue", "name", "standing", "seen_at"]

    @display(description="tenant", ordering="name")
    def name_or_none(self, tenant: Tenant) -> str:
        return tenant.name or "(none)"

    @display(description="weight", ordering="weight")
    def turns(self, tenant: Tenant) -> int:
        return tenant.weight or 1

    @display(description="limits of its own")
    def limits(self, tenant: Tenant) -> str:
        return limits_told.of_tenant(tenant) or "-"

    @display(description="now")
    @once
    def standing(self, tenant: Tenant) -> str:
        found = next((one for one in tenants.standing(tenant.queue_id) if one.name == tenant.name), None)
        return f"{found.held} in use, {found.waiting} wait" if found else "-"

    @action(description="Pause", permissions=["operate"])
    def pause_selected(self, request: HttpRequest, rows: QuerySet[Tenant]) -> None:
        self._set_paused(request, rows, True, "Paused: their jobs wait.")

    @action(description="Resume", permissions=["operate"])
    def resume_selected(self, request: HttpRequest, rows: QuerySet[Tenant]) -> None:
        self._set_paused(request, rows, False, "Resumed.")

    def _set_paused(self, request: HttpRequest, rows: QuerySet[Tenant], paused: bool, told: str) -> None:
        for row in rows:
            tenants.configure(
                row.queue_id, row.name, is_new=True, paused=paused, **audit.by(request, "admin")
            )
        self.message_user(request, told, messages.SUCCESS)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # how far its rate has come would go with it; empty fields take its limits away

    def save_model(self, request: HttpRequest, obj: Tenant, form: ModelForm, change: bool) -> None:
        changes = {key: form.cleaned_data[key] for key in tenants.EDITABLE}
        row = tenants.configure(obj.queue_id, obj.name, is_new=True, **changes, **audit.by(request, "admin"))
        obj.pk = row.pk
