"""The admin pages of consumers: programs that call with API keys."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit, roles
from foundation.admin import asking, done
from gateway import changes
from gateway.models import ApiKey, Consumer

from . import cells, traffic
from .configured import RowForm, SwitchedAdmin, TableInline
from .fields import WordsField
from .keys import NewKeyForm, issue, state_tag


class ConsumerForm(RowForm):
    roles = WordsField(help_text=f"Of {', '.join(roles.RANKED)}.")
    scopes = WordsField(help_text="What its keys may be given. Words, such as tasks:read.")

    class Meta:
        model = Consumer
        fields = ("name", "roles", "scopes", "plan", "enabled")
        help_texts = {"plan": "Its limits count over all routes. Empty: those of the routes alone."}


class KeyInline(TableInline):
    """To look at: keys are made, rotated and revoked by actions."""

    model = ApiKey
    verbose_name_plural = "API keys"
    fields = readonly_fields = ("key", "standing", "scopes_shown", "created_at", "expires_at", "used")
    can_delete = False
    is_edited = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    @admin.display(description="key")
    def key(self, key: ApiKey) -> str:
        return cells.link(key)

    @admin.display(description="state")
    def standing(self, key: ApiKey) -> str:
        return state_tag(key)

    @admin.display(description="scopes")
    def scopes_shown(self, key: ApiKey) -> str:
        return cells.words(key.scopes or (), "all of its consumer's" if key.scopes is None else "none")

    @admin.display(description="last used")
    def used(self, key: ApiKey) -> str:
        return cells.ago(key.last_used_at)


@admin.register(Consumer)
class ConsumerAdmin(SwitchedAdmin):
    form = ConsumerForm
    when_empty = (
        "A consumer is somebody who calls: it holds the API keys, the roles, the scopes and the plan."
    )
    list_display = (
        "name", "roles_shown", "scopes_shown", "of_plan", "living_keys", "used", "requests", "enabled",
    )  # fmt: skip
    list_filter = ("enabled", "plan")
    list_filter_submit = False
    list_select_related = ("plan",)
    search_fields = ("name", "keys__prefix")
    search_help_text = "Part of a name, or of a key's prefix"
    inlines = (KeyInline,)
    fieldsets = ((None, {"fields": ("name", ("roles", "scopes"), ("plan", "enabled"))}),)
    actions_detail = ("issue_key", "enable", "disable", "revoke_keys")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Consumer]:
        now = timezone.now()
        is_living = Q(keys__revoked_at=None) & (Q(keys__expires_at=None) | Q(keys__expires_at__gt=now))
        living = Count("keys", filter=Q(keys__pk__isnull=False) & is_living, distinct=True)
        return super().get_queryset(request).annotate(living_count=living, used_at=Max("keys__last_used_at"))

    @display(description="roles")
    def roles_shown(self, consumer: Consumer) -> str:
        return cells.words(consumer.roles, "none")

    @display(description="scopes")
    def scopes_shown(self, consumer: Consumer) -> str:
        return cells.words(consumer.scopes, "none")

    @display(description="plan", ordering="plan__name")
    def of_plan(self, consumer: Consumer) -> str:
        return cells.link(consumer.plan)

    @display(description="keys", ordering="living_count")
    def living_keys(self, consumer: Any) -> str:
        return cells.counted(consumer.living_count, cells.list_of("apikey", consumer__id__exact=consumer.pk))

    @display(description="last used", ordering="used_at")
    def used(self, consumer: Any) -> str:
        return cells.ago(consumer.used_at)

    @display(description="traffic")
    def requests(self, consumer: Consumer) -> str:
        return cells.to(traffic.page(consumer=consumer.name), "show")

    @action(
        description="New API key",
        permissions=["administer"],
        icon="add",
        variant=ActionVariant.PRIMARY,
        dialog=asking(
            "Make a new API key?",
            "It is shown once, on the next page. The other keys stay valid.",
            "Make it",
            NewKeyForm,
        ),
    )
    def issue_key(self, request: HttpRequest, form: NewKeyForm, object_id: str) -> HttpResponse:
        return issue(self, request, get_object_or_404(Consumer, pk=object_id), form.cleaned_data)

    @action(
        description="Revoke all keys",
        permissions=["administer"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Revoke all keys of this consumer?",
            "Its programs are turned away within two seconds, until they get a new key. For good.",
            "Revoke them",
        ),
    )
    def revoke_keys(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        consumer = get_object_or_404(Consumer, pk=object_id)
        with changes.change(**audit.by(request, "admin")) as writing:
            living = list(consumer.keys.filter(revoked_at=None).select_related("consumer"))
            for key in living:
                key.revoked_at = timezone.now()
                writing.save(key)
        self.message_user(request, f"{len(living)} key{'' if len(living) == 1 else 's'} revoked.")
        return done(request, cells.page(consumer))
