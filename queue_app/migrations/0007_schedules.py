"""Schedules and what they fired."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("queue_app", "0006_worker_asked"),
    ]

    operations = [
        migrations.CreateModel(
            name="Schedule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                (
                    "task",
                    models.CharField(
                        help_text="A task's name, or a queue's that has one task", max_length=200
                    ),
                ),
                (
                    "payload",
                    models.JSONField(
                        blank=True, default=dict, help_text="An object; checked against the task's model"
                    ),
                ),
                ("queue", models.CharField(blank=True, help_text="Empty: the task's", max_length=100)),
                ("priority", models.PositiveSmallIntegerField(default=3, help_text="0 to 9")),
                ("tenant", models.CharField(blank=True, max_length=64)),
                (
                    "cron",
                    models.CharField(
                        blank=True, help_text="minute hour day month weekday; or an interval", max_length=100
                    ),
                ),
                (
                    "interval_s",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Seconds between two moments; or cron",
                        null=True,
                        verbose_name="interval (s)",
                    ),
                ),
                (
                    "time_zone",
                    models.CharField(default="UTC", help_text="Of the cron expression", max_length=64),
                ),
                (
                    "missed",
                    models.CharField(
                        choices=[("skip", "skip"), ("last", "last"), ("all", "all")],
                        default="last",
                        help_text="What nobody fired in time: skip it, fire the last, or all within the window",
                        max_length=4,
                        verbose_name="missed runs",
                    ),
                ),
                (
                    "window_s",
                    models.PositiveIntegerField(
                        default=86400,
                        help_text="Missed runs older than this never fire; of the policy `all`",
                        verbose_name="window (s)",
                    ),
                ),
                (
                    "overlap",
                    models.CharField(
                        choices=[("allow", "allow"), ("skip", "skip")],
                        default="allow",
                        help_text="While the last one's job is not over: run beside it, or skip",
                        max_length=5,
                    ),
                ),
                ("paused", models.BooleanField(default=False)),
                (
                    "starts_at",
                    models.DateTimeField(editable=False, help_text="From where an interval counts"),
                ),
                (
                    "next_at",
                    models.DateTimeField(
                        editable=False,
                        help_text="The next moment to fire; empty: never",
                        null=True,
                        verbose_name="next",
                    ),
                ),
                (
                    "last_at",
                    models.DateTimeField(
                        editable=False, help_text="The last moment that fired", null=True, verbose_name="last"
                    ),
                ),
                ("last_job", models.UUIDField(editable=False, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ["name"],
                "indexes": [models.Index(fields=["paused", "next_at"], name="schedule_due")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("cron", ""), ("interval_s__gte", 1)),
                            models.Q(models.Q(("cron", ""), _negated=True), ("interval_s", None)),
                            _connector="OR",
                        ),
                        name="schedule_cron_or_interval",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("priority__gte", 0), ("priority__lte", 9)),
                        name="schedule_priority_0_to_9",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("missed__in", ["skip", "last", "all"]), ("overlap__in", ["allow", "skip"])
                        ),
                        name="schedule_known_policies",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Firing",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("due_at", models.DateTimeField()),
                ("at", models.DateTimeField(help_text="When that was written, by the database's clock")),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("fired", "Fired"),
                            ("overlapped", "Overlapped"),
                            ("missed", "Missed"),
                            ("refused", "Refused"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "cause",
                    models.CharField(
                        choices=[("clock", "Clock"), ("hand", "Hand"), ("backfill", "Backfill")],
                        default="clock",
                        max_length=8,
                    ),
                ),
                ("job", models.UUIDField(null=True)),
                ("note", models.CharField(blank=True, max_length=200)),
                (
                    "schedule",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="firings",
                        to="queue_app.schedule",
                    ),
                ),
            ],
            options={
                "ordering": ["-due_at"],
                "indexes": [models.Index(fields=["at"], name="firing_at")],
                "constraints": [models.UniqueConstraint(fields=("schedule", "due_at"), name="firing_once")],
            },
        ),
    ]
