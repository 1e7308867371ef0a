"""`class User(Model)` with `_table_name` and `_fields`: an ordinary Django model, declared in SQL's words.

Its `save`, `delete` and `refresh_from_db` work in sync code and are awaited within a running loop; `save` gives the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from django.apps import apps
from django.db import models
from django.db.models.base import ModelBase

from . import mongo
from .awaiting import dual, refuse_django_within_loop
from .fields import Field


class DeclaredBase(ModelBase):
    """The metaclass: `_fields` become Django's fields, `_table_name` becomes Meta.db_table, checks constraints."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any], **options: Any
    ) -> DeclaredBase:
        fields = attributes.get("_fields")
        if fields is None:
            return super().__new__(cls, name, bases, attributes, **options)
        declared = attributes | _django_fields(name, fields, attributes)
        declared["Meta"] = _meta(attributes, fields, attributes.get("_table_name") or name.lower())
        return super().__new__(cls, name, bases, declared, **options)


class Model(models.Model, metaclass=DeclaredBase):
    """Fields that the text of a model leaves out (`id`) are Django's; methods, Meta and managers are as in any model."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> Any:
        """This row, stored. Arguments as in Django's save."""
        refuse_django_within_loop(f"{type(self).__name__}.save")
        return dual(lambda: self._stored(*args, **kwargs), f"{type(self).__name__}.save")

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        refuse_django_within_loop(f"{type(self).__name__}.delete")
        plain = super().delete
        return dual(lambda: plain(*args, **kwargs), f"{type(self).__name__}.delete")

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> Any:
        refuse_django_within_loop(f"{type(self).__name__}.refresh_from_db")
        plain = super().refresh_from_db
        return dual(lambda: plain(*args, **kwargs), f"{type(self).__name__}.refresh_from_db")

    def _stored(self, *args: Any, **kwargs: Any) -> Self:
        super().save(*args, **kwargs)
        return self


def _django_fields(model: str, fields: object, attributes: Mapping[str, Any]) -> dict[str, models.Field]:
    if not isinstance(fields, Mapping):
        raise TypeError(f"{model}._fields is a dict of name → Field, not {type(fields).__name__}")
    found: dict[str, models.Field] = {}
    is_document = _is_document(fields, attributes)
    for name, field in fields.items():
        if not isinstance(field, Field):
            raise TypeError(f'{model}._fields[{name!r}] is a Field("…"), not {field!r}')
        own = field.django_name(name)
        if own in attributes or own in found:
            raise TypeError(f"{model} declares {own!r} twice")
        if is_document and field.is_numbered:
            raise ValueError(f'{model}.{name}: MongoDB numbers no rows: Field("OBJECTID", primary_key=True)')
        found[own] = field.django_field(name, is_document=is_document)
    return found


def _is_document(fields: Mapping[str, object], attributes: Mapping[str, Any]) -> bool:
    """By its key, or by what its app says keys are: which database the app is in is not known yet."""
    if any(isinstance(field, Field) and field.is_object_id_key for field in fields.values()):
        return True
    config = apps.get_containing_app_config(str(attributes.get("__module__")))
    return config is not None and config.default_auto_field == mongo.AUTO_FIELD


def _meta(attributes: Mapping[str, Any], fields: Mapping[str, Field], table: str) -> type:
    given = attributes.get("Meta")
    own = {name: value for name, value in vars(given).items() if not name.startswith("__")} if given else {}
    if not own.get("abstract"):
        own.setdefault("db_table", table)
    checks = [field.constraint(table, name) for name, field in fields.items()]
    own["constraints"] = [*own.get("constraints", ()), *(check for check in checks if check is not None)]
    return type("Meta", (given,) if given else (), own)
