"""Overlap policies that wait for the last job's end, or cancel it."""

from django.db import migrations, models


def as_before(apps, schema_editor):
    alias = schema_editor.connection.alias
    schedules = apps.get_model("queue_app", "Schedule").objects.using(alias)
    schedules.filter(overlap__in=["wait", "replace"]).update(overlap="skip")
    firings = apps.get_model("queue_app", "Firing").objects.using(alias)
    firings.filter(outcome="waiting").update(outcome="overlapped")


class Migration(migrations.Migration):
    dependencies = [
        ("queue_app", "0018_alerts"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="schedule",
            name="schedule_known_policies",
        ),
        migrations.AddField(
            model_name="schedule",
            name="waits_at",
            field=models.DateTimeField(
                editable=False,
                help_text="The moment that waits for the last job's end",
                null=True,
                verbose_name="waits",
            ),
        ),
        migrations.AlterField(
            model_name="firing",
            name="outcome",
            field=models.CharField(
                choices=[
                    ("fired", "Fired"),
                    ("overlapped", "Overlapped"),
                    ("waiting", "Waiting"),
                    ("missed", "Missed"),
                    ("refused", "Refused"),
                ],
                max_length=10,
            ),
        ),
        migrations.AlterField(
            model_name="schedule",
            name="overlap",
            field=models.CharField(
                choices=[("allow", "allow"), ("skip", "skip"), ("wait", "wait"), ("replace", "replace")],
                default="allow",
                help_text="While the last one's job is not over: run beside it, skip, wait for its end (one moment does), or cancel it and run then",
                max_length=7,
            ),
        ),
        migrations.RunPython(migrations.RunPython.noop, as_before),
        migrations.AddConstraint(
            model_name="schedule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("missed__in", ["skip", "last", "all"]),
                    ("overlap__in", ["allow", "skip", "wait", "replace"]),
                ),
                name="schedule_known_policies",
            ),
        ),
    ]
