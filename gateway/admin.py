"""The gateway's admin pages. Every write goes through changes.py: validated, audited, a new version."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models import Count, ProtectedError, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from unfold.admin import TabularInline
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from foundation import audit, roles
from foundation.admin import RoleModelAdmin, asking, done

from . import changes, document, routing, tokens
from .models import ApiKey, Consumer, JwtIssuer, Plan, Route, Service, Target


class WordsField(forms.CharField):
    """A list of words, written with commas or spaces between them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextInputWidget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return str(value or "").replace(",", " ").split()


class AuditedAdmin(RoleModelAdmin):
    """What the pages below share: how a row is written and removed."""

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        changes.save(obj, **audit.by(request, "admin"))

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        for row in formset.save(commit=False):
            changes.save(row, **audit.by(request, "admin"))
        for row in formset.deleted_objects:
            changes.delete(row, **audit.by(request, "admin"))

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        changes.delete(obj, **audit.by(request, "admin"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            try:
                changes.delete(row, **audit.by(request, "admin"))
            except ProtectedError:
                messages.error(request, f"{row} is needed by others and was kept.")


class RouteForm(forms.ModelForm):
    methods = WordsField(help_text=f"Of {', '.join(sorted(routing.ANY_METHOD))}. Empty: all.")
    roles = WordsField(
        help_text=f"Any of {', '.join(roles.RANKED)}; a higher one will do. Empty: any caller."
    )

    class Meta:
        model = Route
        fields = (
            "name",
            "path",
            "methods",
            "service",
            "plan",
            "auth_required",
            "roles",
            "timeout_s",
            "enabled",
        )
        labels = {"auth_required": "Authentication required", "timeout_s": "Timeout (s)"}
        help_texts = {"plan": "Its limits count per caller. Empty: none."}

    def clean_methods(self) -> list[str]:
        return [method.upper() for method in self.cleaned_data["methods"]]


@admin.register(Route)
class RouteAdmin(AuditedAdmin):
    form = RouteForm
    list_display = ("path", "methods_shown", "service", "plan", "authenticated", "timeout", "enabled")
    list_filter = ("enabled", "auth_required", "service")
    list_select_related = ("service", "plan")
    search_fields = ("path",)
    search_help_text = "Part of a path"

    @admin.display(description="methods")
    def methods_shown(self, route: Route) -> str:
        return " ".join(route.methods) or "all"

    @admin.display(description="authenticated", boolean=True, ordering="auth_required")
    def authenticated(self, route: Route) -> bool:
        return route.auth_required

    @admin.display(description="timeout (s)", ordering="timeout_s")
    def timeout(self, route: Route) -> str:
        return f"{route.timeout_s:g}"


class _RoleInline(TabularInline):
    """Rows inside a page follow the page: operators change them, and add and remove them too."""

    extra = 0

    def _may(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.OPERATOR)

    has_add_permission = has_change_permission = has_delete_permission = _may

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.VIEWER)


class TargetForm(forms.ModelForm):
    class Meta:
        model = Target
        fields = ("url", "weight", "state")
        labels = {"url": "URL"}


class TargetInline(_RoleInline):
    model = Target
    form = TargetForm
    hide_title = True  # the URL, which stands in the row's first field


class ServiceForm(forms.ModelForm):
    class Meta:
        model = Service
        fields = ("name", "strategy")


@admin.register(Service)
class ServiceAdmin(AuditedAdmin):
    form = ServiceForm
    list_display = ("name", "strategy", "targets_shown")
    search_fields = ("name", "targets__url")
    search_help_text = "Part of a name or of a target's URL"
    inlines = (TargetInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Service]:
        return super().get_queryset(request).prefetch_related("targets")

    @admin.display(description="targets")
    def targets_shown(self, service: Service) -> str:
        return ", ".join(target.url for target in service.targets.all()) or "-"


class PlanForm(forms.ModelForm):
    class Meta:
        model = Plan
        fields = ("name", "requests_per_minute", "requests_per_hour", "burst_limit", "on_store_down")
        labels = {"on_store_down": "When Redis is down"}
        help_texts = {"on_store_down": "local: each edge process counts by itself."}


@admin.register(Plan)
class PlanAdmin(AuditedAdmin):
    form = PlanForm
    list_display = ("name", "requests_per_minute", "requests_per_hour", "burst_limit", "store_down")
    search_fields = ("name",)
    search_help_text = "Part of a name"
    empty_value_display = "no limit"

    @admin.display(description="when Redis is down", ordering="on_store_down")
    def store_down(self, plan: Any) -> str:
        return str(plan.get_on_store_down_display())


class ConsumerForm(forms.ModelForm):
    roles = WordsField(help_text=f"Of {', '.join(roles.RANKED)}.")

    class Meta:
        model = Consumer
        fields = ("name", "roles", "plan", "enabled")
        help_texts = {"plan": "Its limits count over all routes. Empty: those of the routes alone."}


class ApiKeyInline(TabularInline):
    model = ApiKey
    verbose_name_plural = "API keys"
    fields = readonly_fields = ("__str__", "created_at", "expires_at", "revoked_at", "last_used_at")
    extra = 0
    can_delete = False
    hide_title = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allows(request.user, roles.VIEWER)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Consumer)
