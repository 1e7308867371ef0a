"""The turns of jobs, for queues with limits; rows that wait for theirs leave the index of the reconciler."""

from django.db import migrations, models

# Instead of the partial index, which is a whole one on MySQL: what waits for its turn is left out by its second column.
BEFORE = ["state", "published_at", "run_after"]
AFTER = ["state", "turn", "published_at", "run_after"]


def _change(schema_editor, apps, old, new):
    if schema_editor.connection.vendor == "mysql":
        job = apps.get_model("queue_app", "Job")
        schema_editor.remove_index(job, models.Index(fields=old, name="job_waiting_all"))
        schema_editor.add_index(job, models.Index(fields=new, name="job_waiting_all"))


def change_whole_index(apps, schema_editor):
    _change(schema_editor, apps, BEFORE, AFTER)


def change_back(apps, schema_editor):
    _change(schema_editor, apps, AFTER, BEFORE)


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0011_limits")]

    operations = [
        migrations.RemoveIndex(
            model_name="job",
            name="job_waiting",
        ),
        migrations.AddField(
            model_name="job",
            name="turn",
            field=models.PositiveSmallIntegerField(
                choices=[(0, "none"), (1, "later"), (2, "waits"), (3, "has")],
                db_default=0,
                default=0,
                editable=False,
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["PENDING", "FAILED"]), ("turn__in", [0, 1, 3])),
                fields=["published_at", "run_after"],
                name="job_waiting",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("turn", 0), _negated=True),
                fields=["turn", "queue", "tenant", "-priority", "id"],
                name="job_turn",
            ),
        ),
        # atomic=False: MySQL refuses DDL in a transaction.
        migrations.RunPython(change_whole_index, change_back, atomic=False),
    ]
