"""The models of the customer's text, unchanged, and others for the rest of the vocabulary."""

from __future__ import annotations

from django.db import models

from orm_app import Field, Model


# --- the customer's text ---
class User(Model):
    _table_name = "users"
    _fields = {
        "id": Field("SERIAL", primary_key=True),
        "username": Field("VARCHAR(50)", unique=True, nullable=False),
        "email": Field("VARCHAR(100)", unique=True, nullable=False),
        "created_at": Field("TIMESTAMP", default="CURRENT_TIMESTAMP"),
        "is_active": Field("BOOLEAN", default=True)
    }  # fmt: skip


# --- more of it ---
class Order(Model):
    _table_name = "orders"
    _fields = {
        "id": Field("BIGSERIAL", primary_key=True),
        "user_id": Field(
            "INTEGER", references=User, nullable=False, on_delete="CASCADE", related_name="orders"
        ),
        "kind": Field("CHAR(4)", nullable=False, default="shop", choices=["shop", "gift"]),
        "amount": Field("DECIMAL(10, 2)", nullable=False, check="amount >= 0"),
        "priority": Field("SMALLINT", index=True, comment="1 is first"),
        "paid_at": Field("TIMESTAMPTZ"),
        "details": Field("JSONB", default={}),
    }

    class Meta:
        indexes = [models.Index(fields=["priority", "id"], name="orders_priority_id")]

    def __str__(self) -> str:
        return f"order {self.pk}"


class Everything(Model):
    _fields = {
        "code": Field("UUID", primary_key=True, default="gen_random_uuid()"),
        "big": Field("BIGINT", default=0),
        "number": Field("INTEGER"),
        "text": Field("TEXT", default=""),
        "day": Field("DATE", default="CURRENT_DATE"),
        "hour": Field("TIME"),
        "ratio": Field("DOUBLE PRECISION"),
        "plain": Field("NUMERIC"),
        "real": Field("REAL"),
        "float": Field("FLOAT"),
        "body": Field("BLOB"),
        "raw": Field("BYTEA"),
        "document": Field("JSON"),
        "parent": Field("UUID", references="self", on_delete="SET NULL"),
        "owner": Field("INTEGER", references="snippets_app.User", unique=True),
    }


class Article(models.Model):
    """An ordinary Django model: it works in db.query the same way."""

    title = models.CharField(max_length=80)
    author = models.ForeignKey(
        User, models.CASCADE, null=True, related_name="articles", related_query_name="article"
    )
    score = models.IntegerField(null=True)
    place = models.IntegerField(default=0)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes = [models.Index(fields=["-place", "id"], name="article_place_id")]
        constraints = [models.UniqueConstraint(fields=["author", "title"], name="article_once")]

    def __str__(self) -> str:
        return self.title