class ConsumerAdmin(AuditedAdmin):
    form = ConsumerForm
    list_display = ("name", "roles_shown", "plan", "living_keys", "enabled")
    list_select_related = ("plan",)
    search_fields = ("name",)
    search_help_text = "Part of a name"
    inlines = (ApiKeyInline,)
    actions_detail = ("issue_key", "revoke_keys")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Consumer]:
        living = Count("keys", filter=models.Q(keys__revoked_at=None))
        return super().get_queryset(request).annotate(living_keys_count=living)

    @admin.display(description="roles")
    def roles_shown(self, consumer: Consumer) -> str:
        return ", ".join(consumer.roles) or "-"

    @admin.display(description="keys")
    def living_keys(self, consumer: Any) -> int:
        return int(consumer.living_keys_count)

    @action(
        description="New API key",
        permissions=["operate"],
        icon="add",
        dialog=asking(
            "Make a new API key?", "It is shown once, on the next page. The other keys stay valid.", "Make it"
        ),
    )
    def issue_key(self, request: HttpRequest, form: forms.Form, object_id: int) -> HttpResponse:
        consumer = get_object_or_404(Consumer, pk=object_id)
        _, text = changes.issue_key(consumer, **audit.by(request, "admin"))
        messages.warning(request, f"The new key, shown this once: {text}")
        return done(request, reverse("admin:gateway_consumer_change", args=[object_id]))

    @action(
        description="Revoke all keys",
        permissions=["operate"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Revoke all keys of this consumer?",
            "Its programs are turned away from now on, until they get a new key.",
            "Revoke them",
        ),
    )
    def revoke_keys(self, request: HttpRequest, form: forms.Form, object_id: int) -> HttpResponse:
        consumer = get_object_or_404(Consumer, pk=object_id)
        living = list(consumer.keys.filter(revoked_at=None))
        for key in living:
            changes.revoke_key(key, **audit.by(request, "admin"))
        messages.success(request, f"{len(living)} key{'' if len(living) == 1 else 's'} revoked.")
        return done(request, reverse("admin:gateway_consumer_change", args=[object_id]))


class IssuerForm(forms.ModelForm):
    new_secret = forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="For HS algorithms. Kept encrypted and never shown; empty leaves it as it is.",
    )
    signs = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="The token endpoint signs with it; one issuer does.",
    )

    class Meta:
        model = JwtIssuer
        fields = ("name", "algorithm", "public_key", "issuer", "audience", "expiry_s", "signs", "enabled")
        labels = {"expiry_s": "Lifetime (s)"}
        help_texts = {
            "issuer": "The iss that a token must carry. Empty: any.",
            "audience": "The aud that a token must carry. Empty: any.",
            "expiry_s": "Of the tokens that we sign.",
        }

    def clean_signs(self) -> bool | None:
        return True if self.cleaned_data["signs"] else None

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        secret, algorithm = values.get("new_secret"), values.get("algorithm", "")
        symmetric = algorithm in tokens.HMAC_HASHES
        if symmetric and not secret and not self.instance.secret:
            self.add_error("new_secret", "This algorithm needs a secret.")
        if secret and (weak := document.weakness(secret)):
            self.add_error("new_secret", f"This is {weak}.")
        if not symmetric:
            try:
                tokens.Verifier([tokens.Issuer("form", algorithm, values.get("public_key", "").encode())])
            except ValueError as error:
                self.add_error("public_key", str(error))
        if secret and not self.errors:
            changes.set_secret(self.instance, secret)
        return values


@admin.register(JwtIssuer)
class JwtIssuerAdmin(AuditedAdmin):
    form = IssuerForm
    list_display = ("name", "algorithm", "issuer", "audience", "lifetime", "signing", "enabled")
    search_fields = ("name", "issuer")
    search_help_text = "Part of a name or of an issuer"
    fields = ("name", "algorithm", "new_secret", *IssuerForm.Meta.fields[2:])

    @admin.display(description="lifetime (s)", ordering="expiry_s")
    def lifetime(self, issuer: JwtIssuer) -> int:
        return issuer.expiry_s

    @admin.display(description="signs", boolean=True)
    def signing(self, issuer: JwtIssuer) -> bool:
        return bool(issuer.signs)
