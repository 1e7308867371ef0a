"""Limits of queues and of their tenants."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0010_replay")]

    operations = [
        migrations.CreateModel(
            name="Tenant",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(blank=True, max_length=64)),
                (
                    "weight",
                    models.PositiveSmallIntegerField(
                        blank=True, help_text="Turns in each round, 1 to 1000; empty: 1", null=True
                    ),
                ),
                (
                    "max_concurrency",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Jobs that run at once; empty: as each tenant of the queue",
                        null=True,
                    ),
                ),
                (
                    "rate_count",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="In each period; empty: as each tenant of the queue",
                        null=True,
                        verbose_name="rate: jobs",
                    ),
                ),
                ("rate_period_s", models.FloatField(blank=True, null=True, verbose_name="rate: period (s)")),
                (
                    "rate_burst",
                    models.PositiveIntegerField(blank=True, null=True, verbose_name="rate: burst"),
                ),
                ("position", models.FloatField(db_default=0, default=0, editable=False)),
                ("rate_used_to_s", models.FloatField(editable=False, null=True)),
                ("unstarted", models.PositiveIntegerField(db_default=0, default=0, editable=False)),
                ("seen_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ["queue", "name"],
            },
        ),
        migrations.CreateModel(
            name="Turns",
            fields=[
                ("queue", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("position", models.FloatField(default=0)),
                ("rate_used_to_s", models.FloatField(null=True)),
                ("unstarted", models.PositiveIntegerField(default=0)),
                ("held", models.PositiveIntegerField(default=0)),
                ("pace", models.FloatField(default=0)),
                ("looked_at_s", models.FloatField(default=0)),
            ],
        ),
        migrations.AddField(
            model_name="queue",
            name="is_fair",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Tenants take turns, by their weights",
                verbose_name="fair",
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="max_concurrency",
            field=models.PositiveIntegerField(
                blank=True, help_text="Jobs that run at once, over all workers; empty: no limit", null=True
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="rate_burst",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="That may start at once; empty: those of 0.1 s, 1 at least",
                null=True,
                verbose_name="rate: burst",
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="rate_count",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="That start in each period; empty: no limit",
                null=True,
                verbose_name="rate: jobs",
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="rate_period_s",
            field=models.FloatField(blank=True, null=True, verbose_name="rate: period (s)"),
        ),
        migrations.AddField(
            model_name="queue",
            name="tenant_concurrency",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="As above; empty: no limit",
                null=True,
                verbose_name="concurrency of each tenant",
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="tenant_rate_burst",
            field=models.PositiveIntegerField(
                blank=True, null=True, verbose_name="rate of each tenant: burst"
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="tenant_rate_count",
            field=models.PositiveIntegerField(
                blank=True, null=True, verbose_name="rate of each tenant: jobs"
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="tenant_rate_period_s",
            field=models.FloatField(blank=True, null=True, verbose_name="rate of each tenant: period (s)"),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("max_concurrency__isnull", True), ("max_concurrency__gte", 1), _connector="OR"),
                    models.Q(
                        ("tenant_concurrency__isnull", True), ("tenant_concurrency__gte", 1), _connector="OR"
                    ),
                ),
                name="queue_concurrency_at_least_1",
            ),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        models.Q(
                            ("rate_burst__isnull", True),
                            ("rate_count__isnull", True),
                            ("rate_period_s__isnull", True),
                        ),
                        models.Q(
                            ("rate_count__gte", 1),
                            ("rate_count__isnull", False),
                            ("rate_period_s__gt", 0),
                            ("rate_period_s__isnull", False),
                            models.Q(("rate_burst__isnull", True), ("rate_burst__gte", 1), _connector="OR"),
                        ),
                        _connector="OR",
                    ),
                    models.Q(
                        models.Q(
                            ("tenant_rate_burst__isnull", True),
                            ("tenant_rate_count__isnull", True),
                            ("tenant_rate_period_s__isnull", True),
                        ),
                        models.Q(
                            ("tenant_rate_count__gte", 1),
                            ("tenant_rate_count__isnull", False),
                            ("tenant_rate_period_s__gt", 0),
                            ("tenant_rate_period_s__isnull", False),
                            models.Q(
                                ("tenant_rate_burst__isnull", True),
                                ("tenant_rate_burst__gte", 1),
                                _connector="OR",
                            ),
                        ),
                        _connector="OR",
                    ),
                ),
                name="queue_rates_are_whole",
            ),
        ),
        migrations.AddField(
            model_name="tenant",
            name="queue",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="tenants", to="queue_app.queue"
            ),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.UniqueConstraint(fields=("queue", "name"), name="tenant_once"),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("weight__isnull", True),
                    models.Q(("weight__gte", 1), ("weight__lte", 1000)),
                    _connector="OR",
                ),
                name="tenant_weight_1_to_1000",
            ),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("max_concurrency__isnull", True), ("max_concurrency__gte", 1), _connector="OR"
                ),
                name="tenant_concurrency_at_least_1",
            ),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("rate_burst__isnull", True),
                        ("rate_count__isnull", True),
                        ("rate_period_s__isnull", True),
                    ),
                    models.Q(
                        ("rate_count__gte", 1),
                        ("rate_count__isnull", False),
                        ("rate_period_s__gt", 0),
                        ("rate_period_s__isnull", False),
                        models.Q(("rate_burst__isnull", True), ("rate_burst__gte", 1), _connector="OR"),
                    ),
                    _connector="OR",
                ),
                name="tenant_rate_is_whole",
            ),
        ),
    ]
