"""Replays of many become bulk actions: any action, on any selection of jobs."""

from django.db import migrations, models

FIELDS = ("queue", "task", "fingerprint")


def to_selections(apps, schema_editor):
    for row in (
        apps.get_model("queue_app", "BulkAction")
        .objects.using(schema_editor.connection.alias)
        .order_by("pk")
        .iterator()
    ):
        row.selection = {name: getattr(row, name) for name in FIELDS if getattr(row, name)}
        row.seen = row.done + row.passed_over
        row.save(update_fields=["selection", "seen"])


def from_selections(apps, schema_editor):
    rows = apps.get_model("queue_app", "BulkAction").objects.using(schema_editor.connection.alias)
    rows.exclude(action="replay").delete()
    for row in rows.order_by("pk").iterator():
        for name in FIELDS:
            setattr(row, name, row.selection.get(name, ""))
        row.save(update_fields=FIELDS)


class Migration(migrations.Migration):
    dependencies = [("queue_app", "0016_search")]

    operations = [
        migrations.RemoveConstraint(model_name="replay", name="replay_rate_positive"),
        migrations.RenameModel(old_name="Replay", new_name="BulkAction"),
        migrations.RenameField(model_name="bulkaction", old_name="replayed", new_name="done"),
        migrations.AddField(
            model_name="bulkaction",
            name="action",
            field=models.CharField(
                choices=[("replay", "replay"), ("discard", "discard"), ("cancel", "cancel"), ("run", "run")],
                default="replay",
                max_length=7,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="bulkaction",
            name="selection",
            field=models.JSONField(default=dict, help_text="Field → text, as selection.read takes it"),
        ),
        migrations.AddField(
            model_name="bulkaction",
            name="is_forced",
            field=models.BooleanField(db_default=False, default=False, help_text="Of a cancel"),
        ),
        migrations.AddField(
            model_name="bulkaction",
            name="seen",
            field=models.PositiveIntegerField(
                db_default=0, default=0, help_text="Jobs that it has looked at"
            ),
        ),
        migrations.AlterField(
            model_name="bulkaction",
            name="wanted",
            field=models.PositiveIntegerField(help_text="Jobs that it found at the start, to be looked at"),
        ),
        migrations.AlterField(
            model_name="bulkaction",
            name="passed_over",
            field=models.PositiveIntegerField(
                default=0, help_text="Not in a state for it any more, or their arguments were not recorded"
            ),
        ),
        migrations.RunPython(to_selections, from_selections),
        migrations.RemoveField(model_name="bulkaction", name="queue"),
        migrations.RemoveField(model_name="bulkaction", name="task"),
        migrations.RemoveField(model_name="bulkaction", name="fingerprint"),
        migrations.AddConstraint(
            model_name="bulkaction",
            constraint=models.CheckConstraint(
                condition=models.Q(("rate__isnull", True), ("rate__gt", 0), _connector="OR"),
                name="bulk_rate_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="bulkaction",
            constraint=models.CheckConstraint(
                condition=models.Q(("action__in", ["replay", "discard", "cancel", "run"])),
                name="bulk_known_action",
            ),
        ),
    ]
