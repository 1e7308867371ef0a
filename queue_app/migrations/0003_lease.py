"""One leader at a time for a duty, and how far it has come."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("queue_app", "0002_engine"),
    ]

    operations = [
        migrations.CreateModel(
            name="Lease",
            fields=[
                ("name", models.CharField(max_length=50, primary_key=True, serialize=False)),
                ("holder", models.UUIDField(null=True)),
                ("until", models.DateTimeField()),
                (
                    "position",
                    models.CharField(
                        blank=True, help_text="Of the recorder: the last entry it wrote", max_length=64
                    ),
                ),
            ],
        ),
    ]
