"""Tags, and indexes by which lists of jobs are found in the order of their ids."""

import django.db.models.deletion
from django.db import migrations, models

# Instead of the partial indexes, which MySQL does not have.
WHOLE = (
    (["queue", "id"], "job_of_queue_all"),
    (["name", "id"], "job_of_task_all"),
    (["owner", "id"], "job_of_worker_all"),
    (["tenant", "id"], "job_of_tenant_all"),
    (["state", "id"], "job_in_state_all"),
)


def add_whole_indexes(apps, schema_editor):
    if schema_editor.connection.vendor == "mysql":
        job = apps.get_model("queue_app", "Job")
        for fields, name in WHOLE:
            schema_editor.add_index(job, models.Index(fields=fields, name=name))


def remove_whole_indexes(apps, schema_editor):
    if schema_editor.connection.vendor == "mysql":
        job = apps.get_model("queue_app", "Job")
        for fields, name in WHOLE:
            schema_editor.remove_index(job, models.Index(fields=fields, name=name))


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0015_rollups")]

    operations = [
        migrations.CreateModel(
            name="Tag",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=64)),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tag_rows",
                        to="queue_app.job",
                    ),
                ),
            ],
            options={"constraints": [models.UniqueConstraint(fields=("name", "job"), name="tag_once")]},
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["COMPLETED", "DEAD_LETTER", "CANCELLED"])),
                fields=["queue", "id"],
                name="job_over_queue",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["COMPLETED", "DEAD_LETTER", "CANCELLED"])),
                fields=["name", "id"],
                name="job_over_task",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["COMPLETED", "DEAD_LETTER", "CANCELLED"])),
                fields=["owner", "id"],
                name="job_over_worker",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(
                    ("state__in", ["COMPLETED", "DEAD_LETTER", "CANCELLED"]),
                    models.Q(("tenant", ""), _negated=True),
                ),
                fields=["tenant", "id"],
                name="job_over_tenant",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["DEAD_LETTER", "CANCELLED"])),
                fields=["state", "id"],
                name="job_in_state",
            ),
        ),
        migrations.RemoveIndex(model_name="job", name="job_dead"),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "DEAD_LETTER")),
                fields=["fingerprint", "id", "name", "queue", "finished_at"],
                name="job_dead",
            ),
        ),
        # atomic=False: MySQL refuses DDL in a transaction.
        migrations.RunPython(add_whole_indexes, remove_whole_indexes, atomic=False),
    ]
