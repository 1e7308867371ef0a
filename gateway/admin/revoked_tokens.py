"""The admin page of revoked tokens: refused before they expire, everywhere within two seconds."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from foundation import audit, roles
from foundation.admin import ReadOnlyModelAdmin, asking, done, shortened
from gateway import issuers, revocations, tokens
from gateway.callers import OWN_ISSUER
from gateway.models import JwtIssuer, RevokedToken

from . import cells


class RevokeForm(BaseDialogForm):
    token = forms.CharField(
        required=False,
        max_length=16_384,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="The token itself, which is not stored. Or, where nobody has it at hand:",
    )
    issuer = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget)
    jti = forms.CharField(
        label="Its id (jti)", required=False, max_length=255, widget=UnfoldAdminTextInputWidget
    )
    expires_at = forms.DateTimeField(
        label="Expires",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "2026-12-31 23:59"}),
        help_text="By itself; UTC.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [*JwtIssuer.objects.values_list("name", flat=True), OWN_ISSUER]
        self.fields["issuer"].choices = [("", "-"), *((name, name) for name in names)]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        beside = ("issuer", "jti", "expires_at")
        if values.get("token"):
            for name in beside:
                if values.get(name):
                    self.add_error(name, "Give the token alone, or these three.")
            return values
        for name in beside:
            if not values.get(name) and name not in self.errors:
                self.add_error(name, "Is needed where no token is given.")
        if values.get("expires_at") and values["expires_at"] <= timezone.now():
            self.add_error("expires_at", "Is over: the token is refused anyway.")
        return values


@admin.register(RevokedToken)
class RevokedTokenAdmin(ReadOnlyModelAdmin):
    when_empty = "A token that is listed here is refused, though it has not expired."
    list_display = ("named", "issuer", "revoked_at", "expires_at")
    list_filter = ("issuer",)
    list_filter_submit = False
    search_fields = ("jti", "issuer")
    search_help_text = "Part of a token's id or of its issuer's name"
    fields = (("issuer", "jti"), "digest", ("revoked_at", "expires_at"))
    actions_list = ("revoke",)
    actions = None

    def has_administer_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.ADMIN)

    @display(description="token", ordering="jti")
    def named(self, token: RevokedToken) -> str:
        return cells.url(token.jti) if token.jti else shortened(token.digest)

    @method_decorator(sensitive_post_parameters("token"))
    @action(
        description="Revoke a token",
        permissions=["administer"],
        icon="block",
        variant=ActionVariant.PRIMARY,
        dialog=asking(
            "Revoke a token",
            "It is refused everywhere within two seconds. For good.",
            "Revoke it",
            RevokeForm,
        ),
    )
    def revoke(self, request: HttpRequest, form: RevokeForm) -> HttpResponse:
        try:
            row = _revoked(form.cleaned_data, audit.by(request, "admin"))
            self.message_user(request, f"{row} is revoked.", messages.SUCCESS)
        except tokens.Rejected:
            self.message_user(request, "This token is not accepted anyway.", messages.WARNING)
        except (ValidationError, ValueError) as error:
            told = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.message_user(request, told, messages.ERROR)
        return done(request, cells.list_of("revokedtoken"))


def _revoked(given: dict[str, Any], trace: dict[str, Any]) -> Any:
    if given["token"]:
        verifier = issuers.holder.refresh_if_due().verifier
        return revocations.revoke_token(given["token"], verifier, **trace)
    return revocations.revoke(given["issuer"], jti=given["jti"], expires_at=given["expires_at"], **trace)
