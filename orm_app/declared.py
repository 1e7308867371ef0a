"""`class User(Model)` with `_table_name` and `_fields`: an ordinary Django model, declared in SQL's words.

Its `save`, `delete` and `refresh_from_db` work in sync code and are awaited within a running loop; `save` gives the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from django.apps import apps
from django.db import models, router
from django.db.models.base import ModelBase

from . import mongo
from .awaiting import dual, refuse_django_within_loop
from .fields import Field


class DeclaredBase(ModelBase):
    """The metaclass: `_fields` become Django's fields, `_table_name` becomes Meta.db_table, checks constraints."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any], **options: Any
    ) -> DeclaredBase:
        if not any(isinstance(base, DeclaredBase) for base in bases):  # Model itself
            return super().__new__(cls, name, bases, attributes, **options)
        fields, inherited = attributes.get("_fields"), _abstract_fields(bases)
        if fields is None and not inherited and "_table_name" not in attributes:
            return super().__new__(cls, name, bases, attributes, **options)
        declared = attributes | ({} if fields is None else _django_fields(name, fields, attributes))
        declared["Meta"] = _meta(name, bases, attributes, inherited | dict(fields or {}))
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
        alias = kwargs.get("using") or router.db_for_write(type(self), instance=self)
        with mongo.errors_as_djangos_on(alias):
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


def _abstract_fields(bases: tuple[type, ...]) -> dict[str, Field]:
    """Of the abstract models above: their columns are this table's, and so are their checks."""
    above = [one for base in reversed(bases) for one in reversed(base.__mro__)]
    declared = [one for one in above if isinstance(one, DeclaredBase) and one._meta.abstract]
    return {name: field for one in declared for name, field in vars(one).get("_fields", {}).items()}


def _meta(
    model: str, bases: tuple[type, ...], attributes: Mapping[str, Any], fields: Mapping[str, Field]
) -> type:
    given = attributes.get("Meta") or _inherited_meta(bases)
    own = {name: value for name, value in vars(given).items() if not name.startswith("__")} if given else {}
    if own.get("abstract") or own.get("proxy"):
        return type("Meta", (given,) if given else (), own)
    table = attributes.get("_table_name") or model.lower()
    if "_fields" in attributes or "_table_name" in attributes:
        own.setdefault("db_table", table)
    checks = [field.constraint(table, name) for name, field in fields.items()]
    others = own.get("constraints", getattr(given, "constraints", ()))
    own["constraints"] = [*others, *(check for check in checks if check is not None)]
    return type("Meta", (given,) if given else (), own)


def _inherited_meta(bases: tuple[type, ...]) -> type | None:
    """As in Django: that of the first abstract base, for a class without one of its own."""
    metas: list[Any] = [getattr(base, "_meta", None) for base in bases]  # models.Model itself has none
    above: list[Any] = [base for base, meta in zip(bases, metas, strict=True) if meta and meta.abstract]
    return next((base.Meta for base in above if hasattr(base, "Meta")), None)
