"""The admin pages of token issuers. A secret goes in and never comes out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from foundation import figures
from gateway import changes, document, tokens
from gateway.models import JwtIssuer

from . import cells, live
from .configured import ConfiguredAdmin, RowForm, writing_of


class IssuerForm(RowForm):
    new_secret = forms.CharField(
        label="Secret",
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="For HS algorithms. Kept encrypted and never shown; empty leaves it as it is.",
    )
    # Not `signs`: the form would refuse a second one before the first can let go of it.
    signing = forms.BooleanField(
        label="Signs",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="The token endpoint signs with it. One issuer does, so it takes it over.",
    )

    class Meta:
        model = JwtIssuer
        fields = (
            "name", "algorithm", "public_key", "jwks_url", "issuer", "audience", "leeway_s", "roles_claim",
            "scopes_claim", "expiry_s", "enabled",
        )  # fmt: skip
        labels = {
            "issuer": "Required iss",
            "audience": "Required aud",
            "expiry_s": "Lifetime (s)",
            "leeway_s": "Leeway (s)",
            "roles_claim": "Claim of the roles",
            "scopes_claim": "Claim of the scopes",
        }
        help_texts = {"issuer": "Empty: not looked at.", "audience": "Empty: not looked at."}
        widgets = {
            "public_key": UnfoldAdminTextareaWidget(
                attrs={"rows": 5, "spellcheck": "false", "class": "brain-code"}
            ),
            "jwks_url": UnfoldAdminTextInputWidget(attrs={"placeholder": "https://…/.well-known/jwks.json"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "signing" in self.fields:
            self.fields["signing"].initial = bool(self.instance.signs)

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        secret, algorithm = values.get("new_secret"), values.get("algorithm", "")
        if secret and (weak := document.weakness(secret)):
            self.add_error("new_secret", f"This is {weak}.")
        if algorithm in tokens.HMAC_HASHES:
            self._check_symmetric(values, secret)
        elif algorithm:
            self._check_public(values, algorithm)
        if not self.errors:
            self.instance.signs = True if values.get("signing") else None
            if secret:
                changes.set_secret(self.instance, secret)
        return values

    def _check_symmetric(self, values: dict[str, Any], secret: str | None) -> None:
        if not secret and not self.instance.secret:
            self.add_error("new_secret", "This algorithm needs a secret.")
        for field in ("public_key", "jwks_url"):
            if values.get(field):
                self.add_error(field, f"Goes with no {values['algorithm']}.")

    def _check_public(self, values: dict[str, Any], algorithm: str) -> None:
        key, url = values.get("public_key", ""), values.get("jwks_url", "")
        if values.get("signing"):
            self.add_error("signing", "We sign with HS algorithms alone.")
        if bool(key) == bool(url) and not {"public_key", "jwks_url"} & set(self.errors):
            self.add_error("public_key", f"{algorithm} needs a public key or a JWKS URL, and not both.")
        elif key:
            try:
                tokens.Verifier([tokens.Issuer("form", algorithm, key.encode())])
            except ValueError as error:
                self.add_error("public_key", str(error))


@admin.register(JwtIssuer)
class JwtIssuerAdmin(ConfiguredAdmin):
    form = IssuerForm
    when_empty = "Tokens are taken of the issuers that are listed here."
    list_display = ("name", "algorithm", "keys", "iss", "aud", "signing", "enabled")
    list_filter = ("enabled", "algorithm")
    list_filter_submit = False
    search_fields = ("name", "issuer", "audience", "jwks_url")
    search_help_text = "Part of a name, an iss, an aud or a URL"
    fieldsets = (
        (None, {"fields": (("name", "enabled"),)}),
        ("Keys", {"fields": ("algorithm", "new_secret", "jwks_url", "public_key")}),
        ("What its tokens must say", {"fields": (
            ("issuer", "audience"), ("roles_claim", "scopes_claim"), "leeway_s",
        )}),
        ("Tokens that we sign", {"fields": (("signing", "expiry_s"),)}),
    )  # fmt: skip
    change_form_outer_before_template = "admin/gateway/issuer/key_set.html"

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Whoever only looks sees no field of the form's own: there is nothing in the secret's."""
        found = super().get_fieldsets(request, obj)
        if self.has_change_permission(request, obj):
            return found
        return [
            (title, {**options, "fields": [_to_look_at(field) for field in options["fields"] if field != "new_secret"]})
            for title, options in found
        ]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [] if self.has_change_permission(request, obj) else ["is_signing"]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if obj.signs:
            # The column is unique: the other one lets go of it first.
            for other in JwtIssuer.objects.filter(signs=True).exclude(pk=obj.pk):
                other.signs = None
                writing_of(request).save(other)
        super().save_model(request, obj, form, change)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> Any:
        if obj is not None and obj.jwks_url:
            context["key_set"] = _key_set(obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    @display(description="keys")
    def keys(self, issuer: JwtIssuer) -> str:
        if issuer.jwks_url:
            return cells.url(issuer.jwks_url)
        if issuer.public_key:
            return "a public key"
        return "a secret" if issuer.secret else "none"

    @display(description="iss", ordering="issuer")
    def iss(self, issuer: JwtIssuer) -> str:
        return cells.url(issuer.issuer) if issuer.issuer else "any"

    @display(description="aud", ordering="audience")
    def aud(self, issuer: JwtIssuer) -> str:
        return cells.url(issuer.audience) if issuer.audience else "any"

    @display(description="signs", ordering="signs")
    def signing(self, issuer: JwtIssuer) -> str:
        return "yes" if issuer.signs else cells.NONE

    @display(description="signs", boolean=True)
    def is_signing(self, issuer: JwtIssuer) -> bool:
        return bool(issuer.signs)


def _to_look_at(field: Any) -> Any:
    if isinstance(field, tuple):
        return tuple(_to_look_at(one) for one in field)
    return "is_signing" if field == "signing" else field


def _key_set(issuer: JwtIssuer) -> dict[str, Any]:
    found = live.key_set(issuer.jwks_url, issuer.algorithm)
    if found is None:
        return {"is_known": False}
    now = timezone.now()
    fetched = None if found.fetched_at is None else datetime.fromtimestamp(found.fetched_at, UTC)
    return {
        "is_known": True,
        "fetched": cells.ago(fetched) if fetched else "never",
        "next": figures.duration(max(0.0, found.next_at - now.timestamp())),
        "error": found.error,
        "kids": found.kids,
        "ignored": found.ignored,
    }
