from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gateway", "0008_ended_keys")]

    operations = [
        migrations.CreateModel(
            name="TokenCut",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("issuer", models.CharField(max_length=100)),
                (
                    "subject",
                    models.CharField(help_text="`sub`; of our own tokens the user's id.", max_length=255),
                ),
                ("issued_until", models.DateTimeField()),
                ("expires_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "verbose_name": "subject that is cut off",
                "verbose_name_plural": "subjects cut off",
                "ordering": ("-pk",),
                "indexes": [models.Index(fields=["issuer", "subject"], name="gateway_cut_subject")],
            },
        ),
    ]
