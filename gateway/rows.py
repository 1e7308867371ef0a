"""Entries and rows: one is read as the other."""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models as orm

from . import models
from .entries import KINDS, SETTING, Entry, Fields

Told = tuple[str, str, dict[str, Any]]  # kind, name and fields

_NAMED: dict[str, tuple[type[orm.Model], str]] = {
    "setting": (models.Configuration, ""),
    "issuer": (models.JwtIssuer, "name"),
    "plan": (models.Plan, "name"),
    "service": (models.Service, "name"),
    "target": (models.Target, ""),
    "consumer": (models.Consumer, "name"),
    "key": (models.ApiKey, "digest"),
    "route": (models.Route, "name"),
    "transform": (models.Transform, "name"),
}
_KIND_OF = {model: kind for kind, (model, _) in _NAMED.items()}
_MACHINE_WRITTEN = {"last_used_at", "version", "changed_at"}
# A document that does not say them leaves them as they are: what is no part of one, and what operators turn by hand.
_KEPT = {
    "issuer": {"secret"},
    "target": {"state"},
    "key": {"prefix", "expires_at", "revoked_at"},
}
_CHUNK = 500  # names in one query
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class _Column:
    """kind: of the entry that it names, "" for a value."""

    field: orm.Field[Any, Any]
    kind: str

    @property
    def name(self) -> str:
        return self.field.name


class _Moved(Exception):
    """A row names one that was not there a moment ago."""


@functools.cache
def columns(kind: str) -> tuple[_Column, ...]:
    model, name = _NAMED[kind]
    return tuple(
        _Column(field, _KIND_OF[field.related_model] if field.is_relation else "")
        for field in model._meta.concrete_fields
        if not field.primary_key and field.name != name and field.name not in _MACHINE_WRITTEN
    )


@functools.cache
def initial(kind: str) -> dict[str, Any]:
    """What a new row has by itself, apart from the time. Shared: copy what is mutable."""
    return {
        column.name: None if column.kind else column.field.get_default()
        for column in columns(kind)
        if column.name != "created_at"
        and (column.field.has_default() or column.field.null or column.field.blank)
    }


@functools.cache
def defaults(kind: str) -> dict[str, Any]:
    """What a document that names such an entry says by not saying it."""
    kept = _KEPT.get(kind, set())
    return {name: value for name, value in initial(kind).items() if name not in kept}


def entry_of(row: orm.Model) -> Told:
    kind = kind_of(row)
    fields = {}
    for column in columns(kind):
        value = getattr(row, column.name)
        fields[column.name] = (value and _name(value)) if column.kind else _plain(value)
    return kind, _name(row), fields


def kind_of(row: orm.Model) -> str:
    """Raises TypeError for a row that is no part of the configuration."""
    try:
        return _KIND_OF[type(row)]
    except KeyError:
        raise TypeError(f"{row._meta.label} is no part of the configuration") from None


def _name(row: Any) -> str:
    kind = kind_of(row)
    if kind == "setting":
        return SETTING[1]
    if kind == "target":
        return f"{row.service.name} {row.url}"
    return str(getattr(row, _NAMED[kind][1]))


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


