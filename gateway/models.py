"""What the gateway is told: routes, upstreams with their targets, plans, consumers with their keys, token
issuers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from foundation import roles, url_guard

from . import routing, secret_box, tokens
from .balancer import STRATEGIES

_name = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._:\[\]-]*\Z", "Letters, digits, and . _ - after the first character."
)
_STORE_POLICIES = (("", "as the settings say"), ("local", "local"), ("allow", "allow"), ("deny", "deny"))


def _words(values: Any, known: tuple[str, ...] | frozenset[str], what: str) -> None:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValidationError(f"A list of {what}s, such as {sorted(known)[:2]}.")
    unknown = [value for value in values if value not in known]
    if unknown:
        raise ValidationError(f"{unknown[0]!r} is not a {what}: use {', '.join(sorted(known))}.")


def check_methods(values: Any) -> None:
    _words(values, routing.ANY_METHOD, "method")


def check_roles(values: Any) -> None:
    _words(values, roles.RANKED, "role")


def check_path(value: str) -> None:
    try:
        normal = routing.check_template(value)
    except ValueError as error:
        raise ValidationError(str(error)) from error
    if normal != value:
        raise ValidationError(f"Write it without the slash at the end: {normal}")


def check_target(value: str) -> None:
    """An origin, `http://host:port`, that the URL guard lets us connect to."""
    if not value.startswith("http://") or "/" in value.removeprefix("http://") or set("?#") & set(value):
        raise ValidationError(
            "A target is http://host:port, without a path: the route's own path is passed on."
        )
    try:
        url_guard.check(value, resolve=lambda host, port: _resolved(host, port))
    except url_guard.Refused as error:
        raise ValidationError(str(error)) from error


def _clean(checks: dict[str, tuple[Callable[[Any], None], Any]]) -> None:
    """Run each field's check. Not as `validators`: a migration would have to import ours."""
    wrong = {}
    for field, (check, value) in checks.items():
        try:
            check(value)
        except ValidationError as error:
            wrong[field] = error
    if wrong:
        raise ValidationError(wrong)


def _resolved(host: str, port: int) -> list[str]:
    # A name that does not resolve today is a target that is down, not a wrong one; the address used is
    # checked again.
    try:
        return url_guard.resolve_by_system(host, port)
    except url_guard.Refused:
        return ["1.1.1.1"]


class Configuration(models.Model):
    """One row: the version that every change counts up, and what holds for the whole gateway."""

    # Not an automatic one: MariaDB takes no CHECK over a column that it numbers itself.
    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    version = models.PositiveBigIntegerField(default=0)
    api_key_header = models.CharField(
        max_length=64,
        default="X-API-Key",
        validators=[RegexValidator(r"^[A-Za-z0-9-]+\Z", "A header's name.")],
    )
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(id=1), name="gateway_configuration_is_one_row"),)

    def __str__(self) -> str:
        return f"version {self.version}"


class Upstream(models.Model):
    """Processes that do the same, and how requests are spread over them."""

    name = models.CharField(max_length=100, unique=True, validators=[_name])
    strategy = models.CharField(max_length=20, default="round_robin", choices=[(s, s) for s in STRATEGIES])
    breaker_failures = models.PositiveIntegerField(
        default=5,
        validators=[MinValueValidator(1)],
        help_text="Failures in a row that open a target's breaker.",
    )
    breaker_cooldown_s = models.FloatField(
        default=10.0, validators=[MinValueValidator(0.1)], help_text="Seconds before a probe is let through."
    )

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(
                condition=Q(strategy__in=STRATEGIES), name="gateway_upstream_strategy_known"
            ),
            models.CheckConstraint(
                condition=Q(breaker_failures__gte=1), name="gateway_upstream_failures_positive"
            ),
            models.CheckConstraint(
                condition=Q(breaker_cooldown_s__gt=0), name="gateway_upstream_cooldown_positive"
            ),
        )

    def __str__(self) -> str:
        return self.name


class Target(models.Model):
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="targets")
    url = models.CharField(max_length=255, help_text="http://host:port")
    weight = models.PositiveIntegerField(default=1, validators=[MaxValueValidator(1000)])
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=("upstream", "url"), name="gateway_target_once_per_upstream"),
            models.CheckConstraint(condition=Q(url__startswith="http://"), name="gateway_target_is_http"),
        )

    def __str__(self) -> str:
        return self.url

    def clean(self) -> None:
        _clean({"url": (check_target, self.url)})


