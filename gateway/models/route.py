"""Routes: which requests go to which service, who may send them, and what is changed on the way."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from gateway import routing
from gateway.reading import LARGEST

from . import checks
from .plan import Plan
from .service import Service

HOST_HEADERS = ("target", "preserve")


class Route(models.Model):
    name = models.CharField(
        max_length=200,
        unique=True,
        validators=[checks.name],
        help_text="In metrics and logs; often its path.",
    )
    # --- which requests
    hosts = models.JSONField(
        default=list, blank=True, help_text="api.example.com, *.example.com. Empty: all."
    )
    path = models.CharField(max_length=200)
    path_kind = models.CharField(
        max_length=8,
        default="prefix",
        choices=[(kind, kind) for kind in routing.KINDS],
        help_text="prefix: this path and everything below it. regex: the whole path matches it.",
    )
    methods = models.JSONField(default=list, blank=True, help_text="Empty: all.")
    headers = models.JSONField(default=dict, blank=True, help_text="Headers that must have these values.")
    # --- who
    auth_required = models.BooleanField(default=True)
    roles = models.JSONField(
        default=list, blank=True, help_text="Any of these, or a higher one. Empty: any caller."
    )
    scopes = models.JSONField(default=list, blank=True, help_text="All of these. Empty: none is needed.")
    plan = models.ForeignKey(Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="routes")
    cost = models.PositiveIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(LARGEST)],
        help_text="Tokens that one request takes from each limit.",
    )
    # --- where to
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="routes")
    strip_prefix = models.BooleanField(
        default=False, help_text="The target sees what comes after the route's path."
    )
    host_header = models.CharField(
        max_length=8,
        default="target",
        choices=[(kind, kind) for kind in HOST_HEADERS],
        help_text="The Host that the target sees: its own, or the client's.",
    )
    hide_credentials = models.BooleanField(
        default=True, help_text="The target does not see the token or key that was checked here."
    )
    timeout_s = models.FloatField(
        "timeout",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.05), MaxValueValidator(3600)],
        help_text="Seconds that the target may be silent. Empty: the service's.",
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=Q(path__startswith="/"), name="gateway_route_path_absolute"),
            models.CheckConstraint(
                condition=Q(path_kind__in=routing.KINDS), name="gateway_route_path_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(host_header__in=HOST_HEADERS), name="gateway_route_host_header_known"
            ),
            models.CheckConstraint(
                condition=Q(timeout_s__isnull=True) | Q(timeout_s__gt=0),
                name="gateway_route_timeout_positive",
            ),
            models.CheckConstraint(condition=Q(cost__gte=1), name="gateway_route_cost_positive"),
            *(
                models.CheckConstraint(
                    condition=~Q(path=reserved) & ~Q(path__startswith=f"{reserved}/"),
                    name=f"gateway_route_not{reserved.replace('/', '_')}",
                )
                for reserved in routing.RESERVED
            ),
        )

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        checks.run({
            "hosts": (checks.hosts, self.hosts),
            "path": (lambda path: checks.path(path, self.path_kind), self.path),
            "methods": (checks.methods, self.methods),
            "headers": (checks.headers, self.headers),
            "roles": (checks.known_roles, self.roles),
            "scopes": (checks.scopes, self.scopes),
        })  # fmt: skip


class Transform(models.Model):
    """What is changed in the requests and responses of one route, or of all routes of one service. plugin: one of the
    setting PLUGINS."""

    name = models.CharField(max_length=100, unique=True, validators=[checks.name])
    route = models.ForeignKey(
        Route, null=True, blank=True, on_delete=models.CASCADE, related_name="transforms"
    )
    service = models.ForeignKey(
        Service, null=True, blank=True, on_delete=models.CASCADE, related_name="transforms"
    )
    position = models.PositiveIntegerField(
        default=0,
        validators=[MaxValueValidator(LARGEST)],
        help_text="The lowest comes first; a service's before a route's.",
    )
    request = models.JSONField(default=dict, blank=True)
    response = models.JSONField(default=dict, blank=True)
    plugin = models.CharField(max_length=200, blank=True, default="")
    settings = models.JSONField(default=dict, blank=True, help_text="Of the plugin.")
    on_failure = models.CharField(
        max_length=8, default="continue", choices=[("continue", "continue"), ("refuse", "refuse")],
        help_text="When the plugin fails: go on without it, or answer 502.",
    )  # fmt: skip
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("position", "name")
        constraints = (
            models.CheckConstraint(
                condition=Q(route__isnull=True, service__isnull=False)
                | Q(route__isnull=False, service__isnull=True),
                name="gateway_transform_of_a_route_or_a_service",
            ),
            models.CheckConstraint(
                condition=Q(on_failure__in=("continue", "refuse")), name="gateway_transform_on_failure_known"
            ),
        )

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if (self.route_id is None) == (self.service_id is None):
            raise ValidationError({"route": "Give a route or a service, not both."})
        route = self.route if self.route_id is not None else None
        checks.run({
            "request": (lambda spec: checks.edits_of("request", spec, route), self.request),
            "response": (lambda spec: checks.edits_of("response", spec, route), self.response),
            "settings": (checks.plain_json, self.settings),
        })  # fmt: skip
        # One whose plugin was taken out of the settings can still be turned off.
        if self.plugin and self.enabled:
            checks.plugin(self.plugin, self.settings)
