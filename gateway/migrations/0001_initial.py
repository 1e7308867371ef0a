import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Consumer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=150, unique=True)),
                ("roles", models.JSONField(blank=True, default=list)),
                ("enabled", models.BooleanField(default=True)),
            ],
            options={
                "ordering": ("name",),
            },
        ),
        migrations.CreateModel(
            name="Configuration",
            fields=[
                (
                    "id",
                    models.PositiveSmallIntegerField(
                        default=1, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("version", models.PositiveBigIntegerField(default=0)),
                (
                    "api_key_header",
                    models.CharField(
                        default="X-API-Key",
                        max_length=64,
                        validators=[
                            django.core.validators.RegexValidator("^[A-Za-z0-9-]+\\Z", "A header's name.")
                        ],
                    ),
                ),
                ("changed_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="gateway_configuration_is_one_row"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("prefix", models.CharField(blank=True, editable=False, max_length=16)),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "consumer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="keys",
                        to="gateway.consumer",
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
                "ordering": ("pk",),
            },
        ),
        migrations.CreateModel(
            name="JwtIssuer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        max_length=100,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[A-Za-z0-9][A-Za-z0-9._:\\[\\]-]*\\Z",
                                "Letters, digits, and . _ - after the first character.",
                            )
                        ],
                    ),
                ),
                (
                    "algorithm",
                    models.CharField(
                        choices=[
                            ("HS256", "HS256"),
                            ("HS384", "HS384"),
                            ("HS512", "HS512"),
                            ("RS256", "RS256"),
                            ("ES256", "ES256"),
                        ],
                        default="HS256",
                        max_length=5,
                    ),
                ),
                ("secret", models.TextField(blank=True, editable=False)),
                ("public_key", models.TextField(blank=True, help_text="PEM, for RS256 and ES256.")),
                (
                    "issuer",
                    models.CharField(
                        blank=True, help_text="Required `iss`. Empty: not looked at.", max_length=255
                    ),
                ),
                (
                    "audience",
                    models.CharField(
                        blank=True, help_text="Required `aud`. Empty: not looked at.", max_length=255
                    ),
                ),
                (
                    "expiry_s",
                    models.PositiveIntegerField(
                        default=3600,
                        help_text="Seconds, of the tokens that we sign.",
                        validators=[django.core.validators.MinValueValidator(1)],
                        verbose_name="lifetime",
                    ),
                ),
                (
                    "signs",
                    models.BooleanField(
                        blank=True,
                        default=None,
                        help_text="The token endpoint signs with it.",
                        null=True,
                        unique=True,
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
            ],
            options={
                "verbose_name": "token issuer",
                "ordering": ("name",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("algorithm__in", ("HS256", "HS384", "HS512", "RS256", "ES256"))),
                        name="gateway_issuer_algorithm_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("signs__isnull", True), ("signs", True), _connector="OR"),
                        name="gateway_issuer_signs_or_null",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("signs__isnull", True), ("algorithm__startswith", "HS"), _connector="OR"
                        ),
                        name="gateway_issuer_signs_with_secret",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Plan",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=200, unique=True)),
                (
                    "requests_per_minute",
                    models.PositiveIntegerField(
                        blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)]
                    ),
                ),
                (
                    "requests_per_hour",
                    models.PositiveIntegerField(
                        blank=True, null=True, validators=[django.core.validators.MinValueValidator(1)]
                    ),
                ),
                (
                    "burst_limit",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="At once, of the requests per minute.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "on_store_down",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "as the settings say"),
                            ("local", "local"),
                            ("allow", "allow"),
                            ("deny", "deny"),
                        ],
                        default="",
                        help_text="When Redis does not answer.",
                        max_length=5,
                    ),
                ),
            ],
            options={
                "ordering": ("name",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("requests_per_minute__isnull", True),
                            ("requests_per_minute__gte", 1),
                            _connector="OR",
                        ),
                        name="gateway_plan_requests_per_minute_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("requests_per_hour__isnull", True),
                            ("requests_per_hour__gte", 1),
                            _connector="OR",
                        ),
                        name="gateway_plan_requests_per_hour_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("burst_limit__isnull", True), ("burst_limit__gte", 1), _connector="OR"
                        ),
                        name="gateway_plan_burst_limit_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("on_store_down__in", ("", "local", "allow", "deny"))),
                        name="gateway_plan_policy_known",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="consumer",
            name="plan",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="consumers",
                to="gateway.plan",
            ),
        ),
        migrations.CreateModel(
            name="Upstream",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        max_length=100,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[A-Za-z0-9][A-Za-z0-9._:\\[\\]-]*\\Z",
                                "Letters, digits, and . _ - after the first character.",
                            )
                        ],
                    ),
                ),
                (
                    "strategy",
                    models.CharField(
                        choices=[
                            ("round_robin", "round_robin"),
                            ("weighted", "weighted"),
                            ("least_connections", "least_connections"),
                        ],
                        default="round_robin",
                        max_length=20,
                    ),
                ),
                (
                    "breaker_failures",
                    models.PositiveIntegerField(
                        default=5,
                        help_text="Failures in a row that open a target's breaker.",
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "breaker_cooldown_s",
                    models.FloatField(
                        default=10.0,
                        help_text="Seconds before a probe is let through.",
                        validators=[django.core.validators.MinValueValidator(0.1)],
                    ),
                ),
            ],
            options={
                "ordering": ("name",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("strategy__in", ("round_robin", "weighted", "least_connections"))
                        ),
                        name="gateway_upstream_strategy_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("breaker_failures__gte", 1)),
                        name="gateway_upstream_failures_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("breaker_cooldown_s__gt", 0)),
                        name="gateway_upstream_cooldown_positive",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Target",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("url", models.CharField(help_text="http://host:port", max_length=255)),
                (
                    "weight",
                    models.PositiveIntegerField(
                        default=1, validators=[django.core.validators.MaxValueValidator(1000)]
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                (
                    "upstream",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="targets",
                        to="gateway.upstream",
                    ),
                ),
            ],
            options={
                "ordering": ("pk",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("upstream", "url"), name="gateway_target_once_per_upstream"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("url__startswith", "http://")), name="gateway_target_is_http"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Route",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "path",
                    models.CharField(
                        help_text="It serves this path and everything below it.", max_length=200, unique=True
                    ),
                ),
                ("methods", models.JSONField(blank=True, default=list, help_text="Empty: all.")),
                ("auth_required", models.BooleanField(default=True)),
                (
                    "roles",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="Any of these, or a higher one. Empty: any caller.",
                    ),
                ),
                (
                    "timeout_s",
                    models.FloatField(
                        default=30.0,
                        help_text="Seconds that the upstream may be silent.",
                        validators=[
                            django.core.validators.MinValueValidator(0.05),
                            django.core.validators.MaxValueValidator(3600),
                        ],
                        verbose_name="timeout",
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                (
                    "plan",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="routes",
                        to="gateway.plan",
                    ),
                ),
                (
                    "upstream",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="routes",
                        to="gateway.upstream",
                    ),
                ),
            ],
            options={
                "ordering": ("path",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("path__startswith", "/")), name="gateway_route_path_absolute"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("timeout_s__gt", 0)), name="gateway_route_timeout_positive"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("path", "/admin"), _negated=True),
                            models.Q(("path__startswith", "/admin/"), _negated=True),
                        ),
                        name="gateway_route_not_admin",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("path", "/gateway"), _negated=True),
                            models.Q(("path__startswith", "/gateway/"), _negated=True),
                        ),
                        name="gateway_route_not_gateway",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("path", "/api/v1/gateway"), _negated=True),
                            models.Q(("path__startswith", "/api/v1/gateway/"), _negated=True),
                        ),
                        name="gateway_route_not_api_v1_gateway",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("path", "/api/v1/queue"), _negated=True),
                            models.Q(("path__startswith", "/api/v1/queue/"), _negated=True),
                        ),
                        name="gateway_route_not_api_v1_queue",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("path", "/api/v1/cache"), _negated=True),
                            models.Q(("path__startswith", "/api/v1/cache/"), _negated=True),
                        ),
                        name="gateway_route_not_api_v1_cache",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("path", "/api/v1/database"), _negated=True),
                            models.Q(("path__startswith", "/api/v1/database/"), _negated=True),
                        ),
                        name="gateway_route_not_api_v1_database",
                    ),
                ],
            },
        ),
    ]
