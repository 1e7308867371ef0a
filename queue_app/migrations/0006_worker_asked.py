"""What a worker is asked for, and the memory that it takes."""

from django.db import migrations, models

_CHOICES = [("", ""), ("quiet", "quiet"), ("stop", "stop"), ("recycle", "recycle")]
_MEMORY = "Resident, of the process and its pool's children; empty where the system does not say"


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0005_cancel_by_force")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="asked",
            field=models.CharField(blank=True, choices=_CHOICES, db_default="", default="", max_length=7),
        ),
        migrations.AddField(
            model_name="worker",
            name="memory_bytes",
            field=models.PositiveBigIntegerField(help_text=_MEMORY, null=True),
        ),
    ]
