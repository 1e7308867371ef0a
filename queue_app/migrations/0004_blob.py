"""Large payloads beside their rows; unique keys that are compared letter by letter on MySQL too."""

import django.db.models.deletion
from django.db import migrations, models


def _collate(schema_editor, collation):
    if schema_editor.connection.vendor == "mysql":
        schema_editor.execute(
            f"ALTER TABLE queue_app_job MODIFY unique_key varchar(200) CHARACTER SET utf8mb4 COLLATE {collation} NULL"
        )


def compare_letters(apps, schema_editor):
    _collate(schema_editor, "utf8mb4_bin")


def compare_as_before(apps, schema_editor):
    _collate(schema_editor, "utf8mb4_general_ci")


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0003_lease")]

    operations = [
        migrations.CreateModel(
            name="Blob",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="blob",
                        serialize=False,
                        to="queue_app.job",
                    ),
                ),
                ("body", models.BinaryField()),
                ("size_bytes", models.PositiveIntegerField()),
            ],
        ),
        # atomic=False: MySQL refuses DDL in a transaction.
        migrations.RunPython(compare_letters, compare_as_before, atomic=False),
    ]
