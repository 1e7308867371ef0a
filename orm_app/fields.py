"""`Field("VARCHAR(50)", unique=True, nullable=False)`: a column in SQL's words → a Django field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models

from . import check_text, sql_types
from .columns import near_text

_MISSING: Any = object()
_ON_DELETE = {
    "CASCADE": models.CASCADE,
    "SET NULL": models.SET_NULL,
    "SET DEFAULT": models.SET_DEFAULT,
    "RESTRICT": models.RESTRICT,
    "PROTECT": models.PROTECT,
    "NO ACTION": models.DO_NOTHING,
}
_OPTIONS = (
    "primary_key",
    "unique",
    "nullable",
    "default",
    "index",
    "references",
    "on_delete",
    "related_name",
    "check",
    "choices",
    "comment",
)
_AUTO = (models.AutoField, models.BigAutoField, models.SmallAutoField)


class Field:
    """One column of a declared model's `_fields`.

    nullable: as in SQL, unless False a column may be NULL (a primary key never is). default: a value, a function, or
    "CURRENT_TIMESTAMP". references: a model, its label "app.Model", or "self"; on_delete: CASCADE, SET NULL,
    SET DEFAULT, RESTRICT (when left out), PROTECT or NO ACTION. check: `"price >= 0"` or a Q. choices: values, or
    (value, label) pairs. Raises ValueError for an unknown type, TypeError for an unknown option, with the near ones.
    """

    def __init__(self, sql_type: str, **options: Any) -> None:
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}: {near_text(unknown[0], _OPTIONS)}")
        self.sql_type = sql_type
        self._options = options
        self._class, self._size = sql_types.field_class(sql_type, is_primary=bool(options.get("primary_key")))
        self._refuse_contradictions()

    def __repr__(self) -> str:
        return f"Field({self.sql_type!r}{''.join(f', {k}={v!r}' for k, v in self._options.items())})"

    def django_name(self, name: str) -> str:
        """`user_id` that references a user is Django's field `user`, whose column is `user_id`."""
        return name.removesuffix("_id") if self._references else name

    @property
    def is_object_id_key(self) -> bool:
        return bool(self._options.get("primary_key")) and self.sql_type.strip().upper() == sql_types.OBJECTID

    @property
    def is_numbered(self) -> bool:
        """The database numbers its rows: SERIAL."""
        return self._class in _AUTO

    def django_field(self, name: str, *, is_document: bool = False) -> models.Field:
        """is_document: of a model in MongoDB, which has no defaults of its own."""
        options = self._common() | self._default()
        if is_document:
            options.pop("db_default", None)
        if self._references:
            return self._relation(name, options)
        return self._class(**options, **self._size)

    def constraint(self, table: str, name: str) -> models.CheckConstraint | None:
        check = self._options.get("check")
        if check is None:
            return None
        condition = check_text.parse(check) if isinstance(check, str) else check
        return models.CheckConstraint(condition=condition, name=f"{table}_{name}_check"[:60])

    @property
    def _references(self) -> Any:
        return self._options.get("references")

    @property
    def _is_nullable(self) -> bool:
        return bool(self._options.get("nullable", True)) and not self._options.get("primary_key")

    def _common(self) -> dict[str, Any]:
        given = self._options
        found: dict[str, Any] = {}
        if given.get("primary_key"):
            found["primary_key"] = True
        elif given.get("unique"):
            found["unique"] = True
        elif given.get("index") is not None:
            found["db_index"] = bool(given["index"])
        if self._is_nullable:
            found |= {"null": True, "blank": True}
        elif "default" in given:
            found["blank"] = True  # a form may leave it to the default
        if given.get("choices") is not None:
            found["choices"] = _pairs(given["choices"])
        if given.get("comment"):
            found |= {"db_comment": given["comment"], "help_text": given["comment"]}
        return found

    def _default(self) -> dict[str, Any]:
        default = self._options.get("default", _MISSING)
        return {} if default is _MISSING else sql_types.default_options(self._class, default)

    def _relation(self, name: str, options: dict[str, Any]) -> models.Field:
        # The word may be written in either case and with any spaces, as in SQL.
        word = " ".join(str(self._options.get("on_delete", "RESTRICT")).upper().replace("_", " ").split())
        options |= {"on_delete": _ON_DELETE[word], "db_column": name}
        if self._options.get("related_name"):
            options["related_name"] = self._options["related_name"]
        # Django derives a relation's type from what it points at; an index it has by itself.
        if options.pop("unique", False) or options.get("primary_key"):
            return models.OneToOneField(self._references, **options)
        return models.ForeignKey(self._references, **options)

    def _refuse_contradictions(self) -> None:
        given = self._options
        if issubclass(self._class, _AUTO) and not given.get("primary_key"):
            raise ValueError(f"{self.sql_type} numbers rows by itself: it needs primary_key=True")
        if given.get("primary_key") and given.get("nullable"):
            raise ValueError("a primary key is never NULL: leave nullable out")
        if self._references is None:
            lost = [name for name in ("on_delete", "related_name") if given.get(name) is not None]
            if lost:
                raise TypeError(f"{lost[0]} needs references=…")
            return
        word = " ".join(str(given.get("on_delete", "RESTRICT")).upper().replace("_", " ").split())
        if word not in _ON_DELETE:
            raise ValueError(f"unknown on_delete {given['on_delete']!r}: {near_text(word, _ON_DELETE)}")
        if word == "SET NULL" and not self._is_nullable:
            raise ValueError('on_delete="SET NULL" needs a nullable column')


def _pairs(choices: Iterable[Any]) -> list[tuple[Any, Any]]:
    return [choice if isinstance(choice, tuple) else (choice, str(choice)) for choice in choices]
