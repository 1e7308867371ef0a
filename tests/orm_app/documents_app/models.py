"""Models in MongoDB: declared in SQL's words, and ordinary ones."""

from __future__ import annotations

from django.db import models

from orm_app import Field, Model


class Author(Model):
    _table_name = "authors"
    _fields = {
        "id": Field("OBJECTID", primary_key=True),
        "name": Field("VARCHAR(50)", unique=True, nullable=False),
        "joined_at": Field("TIMESTAMP", default="CURRENT_TIMESTAMP"),
        "is_active": Field("BOOLEAN", default=True),
    }


class Review(Model):
    _fields = {
        "code": Field("UUID", primary_key=True, default="gen_random_uuid()"),
        "note_id": Field("OBJECTID", references="documents_app.Note", nullable=False, on_delete="CASCADE"),
        "seen_id": Field("OBJECTID"),
        "details": Field("JSONB", default={}),
    }


class Note(models.Model):
    """An ordinary Django model: its key is an ObjectId because its app says so."""

    author = models.ForeignKey(Author, models.CASCADE, null=True, related_name="notes")
    title = models.CharField(max_length=80)
    score = models.IntegerField(null=True)
    place = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["author", "title"], name="note_once")]

    def __str__(self) -> str:
        return self.title