# --- all of them -----------------------------------------------------------------------------------------------------
def current() -> dict[Entry, dict[str, Any]]:
    """What the database holds, in one query a kind; those of a kind by age."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return _read()
        except _Moved:  # somebody changed it between two of the queries
            continue
    return _read()


def _read() -> dict[Entry, dict[str, Any]]:
    entries: dict[Entry, dict[str, Any]] = {SETTING: initial("setting").copy()}
    names: dict[str, dict[Any, str]] = {}
    for kind in KINDS:
        model, name = _NAMED[kind]
        found = columns(kind)
        asked = ("pk", name or "pk", *(column.field.attname for column in found))
        names[kind] = {}
        for pk, own, *values in model._default_manager.order_by("pk").values_list(*asked):
            fields = {c.name: _read_value(c, value, names) for c, value in zip(found, values, strict=True)}
            own = own if name else SETTING[1] if kind == "setting" else f"{fields['service']} {fields['url']}"
            entries[kind, own] = fields
            names[kind][pk] = own
    return entries


def _read_value(column: _Column, value: Any, names: dict[str, dict[Any, str]]) -> Any:
    if not column.kind or value is None:
        return _plain(value)
    try:
        return names[column.kind][value]
    except KeyError:
        raise _Moved from None


# --- one of them -----------------------------------------------------------------------------------------------------
class Rows:
    """Rows by entry, as far as they were looked up: many are looked up together."""

    def __init__(self) -> None:
        self._known: dict[Entry, orm.Model | None] = {}

    def look_up(self, entries: Iterable[Entry]) -> None:
        by_kind: dict[str, list[str]] = {}
        for kind, name in entries:
            if (kind, name) not in self._known:
                self._known[kind, name] = None
                by_kind.setdefault(kind, []).append(name)
        for kind, names in by_kind.items():
            for start in range(0, len(names), _CHUNK):
                for row in _found(kind, names[start : start + _CHUNK]):
                    # MariaDB finds "a" where "A" was asked for.
                    if self._known.get((kind, _name(row)), row) is None:
                        self._known[kind, _name(row)] = row

    def find(self, kind: str, name: str) -> orm.Model | None:
        self.look_up([(kind, name)])
        return self._known[kind, name]

    def filled(self, kind: str, name: str, fields: Fields) -> orm.Model:
        """The row of that name, a new one if there is none, with these values; neither checked nor saved. Raises
        ValidationError for a name that nobody has."""
        row = self.find(kind, name) or _blank(kind, name)
        for column in columns(kind):
            if column.name not in fields:
                continue
            value = fields[column.name]
            if column.kind and value is not None:
                value = self.find(column.kind, value)
                if value is None:
                    told = f"there is no {column.kind} {fields[column.name]!r}"
                    raise ValidationError({column.name: told})
            setattr(row, column.name, value if column.kind else column.field.to_python(copy.deepcopy(value)))
        return row

    def put(self, row: orm.Model) -> None:
        self._known[kind_of(row), _name(row)] = row

    def drop(self, kind: str, name: str) -> None:
        self._known[kind, name] = None


def _found(kind: str, names: list[str]) -> Iterable[orm.Model]:
    model, name = _NAMED[kind]
    if kind == "setting":
        return model._default_manager.filter(pk=1)
    if kind == "target":
        services = {own.partition(" ")[0] for own in names}
        return model._default_manager.filter(service__name__in=services).select_related("service")
    links = [column.name for column in columns(kind) if column.kind]
    return model._default_manager.filter(**{f"{name}__in": names}).select_related(*links)


def _blank(kind: str, name: str) -> orm.Model:
    model, field = _NAMED[kind]
    return model(**{field: name}) if field else model()


def check(
    kind: str, name: str, fields: Fields, others: Mapping[Entry, Fields] | None = None
) -> dict[str, list[str]]:
    """What the model finds wrong with an entry, by field ("" for the whole). Without a query: names are told apart by
    their look-up, and the database holds its constraints. others: entries that this one may name."""
    row: Any = _blank(kind, name)
    errors: dict[str, Any] = {}
    links = [column.name for column in columns(kind) if column.kind]
    for column in columns(kind):
        if column.kind and fields.get(column.name) is not None:
            setattr(row, column.name, _stand_in(column.kind, fields[column.name], others or {}))
        elif not column.kind and column.name in fields:
            setattr(row, column.name, column.field.to_python(fields[column.name]))
        elif column.name == "secret":
            row.secret = None  # not said, and so not looked at
    for clean in (lambda: row.clean_fields(exclude=links), row.clean):
        try:
            clean()
        except ValidationError as error:
            errors = error.update_error_dict(errors)
    return told(ValidationError(errors)) if errors else {}


def _stand_in(kind: str, name: str, others: Mapping[Entry, Fields]) -> orm.Model:
    """For a row that is named, with as much of it as the naming one's checks read."""
    fields = others.get((kind, name), {})
    read = {field: fields[field] for field in ("path", "path_kind") if field in fields}
    return _NAMED[kind][0](pk=-1, **read)


def told(error: ValidationError) -> dict[str, list[str]]:
    """Messages by field, "" for the whole."""
    if not hasattr(error, "error_dict"):
        return {"": error.messages}
    return {"" if field == NON_FIELD_ERRORS else field: texts for field, texts in error.message_dict.items()}


def dependents(row: orm.Model, *, owned: bool = False) -> list[orm.Model]:
    """Rows that name this one. owned: those alone that go with it."""
    found: list[orm.Model] = []
    for relation in row._meta.related_objects:
        if relation.related_model in _KIND_OF and (not owned or relation.on_delete is orm.CASCADE):
            links = [column.name for column in columns(_KIND_OF[relation.related_model]) if column.kind]
            rows = relation.related_model._default_manager.filter(**{relation.field.name: row})
            found += rows.select_related(*links)
    return found


def fresh(shown: Collection[orm.Model]) -> list[orm.Model]:
    """The same rows, all of one model, as they are now; without those that are gone."""
    found: list[orm.Model] = []
    pks = [row.pk for row in shown]
    for model in {type(row) for row in shown}:
        links = [column.name for column in columns(_KIND_OF[model]) if column.kind]
        found += model._default_manager.filter(pk__in=pks).select_related(*links)
    return found


def written_fields(row: orm.Model) -> list[str]:
    """All but what the machine writes by itself meanwhile."""
    kind = kind_of(row)
    own = _NAMED[kind][1]
    return [*([own] if own else []), *(column.name for column in columns(kind))]
