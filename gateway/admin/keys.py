"""The admin pages of API keys: made, shown once, rotated with an overlap, revoked.

A new key waits sealed in its maker's session for the one page that shows it: a redirect lies between, so that reloading
that page makes no second key, and does not show the first one again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import path, reverse
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminIntegerFieldWidget

from foundation import audit, roles
from foundation.admin import asking, done
from gateway import changes, secret_box
from gateway.models import ApiKey, Consumer

from . import cells
from .configured import ConfiguredAdmin, RowForm
from .fields import WordsField

STATES = {"active": "good", "expires soon": "warn", "expired": "", "revoked": "bad"}
_SOON = timedelta(days=7)
_LONGEST_DAYS, _LONGEST_OVERLAP_H = 3_650, changes.LONGEST_OVERLAP_S / 3600
_WAITING = "gateway_new_keys"  # of a session: key's id → what waits to be shown, and until when
_WAITS_S = 120


class NewKeyForm(BaseDialogForm):
    key_scopes = WordsField(label="Scopes", help_text="Of the consumer's. Empty: all of them.")
    days = forms.IntegerField(
        label="Expires after (days)",
        required=False,
        min_value=1,
        max_value=_LONGEST_DAYS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Empty: never.",
    )

    def clean_key_scopes(self) -> list[str] | None:
        scopes: list[str] = self.cleaned_data["key_scopes"]
        return _scopes_of(Consumer.objects.filter(pk=self.object_id).first(), scopes)


class RotateForm(BaseDialogForm):
    overlap_h = forms.FloatField(
        label="The old key stays valid for (hours)",
        initial=24,
        min_value=0,
        max_value=_LONGEST_OVERLAP_H,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
        help_text="0: it ends now.",
    )


class KeyForm(RowForm):
    scopes = WordsField(help_text="Of the consumer's. Empty: all of them.")

    class Meta:
        model = ApiKey
        fields = ("scopes", "expires_at")

    def clean_scopes(self) -> list[str] | None:
        return _scopes_of(self.instance.consumer, self.cleaned_data["scopes"])


def _scopes_of(consumer: Consumer | None, scopes: list[str]) -> list[str] | None:
    """None for none: a key without scopes of its own has all of its consumer's."""
    foreign = sorted(set(scopes) - set(consumer.scopes if consumer else ()))
    if foreign:
        raise forms.ValidationError(f"{consumer} does not have the scope {foreign[0]!r}.")
    return scopes or None


