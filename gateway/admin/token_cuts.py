"""The admin page of subjects that were cut off: what was issued to them so far is refused everywhere within two seconds."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from foundation import audit, roles
from foundation.admin import ReadOnlyModelAdmin, asking, done
from gateway import cuts
from gateway.callers import OWN_ISSUER
from gateway.models import JwtIssuer, TokenCut

from . import cells


class CutForm(BaseDialogForm):
    user = forms.CharField(
        label="User of ours",
        required=False,
        max_length=150,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="By name. Or, of any issuer:",
    )
    issuer = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget)
    subject = forms.CharField(
        label="Its subject (sub)", required=False, max_length=255, widget=UnfoldAdminTextInputWidget()
    )
    expires_at = forms.DateTimeField(
        label="Kept until",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "2026-12-31 23:59"}),
        help_text="When the last token that it has now expires; UTC. Of our own issuer it is known.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [*JwtIssuer.objects.values_list("name", flat=True), OWN_ISSUER]
        self.fields["issuer"].choices = [("", "-"), *((name, name) for name in names)]

    def clean_user(self) -> Any:
        name = self.cleaned_data["user"]
        user = get_user_model().objects.filter(username=name).first() if name else None
        if name and user is None:
            raise ValidationError("Nobody of this name.")
        return user

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        beside = ("issuer", "subject", "expires_at")
        if values.get("user"):
            for name in beside:
                if values.get(name):
                    self.add_error(name, "Give the user alone, or these.")
            return values
        if "user" in self.errors:
            return values
        is_ours = values.get("issuer") == cuts.own_issuer()
        for name in beside[:2] if is_ours else beside:
            if not values.get(name) and name not in self.errors:
                self.add_error(name, "Is needed where no user is given.")
        if values.get("expires_at") and values["expires_at"] <= timezone.now():
            self.add_error("expires_at", "Is over: these tokens are refused anyway.")
        return values


@admin.register(TokenCut)
class TokenCutAdmin(ReadOnlyModelAdmin):
    when_empty = "Of whoever is listed here all tokens are refused that were issued until then."
    list_display = ("subject", "issuer", "issued_until", "expires_at")
    list_filter = ("issuer",)
    list_filter_submit = False
    search_fields = ("subject", "issuer")
    search_help_text = "Part of a subject or of its issuer's name"
    fields = (("issuer", "subject"), ("issued_until", "expires_at"))
    actions_list = ("cut",)
    actions = None

    def has_administer_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    @action(
        description="Cut off a subject",
        permissions=["administer"],
        icon="content_cut",
        variant=ActionVariant.PRIMARY,
        dialog=asking(
            "Cut off a subject",
            "All tokens that it has now are refused everywhere within two seconds, for good. New ones are not.",
            "Cut off",
            CutForm,
        ),
    )
    def cut(self, request: HttpRequest, form: CutForm) -> HttpResponse:
        try:
            row = _cut(form.cleaned_data, audit.by(request, "admin"))
            self.message_user(request, f"{row} is cut off.", messages.SUCCESS)
        except (ValidationError, ValueError) as error:
            told = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.message_user(request, told, messages.ERROR)
        return done(request, cells.list_of("tokencut"))


def _cut(given: dict[str, Any], trace: dict[str, Any]) -> TokenCut:
    if given["user"] is not None:
        return cuts.cut_user(given["user"], **trace)
    return cuts.cut(given["issuer"], given["subject"], expires_at=given["expires_at"], **trace)
