"""Replays of many dead letters, worked off at a rate; how long a queue keeps its dead letters."""

import uuid

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0009_fill_fingerprint")]

    operations = [
        migrations.AddField(
            model_name="queue",
            name="dead_retention_s",
            field=models.FloatField(
                blank=True,
                help_text="Of dead letters; empty: the default",
                null=True,
                verbose_name="dead letters' retention (s)",
            ),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("dead_retention_s__isnull", True), ("dead_retention_s__gte", 0), _connector="OR"
                ),
                name="queue_dead_retention_not_negative",
            ),
        ),
        migrations.CreateModel(
            name="Replay",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("queue", models.CharField(blank=True, max_length=100)),
                ("task", models.CharField(blank=True, max_length=200)),
                ("fingerprint", models.CharField(blank=True, max_length=16)),
                (
                    "rate",
                    models.FloatField(help_text="Jobs per second; empty: as fast as it goes", null=True),
                ),
                ("wanted", models.PositiveIntegerField(help_text="Dead letters that it found at the start")),
                ("replayed", models.PositiveIntegerField(default=0)),
                (
                    "passed_over",
                    models.PositiveIntegerField(default=0, help_text="Their arguments were not recorded"),
                ),
                ("position", models.UUIDField(help_text="The last job that it has looked at", null=True)),
                ("actor", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("counted_to", models.DateTimeField(help_text="The time that the rate has used up")),
                ("finished_at", models.DateTimeField(null=True)),
                ("is_stopped", models.BooleanField(default=False, help_text="By hand, before its end")),
            ],
            options={
                "ordering": ["-created_at"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("rate__isnull", True), ("rate__gt", 0), _connector="OR"),
                        name="replay_rate_positive",
                    )
                ],
            },
        ),
    ]