class StateFilter(DropdownFilter):
    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in ("active", "expired", "revoked")]

    def queryset(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        over = Q(expires_at__lte=timezone.now())
        wanted = {
            "revoked": ~Q(revoked_at=None),
            "expired": Q(revoked_at=None) & over,
            "active": Q(revoked_at=None) & (Q(expires_at=None) | ~over),
        }.get(self.value() or "")
        return keys if wanted is None else keys.filter(wanted)


@admin.register(ApiKey)
class ApiKeyAdmin(ConfiguredAdmin):
    form = KeyForm
    when_empty = "Keys are made on the page of their consumer."
    list_display = ("name", "of_consumer", "standing", "scopes_shown", "created_at", "expires_at", "used")
    list_filter = (StateFilter, "consumer")
    list_filter_submit = False
    list_select_related = ("consumer",)
    ordering = ("-pk",)
    search_fields = ("prefix", "consumer__name")
    search_help_text = "Part of a prefix or of a consumer's name"
    fields = (
        ("name", "of_consumer"),
        ("standing", "used"),
        "scopes",
        "expires_at",
        ("created_at", "revoked_at"),
    )
    readonly_fields = ("name", "of_consumer", "standing", "used", "created_at", "revoked_at")
    actions = ("revoke_selected",)
    actions_detail = ("rotate", "revoke")

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.shown_once)
        return [path("<int:pk>/shown/", view, name="gateway_apikey_shown"), *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # they are made on their consumer's page

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # revoked instead, so that it can be told whose it was

    @display(description="key", ordering="prefix")
    def name(self, key: ApiKey) -> str:
        return str(key)

    @display(description="consumer", ordering="consumer__name")
    def of_consumer(self, key: ApiKey) -> str:
        return cells.link(key.consumer)

    @display(description="state")
    def standing(self, key: ApiKey) -> str:
        return state_tag(key)

    @display(description="scopes")
    def scopes_shown(self, key: ApiKey) -> str:
        return cells.words(key.scopes or (), "all of its consumer's" if key.scopes is None else "none")

    @display(description="last used", ordering="last_used_at")
    def used(self, key: ApiKey) -> str:
        return cells.ago(key.last_used_at)

    @action(
        description="Rotate",
        permissions=["administer"],
        icon="autorenew",
        variant=ActionVariant.PRIMARY,
        dialog=asking(
            "Make a new key in place of this one?",
            "It gets the same scopes and lifetime, and is shown once, on the next page.",
            "Rotate it",
            RotateForm,
        ),
    )
    def rotate(self, request: HttpRequest, form: RotateForm, object_id: str) -> HttpResponse:
        key = get_object_or_404(ApiKey, pk=object_id)
        try:
            overlap_s = form.cleaned_data["overlap_h"] * 3600
            row, text = changes.rotate_key(key, overlap_s=overlap_s, **audit.by(request, "admin"))
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return done(request, cells.page(key))
        return done(request, keep(request, row, text))

    @action(
        description="Revoke",
        permissions=["administer"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Revoke this key?",
            "Whoever calls with it is turned away within two seconds. For good: a new key takes its place.",
            "Revoke it",
        ),
    )
    def revoke(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        key = get_object_or_404(ApiKey, pk=object_id)
        changes.revoke_key(key, **audit.by(request, "admin"))
        self.message_user(request, f"{key} is revoked.", messages.SUCCESS)
        return done(request, cells.page(key))

    @action(description="Revoke them for good", permissions=["administer"])
    def revoke_selected(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        with changes.change(**audit.by(request, "admin")) as writing:
            living = list(keys.filter(revoked_at=None).select_related("consumer"))
            for key in living:
                key.revoked_at = timezone.now()
                writing.save(key)
        self.message_user(request, f"{len(living)} revoked.", messages.SUCCESS)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        key = self.get_object(request, str(object_id))
        if key is None or state_of(key, timezone.now()) in ("revoked", "expired"):
            return []
        return super().get_actions_detail(request, object_id)

    def shown_once(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The key, to whoever made it, the first time; 410 from then on. The admin's pages are cached nowhere."""
        if not roles.allows(request.user, roles.ADMIN):
            raise PermissionDenied
        key = get_object_or_404(ApiKey.objects.select_related("consumer"), pk=pk)
        text = _taken(request, pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "New API key",
            "key": key,
            "text": text,
        }
        return render(request, "admin/gateway/key/shown.html", context, status=200 if text else 410)


def issue(page: Any, request: HttpRequest, consumer: Consumer, given: dict[str, Any]) -> HttpResponse:
    """given: of a NewKeyForm."""
    expires_at = timezone.now() + timedelta(days=given["days"]) if given["days"] else None
    try:
        key, text = changes.issue_key(
            consumer, scopes=given["key_scopes"], expires_at=expires_at, **audit.by(request, "admin")
        )
    except ValidationError as error:
        page.message_user(request, " ".join(error.messages), messages.ERROR)
        return done(request, cells.page(consumer))
    return done(request, keep(request, key, text))


def keep(request: HttpRequest, key: ApiKey, text: str) -> str:
    """Put a new key where only its maker's next page finds it. Returns the address of that page."""
    now = timezone.now().timestamp()
    waiting = {pk: one for pk, one in request.session.get(_WAITING, {}).items() if one[1] > now}
    request.session[_WAITING] = {**waiting, str(key.pk): [secret_box.seal(text), now + _WAITS_S]}
    return reverse("admin:gateway_apikey_shown", args=[key.pk])


def _taken(request: HttpRequest, pk: int) -> str:
    waiting = request.session.get(_WAITING, {})
    sealed, until = waiting.pop(str(pk), ("", 0.0))
    request.session[_WAITING] = waiting
    return secret_box.open_(sealed) if sealed and until > timezone.now().timestamp() else ""


def state_of(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "active"
    if key.expires_at <= now:
        return "expired"
    return "expires soon" if key.expires_at - now < _SOON else "active"


def state_tag(key: ApiKey) -> str:
    state = state_of(key, timezone.now())
    return cells.tag(state, STATES[state])
