"""Dead letters by what they failed of: the fingerprint of the error, and an index that only dead rows are in."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0007_schedules")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="fingerprint",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="Of the error that made it a dead letter",
                max_length=16,
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "DEAD_LETTER")), fields=["fingerprint", "id"], name="job_dead"
            ),
        ),
    ]
