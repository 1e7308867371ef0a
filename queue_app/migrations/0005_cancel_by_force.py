"""Cancel a running job by force; threads that do not come back."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0004_blob")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="cancel_forced",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Do not wait for the run to notice"
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="stuck",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="Threads whose runs were given up and that have not come back",
            ),
        ),
    ]
