"""Which code a worker runs."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0022_tenant_paused")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="version",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Of its code, as BRAIN_VERSION says it",
                max_length=64,
            ),
        ),
    ]
