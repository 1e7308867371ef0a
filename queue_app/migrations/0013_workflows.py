"""Workflows: jobs that wait for each other, their places, and what of them is over."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("queue_app", "0012_turn"),
    ]

    operations = [
        migrations.CreateModel(
            name="Workflow",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[("chain", "chain"), ("group", "group"), ("batch", "batch")], max_length=5
                    ),
                ),
                ("name", models.CharField(blank=True, max_length=100)),
                ("total", models.PositiveIntegerField(help_text="Jobs, callbacks of a batch left out")),
                ("tried", models.PositiveIntegerField(default=0, help_text="Ran once, or are over")),
                ("completed", models.PositiveIntegerField(default=0)),
                ("dead", models.PositiveIntegerField(default=0)),
                ("cancelled", models.PositiveIntegerField(default=0)),
                ("is_cancelled", models.BooleanField(default=False, help_text="As a whole, by hand")),
                ("parent", models.UUIDField(help_text="The job that started it", null=True)),
                ("request_id", models.CharField(blank=True, max_length=128)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(help_text="Nothing of it will run any more", null=True)),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Member",
            fields=[
                ("job", models.UUIDField(primary_key=True, serialize=False)),
                (
                    "workflow",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="members",
                        to="queue_app.workflow",
                    ),
                ),
                ("position", models.PositiveIntegerField()),
                (
                    "role",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", ""),
                            ("on_success", "on_success"),
                            ("on_complete", "on_complete"),
                            ("on_death", "on_death"),
                        ],
                        max_length=11,
                    ),
                ),
                ("behind", models.PositiveIntegerField(null=True)),
                ("opens", models.PositiveIntegerField(null=True)),
                ("is_held", models.BooleanField(default=False, help_text="Waits for other jobs")),
                ("is_tried", models.BooleanField(default=False, help_text="Ran once, or is over")),
                (
                    "outcome",
                    models.CharField(blank=True, help_text="The state in which it is over", max_length=12),
                ),
                ("delay_s", models.FloatField(null=True)),
                ("run_at", models.DateTimeField(null=True)),
                ("expires_s", models.FloatField(null=True)),
            ],
            options={
                "ordering": ["workflow", "position"],
            },
        ),
        migrations.AddField(
            model_name="job",
            name="workflow",
            field=models.UUIDField(
                editable=False, help_text="That it is a part of; its place: Member", null=True
            ),
        ),
        migrations.AddIndex(
            model_name="job",  # MySQL makes a whole one of it
            index=models.Index(
                condition=models.Q(("parent__isnull", False)), fields=["parent"], name="job_child"
            ),
        ),
        migrations.AddIndex(
            model_name="workflow",
            index=models.Index(fields=["finished_at"], name="workflow_finished"),
        ),
        migrations.AddIndex(
            model_name="workflow",
            index=models.Index(fields=["parent"], name="workflow_parent"),
        ),
        migrations.AddConstraint(
            model_name="workflow",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["chain", "group", "batch"])), name="workflow_known_kind"
            ),
        ),
        migrations.AddConstraint(
            model_name="workflow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "total__gte",
                        models.F("completed") + models.F("dead") + models.F("cancelled"),
                    )
                ),
                name="workflow_counts_fit",
            ),
        ),
        migrations.AddIndex(
            model_name="member",
            index=models.Index(fields=["workflow", "opens", "outcome"], name="member_gate"),
        ),
        migrations.AddIndex(
            model_name="member",
            index=models.Index(fields=["workflow", "behind"], name="member_behind"),
        ),
        migrations.AddConstraint(
            model_name="member",
            constraint=models.UniqueConstraint(fields=("workflow", "position"), name="member_position"),
        ),
        migrations.AddConstraint(
            model_name="member",
            constraint=models.CheckConstraint(
                condition=models.Q(("role__in", ["", "on_success", "on_complete", "on_death"])),
                name="member_known_role",
            ),
        ),
    ]
