import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    """The whole configuration: conditions of routes, policies of services, transforms, revisions, revoked tokens."""

    dependencies = [
        ("gateway", "0002_services"),
    ]

    operations = [
        migrations.CreateModel(
            name="Revision",
            fields=[
                ("version", models.PositiveBigIntegerField(primary_key=True, serialize=False)),
                ("made_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("actor", models.CharField(max_length=150)),
                ("source", models.CharField(max_length=20)),
                ("changes", models.JSONField(default=list)),
            ],
            options={
                "ordering": ("-version",),
            },
        ),
        migrations.CreateModel(
            name="RevokedToken",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("issuer", models.CharField(max_length=100)),
                ("jti", models.CharField(blank=True, max_length=255, verbose_name="token id")),
                ("digest", models.CharField(blank=True, db_index=True, max_length=64)),
                ("expires_at", models.DateTimeField(db_index=True)),
                ("revoked_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ("-pk",),
                "indexes": [models.Index(fields=["issuer", "jti"], name="gateway_revoked_jti")],
            },
        ),
        migrations.CreateModel(
            name="Transform",
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
                                "^[A-Za-z0-9/{][A-Za-z0-9/{}._:*\\[\\]~-]*\\Z",
                                "Letters, digits, and . _ - : / after the first character.",
                            )
                        ],
                    ),
                ),
                (
                    "position",
                    models.PositiveIntegerField(
                        default=0, help_text="The lowest comes first; a service's before a route's."
                    ),
                ),
                ("request", models.JSONField(blank=True, default=dict)),
                ("response", models.JSONField(blank=True, default=dict)),
                ("plugin", models.CharField(blank=True, default="", max_length=200)),
                ("settings", models.JSONField(blank=True, default=dict, help_text="Of the plugin.")),
                (
                    "on_failure",
                    models.CharField(
                        choices=[("continue", "continue"), ("refuse", "refuse")],
                        default="continue",
                        help_text="When the plugin fails: go on without it, or answer 502.",
                        max_length=8,
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
            ],
            options={
                "ordering": ("position", "name"),
            },
        ),
        migrations.AlterModelOptions(
            name="route",
            options={"ordering": ("name",)},
        ),
        migrations.RemoveConstraint(
            model_name="jwtissuer",
            name="gateway_issuer_algorithm_known",
        ),
        migrations.RemoveConstraint(
            model_name="route",
            name="gateway_route_timeout_positive",
        ),
        migrations.RemoveConstraint(
            model_name="target",
            name="gateway_target_is_http",
        ),
        migrations.RemoveField(
            model_name="service",
            name="breaker_cooldown_s",
        ),
        migrations.RemoveField(
            model_name="service",
            name="breaker_failures",
        ),
        migrations.AddField(
            model_name="apikey",
            name="scopes",
            field=models.JSONField(
                blank=True,
                default=None,
                help_text="Of the consumer's scopes. Nothing: all of them.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="consumer",
            name="scopes",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name="jwtissuer",
            name="jwks_url",
            field=models.CharField(
                blank=True,
                help_text="Where its key set is published.",
                max_length=500,
                verbose_name="JWKS URL",
            ),
        ),
        migrations.AddField(
            model_name="jwtissuer",
            name="leeway_s",
            field=models.FloatField(
                blank=True,
                help_text="Seconds between its clock and ours. Empty: as the settings say.",
                null=True,
                verbose_name="leeway",
            ),
        ),
        migrations.AddField(
            model_name="jwtissuer",
            name="roles_claim",
            field=models.CharField(default="roles", max_length=100),
        ),
        migrations.AddField(
            model_name="jwtissuer",
            name="scopes_claim",
            field=models.CharField(default="scope", max_length=100),
        ),
        migrations.AddField(
            model_name="plan",
            name="counted_by",
            field=models.CharField(
                choices=[("caller", "caller"), ("key", "key"), ("ip", "ip")],
                default="caller",
                help_text="caller: the consumer, or the address of one without credentials. key: each API key for itself.",
                max_length=6,
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="exact",
            field=models.BooleanField(
                default=False, help_text="Ask Redis for every request instead of spending tokens taken ahead."
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="cost",
            field=models.PositiveIntegerField(
                default=1,
                help_text="Tokens that one request takes from each limit.",
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="created_at",
            field=models.DateTimeField(default=django.utils.timezone.now, editable=False),
        ),
        migrations.AddField(
            model_name="route",
            name="headers",
            field=models.JSONField(
                blank=True, default=dict, help_text="Headers that must have these values."
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="hide_credentials",
            field=models.BooleanField(
                default=True, help_text="The target does not see the token or key that was checked here."
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="host_header",
            field=models.CharField(
                choices=[("target", "target"), ("preserve", "preserve")],
                default="target",
                help_text="The Host that the target sees: its own, or the client's.",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="hosts",
            field=models.JSONField(
                blank=True, default=list, help_text="api.example.com, *.example.com. Empty: all."
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="name",
            field=models.CharField(
                default="",
                help_text="In metrics and logs; often its path.",
                max_length=200,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[A-Za-z0-9/{][A-Za-z0-9/{}._:*\\[\\]~-]*\\Z",
                        "Letters, digits, and . _ - : / after the first character.",
                    )
                ],
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="path_kind",
            field=models.CharField(
                choices=[
                    ("prefix", "prefix"),
                    ("exact", "exact"),
                    ("template", "template"),
                    ("regex", "regex"),
                ],
                default="prefix",
                help_text="prefix: this path and everything below it. regex: the whole path matches it.",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="scopes",
            field=models.JSONField(
                blank=True, default=list, help_text="All of these. Empty: none is needed."
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="strip_prefix",
            field=models.BooleanField(
                default=False, help_text="The target sees what comes after the route's path."
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_failure_ratio",
            field=models.FloatField(
                default=0.5,
                help_text="Of the requests in the window; 0: never opens for failures.",
                validators=[
                    django.core.validators.MinValueValidator(0.0),
                    django.core.validators.MaxValueValidator(1.0),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_open_max_s",
            field=models.FloatField(
                default=60.0,
                help_text="The longest such time.",
                validators=[
                    django.core.validators.MinValueValidator(0.1),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_open_s",
            field=models.FloatField(
                default=5.0,
                help_text="Seconds until the first probe; doubled each time, with jitter.",
                validators=[
                    django.core.validators.MinValueValidator(0.1),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_probes",
            field=models.PositiveIntegerField(
                default=3,
                help_text="Requests at once while it is half open, and successes that close it.",
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_slow_ratio",
            field=models.FloatField(
                default=0.8,
                help_text="Of the requests in the window that may be slow.",
                validators=[
                    django.core.validators.MinValueValidator(0.0),
                    django.core.validators.MaxValueValidator(1.0),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_slow_s",
            field=models.FloatField(
                blank=True,
                help_text="Slower is slow. Empty: nothing is.",
                null=True,
                validators=[django.core.validators.MinValueValidator(0.001)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_volume",
            field=models.PositiveIntegerField(
                default=20,
                help_text="Requests in the window before it is judged.",
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="breaker_window_s",
            field=models.FloatField(
                default=10.0,
                help_text="Seconds that are looked back on.",
                validators=[
                    django.core.validators.MinValueValidator(1.0),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="connect_timeout_s",
            field=models.FloatField(
                default=2.0,
                help_text="Seconds to dial a target.",
                validators=[
                    django.core.validators.MinValueValidator(0.01),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="eject_after",
            field=models.PositiveIntegerField(
                default=5,
                help_text="Failed requests in a row that take a target out; 0: never.",
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="eject_most_percent",
            field=models.PositiveIntegerField(
                default=50,
                help_text="Of the targets; one always stays.",
                validators=[django.core.validators.MaxValueValidator(100)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="eject_s",
            field=models.FloatField(
                default=30.0,
                help_text="Seconds, times how often it was taken out before.",
                validators=[
                    django.core.validators.MinValueValidator(0.1),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="fallback_body",
            field=models.TextField(blank=True, default=""),
        ),
        migrations.AddField(
            model_name="service",
            name="fallback_status",
            field=models.PositiveSmallIntegerField(
                blank=True,
                help_text="Of a static answer when no target is left. Empty: 503.",
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(200),
                    django.core.validators.MaxValueValidator(599),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="fallback_type",
            field=models.CharField(blank=True, default="application/json", max_length=100),
        ),
        migrations.AddField(
            model_name="service",
            name="hash_on",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Of consistent_hash: ip, header:NAME or cookie:NAME.",
                max_length=100,
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="health_enabled",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="service",
            name="health_interval_s",
            field=models.FloatField(
                default=5.0,
                help_text="Seconds between two probes of a target.",
                validators=[
                    django.core.validators.MinValueValidator(0.01),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="health_path",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Asked by GET. Empty: a connection is enough.",
                max_length=200,
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="health_statuses",
            field=models.CharField(default="200-399", max_length=100),
        ),
        migrations.AddField(
            model_name="service",
            name="health_timeout_s",
            field=models.FloatField(
                default=2.0,
                help_text="Seconds for one probe.",
                validators=[
                    django.core.validators.MinValueValidator(0.01),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="healthy_after",
            field=models.PositiveIntegerField(
                default=2,
                help_text="Good probes in a row.",
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="idle_timeout_s",
            field=models.FloatField(
                default=30.0,
                help_text="Seconds between two pieces of a body.",
                validators=[
                    django.core.validators.MinValueValidator(0.01),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="response_timeout_s",
            field=models.FloatField(
                default=30.0,
                help_text="Seconds until the head of its response is there.",
                validators=[
                    django.core.validators.MinValueValidator(0.01),
                    django.core.validators.MaxValueValidator(86400),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="retries",
            field=models.PositiveIntegerField(
                default=2,
                help_text="Further tries of one request, on other targets.",
                validators=[django.core.validators.MaxValueValidator(10)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="retry_budget_min",
            field=models.PositiveIntegerField(
                default=3,
                help_text="Retries that are always allowed at once.",
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="retry_budget_ratio",
            field=models.FloatField(
                default=0.2,
                help_text="Of the requests under way that may be retries.",
                validators=[
                    django.core.validators.MinValueValidator(0.0),
                    django.core.validators.MaxValueValidator(1.0),
                ],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="slow_start_s",
            field=models.FloatField(
                default=0.0,
                help_text="Seconds until a target that came back takes its whole share.",
                validators=[django.core.validators.MinValueValidator(0.0)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="stale_s",
            field=models.FloatField(
                default=0.0,
                help_text="Seconds that a good answer to GET may be given again when no target is left. 0: never.",
                validators=[django.core.validators.MinValueValidator(0.0)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="tls_ca",
            field=models.TextField(
                blank=True,
                default="",
                help_text="PEM of the authorities to trust. Empty: the system's.",
                verbose_name="TLS: CA",
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="tls_server_name",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Empty: the target's host.",
                max_length=255,
                verbose_name="TLS: server name",
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="total_timeout_s",
            field=models.FloatField(
                blank=True,
                help_text="Seconds for a request with all its tries. Empty: no limit.",
                null=True,
                validators=[django.core.validators.MinValueValidator(0.05)],
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="unhealthy_after",
            field=models.PositiveIntegerField(
                default=3,
                help_text="Bad probes in a row.",
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="target",
            name="state",
            field=models.CharField(
                choices=[("active", "active"), ("draining", "draining"), ("off", "off")],
                default="active",
                help_text="draining: no new requests but those under way end; off: as if it were not there.",
                max_length=8,
            ),
        ),
        migrations.AlterField(
            model_name="jwtissuer",
            name="algorithm",
            field=models.CharField(
                choices=[
                    ("HS256", "HS256"),
                    ("HS384", "HS384"),
                    ("HS512", "HS512"),
                    ("RS256", "RS256"),
                    ("RS384", "RS384"),
                    ("RS512", "RS512"),
                    ("PS256", "PS256"),
                    ("PS384", "PS384"),
                    ("PS512", "PS512"),
                    ("ES256", "ES256"),
                    ("ES384", "ES384"),
                    ("ES512", "ES512"),
                    ("EdDSA", "EdDSA"),
                ],
                default="HS256",
                max_length=5,
            ),
        ),
        migrations.AlterField(
            model_name="jwtissuer",
            name="name",
            field=models.CharField(
                max_length=100,
                unique=True,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[A-Za-z0-9/{][A-Za-z0-9/{}._:*\\[\\]~-]*\\Z",
                        "Letters, digits, and . _ - : / after the first character.",
                    )
                ],
            ),
        ),
        migrations.AlterField(
            model_name="jwtissuer",
            name="public_key",
            field=models.TextField(blank=True, help_text="PEM. Empty for HS algorithms and with a JWKS URL."),
        ),
        migrations.AlterField(
            model_name="route",
            name="path",
            field=models.CharField(max_length=200),
        ),
        migrations.AlterField(
            model_name="route",
            name="timeout_s",
            field=models.FloatField(
                blank=True,
                help_text="Seconds that the target may be silent. Empty: the service's.",
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(0.05),
                    django.core.validators.MaxValueValidator(3600),
                ],
                verbose_name="timeout",
            ),
        ),
        migrations.AlterField(
            model_name="service",
            name="name",
            field=models.CharField(
                max_length=100,
                unique=True,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[A-Za-z0-9/{][A-Za-z0-9/{}._:*\\[\\]~-]*\\Z",
                        "Letters, digits, and . _ - : / after the first character.",
                    )
                ],
            ),
        ),
        migrations.AlterField(
            model_name="service",
            name="strategy",
            field=models.CharField(
                choices=[
                    ("round_robin", "round_robin"),
                    ("weighted", "weighted"),
                    ("least_connections", "least_connections"),
                    ("p2c", "p2c"),
                    ("peak_ewma", "peak_ewma"),
                    ("consistent_hash", "consistent_hash"),
                ],
                default="round_robin",
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="target",
            name="url",
            field=models.CharField(
                help_text="http://host:port, https://host:port or unix:/path", max_length=255
            ),
        ),
        migrations.AlterField(
            model_name="target",
            name="weight",
            field=models.PositiveIntegerField(
                default=1,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(1000),
                ],
            ),
        ),
        migrations.AddConstraint(
            model_name="jwtissuer",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "algorithm__in",
                        (
                            "HS256",
                            "HS384",
                            "HS512",
                            "RS256",
                            "RS384",
                            "RS512",
                            "PS256",
                            "PS384",
                            "PS512",
                            "ES256",
                            "ES384",
                            "ES512",
                            "EdDSA",
                        ),
                    )
                ),
                name="gateway_issuer_algorithm_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="jwtissuer",
            constraint=models.CheckConstraint(
                condition=models.Q(("leeway_s__isnull", True), ("leeway_s__gte", 0), _connector="OR"),
                name="gateway_issuer_leeway_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="jwtissuer",
            constraint=models.CheckConstraint(
                condition=models.Q(("jwks_url", ""), ("public_key", ""), _connector="OR"),
                name="gateway_issuer_one_source_of_keys",
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(("counted_by__in", ("caller", "key", "ip"))),
                name="gateway_plan_counted_by_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="route",
            constraint=models.CheckConstraint(
                condition=models.Q(("path_kind__in", ("prefix", "exact", "template", "regex"))),
                name="gateway_route_path_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="route",
            constraint=models.CheckConstraint(
                condition=models.Q(("host_header__in", ("target", "preserve"))),
                name="gateway_route_host_header_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="route",
            constraint=models.CheckConstraint(
                condition=models.Q(("timeout_s__isnull", True), ("timeout_s__gt", 0), _connector="OR"),
                name="gateway_route_timeout_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="route",
            constraint=models.CheckConstraint(
                condition=models.Q(("cost__gte", 1)), name="gateway_route_cost_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "strategy__in",
                        (
                            "round_robin",
                            "weighted",
                            "least_connections",
                            "p2c",
                            "peak_ewma",
                            "consistent_hash",
                        ),
                    )
                ),
                name="gateway_service_strategy_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("connect_timeout_s__gt", 0)),
                name="gateway_service_connect_timeout_s_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("response_timeout_s__gt", 0)),
                name="gateway_service_response_timeout_s_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("idle_timeout_s__gt", 0)), name="gateway_service_idle_timeout_s_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("breaker_window_s__gt", 0)),
                name="gateway_service_breaker_window_s_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("breaker_open_s__gt", 0)), name="gateway_service_breaker_open_s_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("health_interval_s__gt", 0)),
                name="gateway_service_health_interval_s_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("health_timeout_s__gt", 0)),
                name="gateway_service_health_timeout_s_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("breaker_failure_ratio__gte", 0), ("breaker_failure_ratio__lte", 1)),
                name="gateway_service_breaker_failure_ratio_is_a_share",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("breaker_slow_ratio__gte", 0), ("breaker_slow_ratio__lte", 1)),
                name="gateway_service_breaker_slow_ratio_is_a_share",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("retry_budget_ratio__gte", 0), ("retry_budget_ratio__lte", 1)),
                name="gateway_service_retry_budget_ratio_is_a_share",
            ),
        ),
        migrations.AddConstraint(
            model_name="target",
            constraint=models.UniqueConstraint(
                fields=("service", "url"), name="gateway_target_once_per_service"
            ),
        ),
        migrations.AddConstraint(
            model_name="target",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("url__startswith", "http://"),
                    ("url__startswith", "https://"),
                    ("url__startswith", "unix:"),
                    _connector="OR",
                ),
                name="gateway_target_scheme_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="target",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ("active", "draining", "off"))),
                name="gateway_target_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="revokedtoken",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("jti", ""), _negated=True),
                    models.Q(("digest", ""), _negated=True),
                    _connector="OR",
                ),
                name="gateway_revoked_names_a_token",
            ),
        ),
        migrations.AddField(
            model_name="transform",
            name="route",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="transforms",
                to="gateway.route",
            ),
        ),
        migrations.AddField(
            model_name="transform",
            name="service",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="transforms",
                to="gateway.service",
            ),
        ),
        migrations.AddConstraint(
            model_name="transform",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("route__isnull", True), ("service__isnull", False)),
                    models.Q(("route__isnull", False), ("service__isnull", True)),
                    _connector="OR",
                ),
                name="gateway_transform_of_a_route_or_a_service",
            ),
        ),
        migrations.AddConstraint(
            model_name="transform",
            constraint=models.CheckConstraint(
                condition=models.Q(("on_failure__in", ("continue", "refuse"))),
                name="gateway_transform_on_failure_known",
            ),
        ),
    ]
