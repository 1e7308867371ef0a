"""Many rows at once: `bulk_insert`, and `upsert` by each engine's own statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from django.db import connections, models, router
from django.db.models.query import QuerySet
from django.db.transaction import atomic

from . import columns, mongo, transactions

# In one INSERT; larger ones gain nothing, and rows of a generator are in memory only so many at a time.
_BATCH_ROWS = 25_000
_BATCH_DOCUMENTS = 1_000  # in one transaction of MongoDB, whose manual advises no more


@dataclass(frozen=True, slots=True)
class UpsertPlan:
    """update: None for every column that a row gives."""

    queryset: QuerySet
    unique: tuple[str, ...]
    update: tuple[str, ...] | None

    @property
    def model(self) -> type[models.Model]:
        return self.queryset.model


def bulk_insert(queryset: QuerySet, rows: Iterable[Any], batch_size: int | None) -> int:
    model, alias = queryset.model, _write_alias(queryset)
    manager = model._base_manager.using(alias)

    def store(batch: list[Any]) -> int:
        return len(manager.bulk_create(instances(model, batch), batch_size=batch_size))

    return _stored(store, rows, alias, batch_size)


def _stored(
    store: Callable[[list[Any]], int], rows: Iterable[Any], alias: str, batch_size: int | None
) -> int:
    if batch_size is not None and batch_size < 1:
        raise ValueError("batch_size is a whole number from 1")
    if not mongo.is_on(alias):
        with atomic(using=alias, savepoint=False):
            return sum(store(batch) for batch in _batches(rows, max(batch_size or 0, _BATCH_ROWS)))

    def whole(batch: list[Any]) -> int:
        with mongo.errors_as_djangos(), mongo.atomic_where_possible(alias):
            return store(batch)

    # Of two that change one document at once, MongoDB lets one fail instead of making it wait.
    return sum(
        transactions.again_after_conflicts(partial(whole, batch), alias)
        for batch in _batches(rows, _BATCH_DOCUMENTS)
    )


def upsert_plan(queryset: QuerySet, unique: str | Iterable[str], update: Iterable[str] | None) -> UpsertPlan:
    """Raises UnknownField, and ValueError when no unique constraint is of exactly these fields."""
    model = queryset.model
    keys = tuple(_column(model, name).name for name in ([unique] if isinstance(unique, str) else unique))
    if not keys or not any(set(keys) == known for known in _unique_sets(model)):
        known = " · ".join("+".join(sorted(names)) for names in _unique_sets(model))
        raise ValueError(f"no unique constraint of {model.__name__} is of {'+'.join(keys)}: there is {known}")
    changed = None if update is None else tuple(_column(model, name).name for name in update)
    if changed is not None and not changed:
        raise ValueError("upsert with nothing to update: name a field, or leave `update` out")
    return UpsertPlan(queryset, keys, changed)


def upsert(plan: UpsertPlan, rows: Iterable[Any], batch_size: int | None) -> int:
    alias = _write_alias(plan.queryset)

    def store(batch: list[Any]) -> int:
        made = _last_of_each(plan, instances(plan.model, batch))
        update = plan.update or _given(plan, batch)
        _refuse_missing(plan.model, batch, update)
        _upsert(plan, made, update, alias, batch_size)
        return len(batch)

    return _stored(store, rows, alias, batch_size)


def _upsert(
    plan: UpsertPlan, rows: list[Any], update: tuple[str, ...], alias: str, batch_size: int | None
) -> None:
    if mongo.is_on(alias):
        mongo.upsert(plan.model, rows, alias, plan.unique, update)
        return
    has_target = connections[alias].features.supports_update_conflicts_with_target
    plan.model._base_manager.using(alias).bulk_create(
        rows,
        batch_size=batch_size,
        update_conflicts=True,
        update_fields=update,
        unique_fields=plan.unique if has_target else None,
    )


def instances(model: type[models.Model], batch: list[Any]) -> list[models.Model]:
    """Raises UnknownField for a dict's key that is no column."""
    known: set[str] = set()
    made = []
    for row in batch:
        if type(row) is not dict and not isinstance(
            row, Mapping
        ):  # the first is what it is, and the quicker question
            made.append(row)
            continue
        if not known.issuperset(row):
            for name in row:
                _column(model, name)
            known.update(row)
        made.append(model(**row))
    return made


def _batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    given = iter(rows)
    while batch := list(islice(given, size)):
        yield batch


def _last_of_each(plan: UpsertPlan, rows: list[models.Model]) -> list[models.Model]:
    """PostgreSQL refuses to touch a row twice in one statement, where the others let the last one win."""
    names = [plan.model._meta.get_field(name).attname for name in plan.unique]
    last: dict[object, models.Model] = {}
    for row in rows:
        key = tuple(getattr(row, name) for name in names)
        # A NULL is equal to nothing; such rows are all new.
        last.pop(key, None)
        last[object() if None in key else key] = row
    return list(last.values())


def _given(plan: UpsertPlan, batch: list[Any]) -> tuple[str, ...]:
    columns_of_all = [field for field in plan.model._meta.local_concrete_fields if not field.primary_key]
    names = [field.name for field in columns_of_all if not getattr(field, "auto_now_add", False)]
    if all(isinstance(row, Mapping) for row in batch):
        given = {_column(plan.model, name).name for row in batch for name in row}
        # What saves its own time does so on a change too.
        names = [name for name in names if name in given | _moving(plan.model)]
    found = tuple(name for name in names if name not in plan.unique)
    return found or plan.unique


def _refuse_missing(model: type[models.Model], batch: list[Any], update: tuple[str, ...]) -> None:
    """One statement changes the same columns of each row: what a dict leaves out would be overwritten by its default."""
    moving = _moving(model)
    for names in dict.fromkeys(tuple(row) for row in batch if isinstance(row, Mapping)):
        given = {_column(model, name).name for name in names} | moving
        missing = [name for name in update if name not in given]
        if missing:
            raise ValueError(
                f"a row without {missing[0]!r}, which this upsert changes: its default would overwrite what is stored. "
                "Give each row the same fields, or say what changes: update=[…]"
            )


def _moving(model: type[models.Model]) -> set[str]:
    return {field.name for field in model._meta.concrete_fields if getattr(field, "auto_now", False)}


def _column(model: type[models.Model], name: str) -> Any:
    for field in model._meta.concrete_fields:
        if name in (field.name, field.attname):
            return field
    if name == "pk":
        return model._meta.pk
    known = [known for field in model._meta.concrete_fields for known in {field.name, field.attname}]
    raise columns.UnknownField(f"{model.__name__} has no {name!r}: {columns.near_text(name, known)}")


def _unique_sets(model: type[models.Model]) -> list[set[str]]:
    single = [{field.name} for field in model._meta.concrete_fields if field.unique]
    together = [set(names) for names in model._meta.unique_together]
    constraints = [set(constraint.fields) for constraint in model._meta.total_unique_constraints]
    composite = {field.name for field in model._meta.pk_fields}
    return [*single, *together, *constraints, *([composite] if len(composite) > 1 else [])]


def _write_alias(queryset: QuerySet) -> str:
    return queryset._db or router.db_for_write(queryset.model)
