"""Alerts: rules, of which six are there from the start; what fires; silences; notices."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

RULES = (
    {"name": "latency", "condition": "latency", "threshold": 300, "for_s": 60},
    {"name": "failures", "condition": "failures", "threshold": 0.5, "at_least": 20, "for_s": 60},
    {"name": "dead-letters", "condition": "new_dead", "threshold": 1, "for_s": 0, "clear_s": 0},
    {"name": "no-worker", "condition": "no_worker", "threshold": 30, "for_s": 30},
    {"name": "schedules", "condition": "schedule", "threshold": 60, "for_s": 30},
    {"name": "recorder", "condition": "recorder", "threshold": 60, "for_s": 60},
)


def make_rules(apps, schema_editor):
    rules = apps.get_model("queue_app", "AlertRule").objects.using(schema_editor.connection.alias)
    for rule in RULES:
        rules.get_or_create(name=rule["name"], defaults=rule)


class Migration(migrations.Migration):
    dependencies = [
        ("queue_app", "0017_bulk_action"),
    ]

    operations = [
        migrations.CreateModel(
            name="Notice",
            fields=[
                (
                    "id",
                    models.UUIDField(editable=False, primary_key=True, serialize=False),
                ),
                ("channel", models.CharField(max_length=100)),
                ("body", models.JSONField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                (
                    "next_at",
                    models.DateTimeField(
                        db_index=True,
                        help_text="Empty: it is sent, or given up",
                        null=True,
                        verbose_name="next attempt",
                    ),
                ),
                ("taken_until", models.DateTimeField(help_text="Somebody is sending it", null=True)),
                ("sent_at", models.DateTimeField(null=True, verbose_name="sent")),
                ("last_error", models.CharField(blank=True, max_length=200)),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="AlertRule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                (
                    "condition",
                    models.CharField(
                        choices=[
                            ("latency", "latency"),
                            ("failures", "failures"),
                            ("new_dead", "new_dead"),
                            ("dead", "dead"),
                            ("no_worker", "no_worker"),
                            ("schedule", "schedule"),
                            ("recorder", "recorder"),
                        ],
                        max_length=9,
                    ),
                ),
                (
                    "queue",
                    models.CharField(
                        blank=True,
                        help_text="Empty: every queue that no other rule of this condition names",
                        max_length=100,
                    ),
                ),
                (
                    "threshold",
                    models.FloatField(
                        help_text="Fires at or above: seconds of latency, no_worker, schedule and recorder; a share of failures, 0.5 for half; a count of new_dead and dead"
                    ),
                ),
                (
                    "window_s",
                    models.PositiveIntegerField(
                        default=600,
                        help_text="Looked back on; of failures and new_dead",
                        verbose_name="window (s)",
                    ),
                ),
                (
                    "at_least",
                    models.PositiveIntegerField(
                        default=1, help_text="Runs in the window, or their share says nothing; of failures"
                    ),
                ),
                (
                    "for_s",
                    models.PositiveIntegerField(
                        default=60, help_text="It has held this long before it fires", verbose_name="for (s)"
                    ),
                ),
                (
                    "clear_s",
                    models.PositiveIntegerField(
                        default=60,
                        help_text="It has been below this long before it is resolved",
                        verbose_name="clear (s)",
                    ),
                ),
                (
                    "repeat_s",
                    models.PositiveIntegerField(
                        default=14400,
                        help_text="Between two reminders while it fires; 0: none",
                        verbose_name="repeat (s)",
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ["name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "condition__in",
                                [
                                    "latency",
                                    "failures",
                                    "new_dead",
                                    "dead",
                                    "no_worker",
                                    "schedule",
                                    "recorder",
                                ],
                            )
                        ),
                        name="alert_rule_known_condition",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("threshold__gt", 0),
                            models.Q(
                                models.Q(("condition", "failures"), _negated=True),
                                ("threshold__lte", 1),
                                _connector="OR",
                            ),
                        ),
                        name="alert_rule_threshold_fits",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Silence",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("queue", models.CharField(blank=True, max_length=100)),
                ("until", models.DateTimeField(db_index=True)),
                ("reason", models.CharField(max_length=200)),
                ("actor", models.CharField(max_length=150, verbose_name="by")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "rule",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="silences",
                        to="queue_app.alertrule",
                    ),
                ),
            ],
            options={
                "ordering": ["-until", "-id"],
            },
        ),
        migrations.CreateModel(
            name="Alert",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, verbose_name="rule's name")),
                ("condition", models.CharField(max_length=9)),
                ("queue", models.CharField(blank=True, max_length=100)),
                (
                    "state",
                    models.CharField(
                        choices=[("pending", "pending"), ("firing", "firing"), ("resolved", "resolved")],
                        max_length=8,
                    ),
                ),
                ("value", models.FloatField(help_text="At the last look")),
                ("words", models.CharField(blank=True, max_length=300, verbose_name="what")),
                ("since", models.DateTimeField(help_text="When its condition began to hold")),
                ("fired_at", models.DateTimeField(null=True, verbose_name="fired")),
                ("calm_since", models.DateTimeField(null=True)),
                ("resolved_at", models.DateTimeField(null=True, verbose_name="resolved")),
                (
                    "told_at",
                    models.DateTimeField(
                        help_text="When the last notice that it fires was written",
                        null=True,
                        verbose_name="last notice",
                    ),
                ),
                ("notices", models.PositiveIntegerField(default=0)),
                ("open_key", models.CharField(editable=False, max_length=64, null=True, unique=True)),
                (
                    "rule",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="alerts",
                        to="queue_app.alertrule",
                    ),
                ),
            ],
            options={
                "ordering": ["state", "-id"],
                "indexes": [
                    models.Index(fields=["state", "-id"], name="alert_by_state"),
                    models.Index(fields=["resolved_at"], name="alert_resolved"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["pending", "firing", "resolved"])),
                        name="alert_known_state",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("open_key__isnull", True), ("state", "resolved")),
                            models.Q(
                                models.Q(("state", "resolved"), _negated=True), ("open_key__isnull", False)
                            ),
                            _connector="OR",
                        ),
                        name="alert_open_has_its_key",
                    ),
                ],
            },
        ),
        migrations.RunPython(make_rules, migrations.RunPython.noop),
    ]
