"""A tenant of a queue may be paused."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0021_fill_rollup_levels")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="paused",
            field=models.BooleanField(blank=True, help_text="Its jobs wait; what runs goes on", null=True),
        ),
    ]
