"""Levels of the statistics beside each other: how far each has come, and an index that has the rows of all tenants, or of one, beside each other."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0019_overlap")]

    operations = [
        migrations.CreateModel(
            name="RollupLevel",
            fields=[
                ("step_s", models.PositiveIntegerField(primary_key=True, serialize=False)),
                (
                    "upto",
                    models.DateTimeField(
                        help_text="Finer rows that begin before are summed up in this level"
                    ),
                ),
                (
                    "row",
                    models.BigIntegerField(
                        default=0, help_text="So are those that begin there, up to this id"
                    ),
                ),
                (
                    "kept_from",
                    models.DateTimeField(help_text="What began before is deleted, or will be"),
                ),
            ],
        ),
        migrations.AlterField(
            model_name="rollup",
            name="step_s",
            field=models.PositiveIntegerField(help_text="60, 300, 900, 3600, 21600 or 86400; 0: of all time"),
        ),
        migrations.AlterField(
            model_name="rollup",
            name="tenant",
            field=models.CharField(
                blank=True, help_text="Empty: of all jobs, whatever their tenant", max_length=64
            ),
        ),
        migrations.AddIndex(
            model_name="rollup",
            index=models.Index(fields=["step_s", "at"], name="rollup_by_time"),
        ),
        migrations.RemoveConstraint(model_name="rollup", name="rollup_once"),
        migrations.AddConstraint(
            model_name="rollup",
            constraint=models.UniqueConstraint(
                fields=("step_s", "tenant", "at", "queue", "name"), name="rollup_once"
            ),
        ),
    ]
