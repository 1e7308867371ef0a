"""What the engine needs: deliveries, suspects, unique keys, progress, limits; and indexes that finished rows leave."""

import django.db.models.deletion
from django.db import migrations, models

# Instead of the partial indexes, which MySQL does not have.
MYSQL_INDEXES = {
    "job_waiting_all": ["state", "published_at", "run_after"],
    "job_running_all": ["state", "owner"],
    "job_open_all": ["queue", "state"],
    "job_requested_all": ["request_id"],
}


def _change(schema_editor, apps, act):
    if schema_editor.connection.vendor == "mysql":
        job = apps.get_model("queue_app", "Job")
        for name, fields in MYSQL_INDEXES.items():
            act(job, models.Index(fields=fields, name=name))


def add_whole_indexes(apps, schema_editor):
    _change(schema_editor, apps, schema_editor.add_index)


def remove_whole_indexes(apps, schema_editor):
    _change(schema_editor, apps, schema_editor.remove_index)


class Migration(migrations.Migration):
    dependencies = [
        ("queue_app", "0001_ledger"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="jobevent",
            name="job_event_known_states",
        ),
        migrations.RemoveIndex(
            model_name="job",
            name="job_due",
        ),
        migrations.RemoveIndex(
            model_name="job",
            name="job_owned",
        ),
        migrations.RemoveIndex(
            model_name="job",
            name="job_queue_state",
        ),
        migrations.RemoveIndex(
            model_name="job",
            name="job_request",
        ),
        migrations.RenameField(
            model_name="jobevent",
            old_name="to_state",
            new_name="state",
        ),
        migrations.RemoveField(
            model_name="jobevent",
            name="from_state",
        ),
        migrations.AddField(
            model_name="job",
            name="cancel_requested",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="job",
            name="delivery",
            field=models.CharField(
                choices=[("ledger", "Ledger"), ("broker", "Broker")],
                default="ledger",
                editable=False,
                max_length=6,
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="expires_at",
            field=models.DateTimeField(help_text="Not started after this; empty: never expires", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="is_marked",
            field=models.BooleanField(default=False, help_text="A suspect whose start is on record"),
        ),
        migrations.AddField(
            model_name="job",
            name="parent",
            field=models.UUIDField(help_text="The job that enqueued it", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="progress",
            field=models.FloatField(help_text="0 to 1, as the run last told", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="progress_note",
            field=models.CharField(blank=True, max_length=200),
        ),
        migrations.AddField(
            model_name="job",
            name="suspect",
            field=models.BooleanField(
                default=False, help_text="Was with a worker that died: runs one at a time"
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="tenant",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="job",
            name="unique_key",
            field=models.CharField(max_length=200, null=True, unique=True),
        ),
        migrations.AddField(
            model_name="job",
            name="unique_until",
            field=models.DateTimeField(help_text="The key stays taken until then, over or not", null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="delivery",
            field=models.CharField(
                blank=True,
                choices=[("ledger", "Ledger"), ("broker", "Broker")],
                help_text="Wins over the caller's way; empty: enqueue() takes the ledger, .delay() the broker",
                max_length=6,
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="retention_s",
            field=models.FloatField(
                blank=True,
                help_text="Of completed jobs; empty: the default",
                null=True,
                verbose_name="retention (s)",
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="soft_time_limit_s",
            field=models.FloatField(
                blank=True,
                help_text="SoftTimeLimitExceeded is raised in the run; empty: none",
                null=True,
                verbose_name="soft time limit (s)",
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="time_limit_s",
            field=models.FloatField(
                blank=True,
                help_text="The run is ended; empty: the default",
                null=True,
                verbose_name="time limit (s)",
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="running",
            field=models.JSONField(
                default=list, help_text="Ids of the jobs that it ran at its last heartbeat"
            ),
        ),
        migrations.AlterField(
            model_name="jobevent",
            name="job",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="events",
                to="queue_app.job",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["PENDING", "FAILED"])),
                fields=["published_at", "run_after"],
                name="job_waiting",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "PROCESSING")), fields=["owner"], name="job_running"
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["COMPLETED", "CANCELLED"]), _negated=True),
                fields=["queue", "state"],
                name="job_open",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("request_id", ""), _negated=True),
                fields=["request_id"],
                name="job_requested",
            ),
        ),
        migrations.AddConstraint(
            model_name="jobevent",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "state__in",
                        ["PENDING", "PROCESSING", "COMPLETED", "FAILED", "DEAD_LETTER", "CANCELLED"],
                    )
                ),
                name="job_event_known_state",
            ),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(("delivery__in", ["", "ledger", "broker"])), name="queue_known_delivery"
            ),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("soft_time_limit_s__isnull", True), ("soft_time_limit_s__gt", 0), _connector="OR"
                    ),
                    models.Q(("time_limit_s__isnull", True), ("time_limit_s__gt", 0), _connector="OR"),
                    models.Q(("retention_s__isnull", True), ("retention_s__gte", 0), _connector="OR"),
                ),
                name="queue_limits_are_positive",
            ),
        ),
        # atomic=False: MySQL refuses DDL in a transaction.
        migrations.RunPython(add_whole_indexes, remove_whole_indexes, atomic=False),
    ]
