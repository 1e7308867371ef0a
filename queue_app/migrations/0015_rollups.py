"""Statistics by spans of time, whose names are compared letter by letter on MySQL too."""

from django.db import migrations, models


def compare_letters(apps, schema_editor):
    if schema_editor.connection.vendor == "mysql":
        columns = (("queue", 100), ("name", 200), ("tenant", 64))
        parts = (
            f"MODIFY {name} varchar({length}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
            for name, length in columns
        )
        schema_editor.execute(f"ALTER TABLE queue_app_rollup {', '.join(parts)}")


class Migration(migrations.Migration):
    dependencies = [
        ("queue_app", "0014_worker_ended"),
    ]

    operations = [
        migrations.AlterField(
            model_name="lease",
            name="position",
            field=models.CharField(
                blank=True,
                help_text="Of the recorder and the rollups: the last entry, or step, it wrote",
                max_length=64,
            ),
        ),
        migrations.CreateModel(
            name="Rollup",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("step_s", models.PositiveIntegerField(help_text="60, 3600 or 86400; 0: of all time")),
                ("at", models.DateTimeField(help_text="Where the span begins")),
                ("queue", models.CharField(max_length=100)),
                ("name", models.CharField(max_length=200, verbose_name="task")),
                ("tenant", models.CharField(blank=True, max_length=64)),
                ("started", models.PositiveBigIntegerField(default=0)),
                ("completed", models.PositiveBigIntegerField(default=0)),
                ("failed", models.PositiveBigIntegerField(default=0, help_text="Runs that are tried again")),
                ("dead", models.PositiveBigIntegerField(default=0)),
                ("cancelled", models.PositiveBigIntegerField(default=0)),
                (
                    "wait",
                    models.JSONField(
                        default=dict, help_text="From when it was due to its start: bucket → runs"
                    ),
                ),
                ("wait_s", models.FloatField(default=0.0, help_text="Sum of the waits, in seconds")),
                ("run", models.JSONField(default=dict, help_text="bucket → runs")),
                ("run_s", models.FloatField(default=0.0, help_text="Sum of the runs, in seconds")),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("step_s", "at", "queue", "name", "tenant"), name="rollup_once"
                    )
                ],
            },
        ),
        # atomic=False: MySQL refuses DDL in a transaction.
        migrations.RunPython(compare_letters, migrations.RunPython.noop, atomic=False),
    ]