class Plan(models.Model):
    """Limits. On a route they count per caller and route, on a consumer over all routes."""

    name = models.CharField(max_length=200, unique=True)
    requests_per_minute = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)]
    )
    requests_per_hour = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    burst_limit = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="At once, of the requests per minute.",
    )
    on_store_down = models.CharField(
        max_length=5, blank=True, default="", choices=_STORE_POLICIES, help_text="When Redis does not answer."
    )

    class Meta:
        ordering = ("name",)
        constraints = (
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{field}__isnull": True}) | Q(**{f"{field}__gte": 1}),
                    name=f"gateway_plan_{field}_positive",
                )
                for field in ("requests_per_minute", "requests_per_hour", "burst_limit")
            ),
            models.CheckConstraint(
                condition=Q(on_store_down__in=("", "local", "allow", "deny")),
                name="gateway_plan_policy_known",
            ),
        )

    def __str__(self) -> str:
        return self.name


class Route(models.Model):
    path = models.CharField(
        max_length=200, unique=True, help_text="It serves this path and everything below it."
    )
    methods = models.JSONField(default=list, blank=True, help_text="Empty: all.")
    upstream = models.ForeignKey(Upstream, on_delete=models.PROTECT, related_name="routes")
    plan = models.ForeignKey(Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="routes")
    auth_required = models.BooleanField(default=True)
    roles = models.JSONField(
        default=list, blank=True, help_text="Any of these, or a higher one. Empty: any caller."
    )
    timeout_s = models.FloatField(
        "timeout",
        default=30.0,
        validators=[MinValueValidator(0.05), MaxValueValidator(3600)],
        help_text="Seconds that the upstream may be silent.",
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("path",)
        constraints = (
            models.CheckConstraint(condition=Q(path__startswith="/"), name="gateway_route_path_absolute"),
            models.CheckConstraint(condition=Q(timeout_s__gt=0), name="gateway_route_timeout_positive"),
            *(
                models.CheckConstraint(
                    condition=~Q(path=reserved) & ~Q(path__startswith=f"{reserved}/"),
                    name=f"gateway_route_not{reserved.replace('/', '_')}",
                )
                for reserved in routing.RESERVED
            ),
        )

    def __str__(self) -> str:
        return self.path

    def clean(self) -> None:
        _clean(
            {
                "path": (check_path, self.path),
                "methods": (check_methods, self.methods),
                "roles": (check_roles, self.roles),
            }
        )


class Consumer(models.Model):
    """A program that calls with an API key."""

    name = models.CharField(max_length=150, unique=True)
    roles = models.JSONField(default=list, blank=True)
    plan = models.ForeignKey(Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="consumers")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        _clean({"roles": (check_roles, self.roles)})


class ApiKey(models.Model):
    """digest: SHA-256 of the key, in hex; the key itself was shown once. prefix: empty for an imported
    key."""

    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="keys")
    prefix = models.CharField(max_length=16, blank=True, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("pk",)
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"brn_{self.prefix}_…" if self.prefix else f"imported …{self.digest[-6:]}"


class JwtIssuer(models.Model):
    """Somebody whose tokens are accepted. secret: encrypted (secret_box.py), for HS algorithms; else the
    public key."""

    name = models.CharField(max_length=100, unique=True, validators=[_name])
    algorithm = models.CharField(max_length=5, default="HS256", choices=[(a, a) for a in tokens.ALGORITHMS])
    secret = models.TextField(blank=True, editable=False)
    public_key = models.TextField(blank=True, help_text="PEM, for RS256 and ES256.")
    issuer = models.CharField(max_length=255, blank=True, help_text="Required `iss`. Empty: not looked at.")
    audience = models.CharField(max_length=255, blank=True, help_text="Required `aud`. Empty: not looked at.")
    expiry_s = models.PositiveIntegerField(
        "lifetime",
        default=3600,
        validators=[MinValueValidator(1)],
        help_text="Seconds, of the tokens that we sign.",
    )
    # True for at most one row and NULL for all others: every database lets a unique column hold many NULLs.
    signs = models.BooleanField(
        null=True, blank=True, default=None, unique=True, help_text="The token endpoint signs with it."
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("name",)
        verbose_name = "token issuer"
        constraints = (
            models.CheckConstraint(
                condition=Q(algorithm__in=tokens.ALGORITHMS), name="gateway_issuer_algorithm_known"
            ),
            models.CheckConstraint(
                condition=Q(signs__isnull=True) | Q(signs=True), name="gateway_issuer_signs_or_null"
            ),
            models.CheckConstraint(
                condition=Q(signs__isnull=True) | Q(algorithm__startswith="HS"),
                name="gateway_issuer_signs_with_secret",
            ),
        )

    def __str__(self) -> str:
        return self.name

    def key(self) -> bytes:
        """What tokens are checked with. Raises secret_box.Sealed when SECRET_KEY is no longer the one it was
        sealed by."""
        if self.algorithm in tokens.HMAC_HASHES:
            return secret_box.open_(self.secret).encode()
        return self.public_key.encode()
