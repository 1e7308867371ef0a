import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="User",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("username", models.CharField(max_length=50, unique=True)),
                ("email", models.CharField(max_length=100, unique=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        blank=True,
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        null=True,
                    ),
                ),
                ("is_active", models.BooleanField(blank=True, db_default=True, default=True, null=True)),
            ],
            options={
                "db_table": "users",
            },
        ),
        migrations.CreateModel(
            name="Everything",
            fields=[
                ("code", models.UUIDField(blank=True, default=uuid.uuid4, primary_key=True, serialize=False)),
                ("big", models.BigIntegerField(blank=True, db_default=0, default=0, null=True)),
                ("number", models.IntegerField(blank=True, null=True)),
                ("text", models.TextField(blank=True, default="", null=True)),
                ("day", models.DateField(blank=True, default=django.utils.timezone.localdate, null=True)),
                ("hour", models.TimeField(blank=True, null=True)),
                ("ratio", models.FloatField(blank=True, null=True)),
                ("plain", models.DecimalField(blank=True, decimal_places=10, max_digits=38, null=True)),
                ("real", models.FloatField(blank=True, null=True)),
                ("float", models.FloatField(blank=True, null=True)),
                ("body", models.BinaryField(blank=True, null=True)),
                ("raw", models.BinaryField(blank=True, null=True)),
                ("document", models.JSONField(blank=True, null=True)),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        db_column="parent",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        to="snippets_app.everything",
                    ),
                ),
                (
                    "owner",
                    models.OneToOneField(
                        blank=True,
                        db_column="owner",
                        null=True,
                        on_delete=django.db.models.deletion.RESTRICT,
                        to="snippets_app.user",
                    ),
                ),
            ],
            options={
                "db_table": "everything",
            },
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        blank=True,
                        choices=[("shop", "shop"), ("gift", "gift")],
                        db_default="shop",
                        default="shop",
                        max_length=4,
                    ),
                ),
                ("amount", models.DecimalField(decimal_places=2, max_digits=10)),
                (
                    "priority",
                    models.SmallIntegerField(
                        blank=True, db_comment="1 is first", db_index=True, help_text="1 is first", null=True
                    ),
                ),
                ("paid_at", models.DateTimeField(blank=True, null=True)),
                ("details", models.JSONField(blank=True, default=dict, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        db_column="user_id",
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="orders",
                        to="snippets_app.user",
                    ),
                ),
            ],
            options={
                "db_table": "orders",
                "indexes": [models.Index(fields=["priority", "id"], name="orders_priority_id")],
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("amount__gte", 0)), name="orders_amount_check")
                ],
            },
        ),
        migrations.CreateModel(
            name="Article",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("title", models.CharField(max_length=80)),
                ("score", models.IntegerField(null=True)),
                ("place", models.IntegerField(default=0)),
                ("changed_at", models.DateTimeField(auto_now=True)),
                (
                    "author",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="articles",
                        related_query_name="article",
                        to="snippets_app.user",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["-place", "id"], name="article_place_id")],
                "constraints": [models.UniqueConstraint(fields=("author", "title"), name="article_once")],
            },
        ),
    ]
