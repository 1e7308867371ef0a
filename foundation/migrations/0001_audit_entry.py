import django.core.serializers.json
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("actor", models.CharField(help_text="Username, consumer or process", max_length=150)),
                (
                    "actor_id",
                    models.CharField(blank=True, help_text="Id of the user, if it was one", max_length=64),
                ),
                ("action", models.CharField(help_text="noun.verb, such as job.replay", max_length=100)),
                (
                    "target_label",
                    models.CharField(help_text="app.Model, or another kind of thing", max_length=100),
                ),
                ("target_id", models.CharField(blank=True, max_length=255)),
                (
                    "before",
                    models.JSONField(encoder=django.core.serializers.json.DjangoJSONEncoder, null=True),
                ),
                (
                    "after",
                    models.JSONField(encoder=django.core.serializers.json.DjangoJSONEncoder, null=True),
                ),
                ("request_id", models.CharField(blank=True, max_length=128)),
                ("ip", models.GenericIPAddressField(null=True, verbose_name="IP address")),
                (
                    "source",
                    models.CharField(
                        choices=[("admin", "Admin"), ("api", "Api"), ("cli", "Cli"), ("system", "System")],
                        max_length=10,
                    ),
                ),
            ],
            options={
                "verbose_name": "audit entry",
                "verbose_name_plural": "audit log",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(fields=["-created_at", "-id"], name="audit_newest"),
                    models.Index(fields=["target_label", "target_id"], name="audit_target"),
                    models.Index(fields=["actor", "created_at"], name="audit_actor"),
                    models.Index(fields=["action", "created_at"], name="audit_action"),
                    models.Index(fields=["request_id"], name="audit_request"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("source__in", ["admin", "api", "cli", "system"])),
                        name="audit_known_source",
                    )
                ],
            },
        ),
    ]
