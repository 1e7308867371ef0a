"""Django's operations → the changes they make. The one module of the lint that knows Django.

No database is asked: the project state before the migration says what the tables look like.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from django.db import models
from django.db.migrations import Migration
from django.db.migrations import operations as o
from django.db.migrations.state import ProjectState
from django.db.models.fields import NOT_PROVIDED

from orm_app.sql_dialects import MARIADB, portable
from orm_app.sql_operations import SQL
from orm_app.sql_statements import POSTGRESQL, split

from . import changes as c
from . import sql
from .changes import Change

_IMPORTS_MODELS = re.compile(
    r"^\s+(?:from\s+\S*\bmodels\b\S*\s+import|from\s+\S+\s+import\s+models\b)", re.MULTILINE
)
_VOLATILE = {"RandomUUID", "Random", "UUID4", "UUID7", "ClockTimestamp"}
_TYPES = {"TextField": "text"} | dict.fromkeys(
    ("CharField", "SlugField", "FileField", "FilePathField"), "varchar({0.max_length})"
)


def read(migration: Migration, state: ProjectState, dialect: str) -> list[Change]:
    """state: before the migration; it is changed to the one after it."""
    found: list[Change] = []
    for operation in migration.operations:
        found += _read(operation, migration.app_label, state, dialect)
        operation.state_forwards(migration.app_label, state)
    return found


def _read(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    if isinstance(operation, o.SeparateDatabaseAndState):
        inner = state.clone()
        for one in operation.database_operations:
            yield from _read(one, app, inner, dialect)
            one.state_forwards(app, inner)
        return
    for kind, reader in _READERS:
        if isinstance(operation, kind):
            yield from reader(operation, app, state, dialect)
            return


# --- tables --------------------------------------------------------------------------------------------------------------
def _create(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    options = operation.options
    if options.get("proxy") or options.get("managed") is False:
        return
    yield Change(
        c.CREATE_TABLE,
        options.get("db_table") or f"{app}_{operation.name_lower}",
        describes=operation.describe(),
    )
    for name, field in operation.fields:
        if field.many_to_many:
            yield Change(
                c.CREATE_TABLE, f"{options.get('db_table') or f'{app}_{operation.name_lower}'}_{name}"
            )


def _delete(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    if _is_managed(state, app, operation.name_lower):
        yield Change(c.DROP_TABLE, _table(state, app, operation.name_lower), describes=operation.describe())


def _rename_model(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    model = state.models.get((app, operation.old_name_lower))
    if model is not None and not model.options.get("db_table"):
        yield Change(
            c.RENAME_TABLE, _table(state, app, operation.old_name_lower), to=f"{app}_{operation.new_name_lower}",
            describes=operation.describe(),
        )  # fmt: skip


def _rename_table(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    old, new = _table(state, app, operation.name_lower), operation.table or f"{app}_{operation.name_lower}"
    if old != new:
        yield Change(c.RENAME_TABLE, old, to=new, describes=operation.describe())


# --- columns -------------------------------------------------------------------------------------------------------------
def _add(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    field, table = operation.field, _table(state, app, operation.model_name_lower)
    if not _is_managed(state, app, operation.model_name_lower):
        return
    if field.many_to_many:
        yield Change(c.CREATE_TABLE, f"{table}_{operation.name}", describes=operation.describe())
        return
    has_default = getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    yield Change(
        c.ADD_COLUMN, table, _column(operation.name, field), type=_type(field, dialect), is_null=field.null,
        has_database_default=has_default, has_fill=_has_fill(field),
        is_volatile=type(getattr(field, "db_default", None)).__name__ in _VOLATILE,
        is_generated=bool(getattr(field, "generated", False) and field.db_persist),
        is_unique=field.unique, describes=operation.describe(),
    )  # fmt: skip
    yield from _beside(field, table, operation)


def _has_fill(field: Any) -> bool:
    """Whether Django gives existing rows a value: a default, or "" where NULL may not be."""
    return field.has_default() or (not field.null and field.blank and field.empty_strings_allowed)


def _beside(field: Any, table: str, operation: Any) -> Iterator[Change]:
    """What a foreign key or db_index brings with its column."""
    if field.remote_field and getattr(field, "db_constraint", False):
        yield Change(c.ADD_FOREIGN_KEY, table, _column(operation.name, field), describes=operation.describe())
    if field.db_index and not field.unique:
        yield Change(c.ADD_INDEX, table, _column(operation.name, field), describes=operation.describe())


def _remove(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    field = _field(state, app, operation.model_name_lower, operation.name)
    if field is not None and not field.many_to_many and _is_managed(state, app, operation.model_name_lower):
        table = _table(state, app, operation.model_name_lower)
        yield Change(c.DROP_COLUMN, table, _column(operation.name, field), describes=operation.describe())


def _rename_field(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    field = _field(state, app, operation.model_name_lower, operation.old_name)
    if field is None or field.db_column or field.many_to_many:
        return
    old, new = _column(operation.old_name, field), _column(operation.new_name, field)
    yield Change(
        c.RENAME_COLUMN,
        _table(state, app, operation.model_name_lower),
        old,
        to=new,
        describes=operation.describe(),
    )


def _alter(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    old = _field(state, app, operation.model_name_lower, operation.name)
    new, table = operation.field, _table(state, app, operation.model_name_lower)
    if old is None or new.many_to_many or not _is_managed(state, app, operation.model_name_lower):
        return
    name, says = _column(operation.name, new), operation.describe()
    if _column(operation.name, old) != name:
        yield Change(c.RENAME_COLUMN, table, _column(operation.name, old), to=name, describes=says)
    if _type(old, dialect) != _type(new, dialect):
        yield Change(
            c.ALTER_TYPE, table, name, type=_type(new, dialect), was=_type(old, dialect), describes=says
        )
    if old.null != new.null:
        yield Change(c.DROP_NOT_NULL if new.null else c.SET_NOT_NULL, table, name, describes=says)
    if new.unique and not old.unique:
        yield Change(c.ADD_UNIQUE, table, name, describes=says)
    if new.db_index and not old.db_index and not new.unique:
        yield Change(c.ADD_INDEX, table, name, describes=says)
    for kind in _of_what_goes(old, new):
        yield Change(kind, table, name, describes=says)
    yield from _altered_checks(old, new, table, name, says, dialect)
    # Django drops a foreign key and makes it anew when anything of its column changes, the table it points at too.
    if _is_constrained(new) and (not _is_constrained(old) or _is_altered(old, new)):
        yield Change(c.ADD_FOREIGN_KEY, table, name, describes=says)


def _of_what_goes(old: Any, new: Any) -> Iterator[str]:
    if old.unique and not new.unique and not old.primary_key:
        yield c.DROP_CONSTRAINT
    if old.db_index and not new.db_index and not old.unique:
        yield c.DROP_INDEX
    if _is_constrained(old) and not _is_constrained(new):
        yield c.DROP_CONSTRAINT
    if getattr(old, "db_default", NOT_PROVIDED) != getattr(new, "db_default", NOT_PROVIDED):
        yield c.SET_DEFAULT


def _altered_checks(old: Any, new: Any, table: str, name: str, says: str, dialect: str) -> Iterator[Change]:
    """A positive number is a check on PostgreSQL, not a type."""
    was, is_now = (one.get_internal_type().startswith("Positive") for one in (old, new))
    if dialect == POSTGRESQL and was != is_now:
        yield Change(c.ADD_CHECK if is_now else c.DROP_CONSTRAINT, table, name, describes=says)


def _is_constrained(field: Any) -> bool:
    return bool(field.remote_field and getattr(field, "db_constraint", False))


def _is_altered(old: Any, new: Any) -> bool:
    """Whether the database would notice: as Django's own _field_should_be_altered."""
    shapes = []
    for field in (old, new):
        _, path, args, options = field.deconstruct()
        shapes.append((path, args, {k: v for k, v in options.items() if k not in field.non_db_attrs}))
    return bool(shapes[0] != shapes[1])


# --- indexes and constraints -----------------------------------------------------------------------------------------------
def _add_index(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    yield Change(
        c.ADD_INDEX, _table(state, app, operation.model_name_lower), operation.index.name,
        is_concurrent=_is_concurrent(operation), describes=operation.describe(),
    )  # fmt: skip


def _remove_index(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    yield Change(
        c.DROP_INDEX, _table(state, app, operation.model_name_lower), operation.name,
        is_concurrent=_is_concurrent(operation), describes=operation.describe(),
    )  # fmt: skip


def _add_constraint(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    constraint = operation.constraint
    kinds = ((models.CheckConstraint, c.ADD_CHECK), (models.UniqueConstraint, c.ADD_UNIQUE))
    kind = next((kind for shape, kind in kinds if isinstance(constraint, shape)), c.ADD_EXCLUSION)
    yield Change(
        kind, _table(state, app, operation.model_name_lower), constraint.name,
        is_concurrent=type(operation).__name__ == "AddConstraintNotValid", describes=operation.describe(),
    )  # fmt: skip


def _remove_constraint(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    yield Change(c.DROP_CONSTRAINT, _table(state, app, operation.model_name_lower), operation.name)


def _together(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    model = state.models.get((app, operation.name_lower))
    old = set(model.options.get(operation.option_name) or ()) if model else set()
    kind = c.ADD_UNIQUE if operation.option_name == "unique_together" else c.ADD_INDEX
    for fields in sorted({tuple(one) for one in operation.option_value or ()} - {tuple(one) for one in old}):
        says = f"{operation.describe()}: {', '.join(fields)}"
        yield Change(kind, _table(state, app, operation.name_lower), describes=says)
    gone = {tuple(one) for one in old} - {tuple(one) for one in operation.option_value or ()}
    kind = c.DROP_CONSTRAINT if kind == c.ADD_UNIQUE else c.DROP_INDEX
    for fields in sorted(gone):
        says = f"{operation.describe()}: without {', '.join(fields)}"
        yield Change(kind, _table(state, app, operation.name_lower), describes=says)


# --- SQL and Python --------------------------------------------------------------------------------------------------------
def _sql(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    found = statements(operation, dialect)
    if found is None:
        yield Change(c.NO_TEXT, is_django=False, describes=operation.describe())
    for number, statement in enumerate(found or ()):
        for change in sql.read(statement, dialect):
            # Said once for the operation, not once a statement.
            yield replace(change, is_reversible=operation.reversible or number > 0)


def statements(operation: Any, dialect: str) -> list[str] | None:
    """Of a RunSQL, for a dialect; None when it has nothing for it."""
    texts = operation.sql
    if isinstance(operation, SQL) and not isinstance(texts, str):
        text = next(
            (texts[key] for key in (dialect, MARIADB if dialect == "mysql" else "", "") if key in texts), None
        )
        return None if text is None else split(text, dialect)
    if isinstance(texts, str):
        found = split(texts, dialect)
        return [portable(one, dialect) for one in found] if isinstance(operation, SQL) else found
    return [str(one if isinstance(one, str) else one[0]) for one in texts]


def _python(operation: Any, app: str, state: ProjectState, dialect: str) -> Iterator[Change]:
    name = getattr(operation.code, "__name__", "code")
    if operation.code is o.RunPython.noop:
        return
    yield Change(
        c.PYTHON, is_reversible=operation.reversible, imports_models=_imports_models(operation.code), name="",
        describes=f"RunPython({name})",
    )  # fmt: skip


def _imports_models(code: Callable[..., Any]) -> bool:
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):
        return False
    if _IMPORTS_MODELS.search(source):
        return True
    names = getattr(getattr(code, "__code__", None), "co_names", ())
    used = [getattr(code, "__globals__", {}).get(name) for name in names]
    return any(isinstance(value, type) and issubclass(value, models.Model) for value in used)


_READERS: list[tuple[type, Callable[..., Iterator[Change]]]] = [
    (o.CreateModel, _create), (o.DeleteModel, _delete), (o.RenameModel, _rename_model),
    (o.AlterModelTable, _rename_table), (o.AddField, _add), (o.RemoveField, _remove), (o.RenameField, _rename_field),
    (o.AlterField, _alter), (o.AddIndex, _add_index), (o.RemoveIndex, _remove_index),
    (o.AddConstraint, _add_constraint), (o.RemoveConstraint, _remove_constraint), (o.AlterUniqueTogether, _together),
    (o.AlterIndexTogether, _together), (o.RunSQL, _sql), (o.RunPython, _python),
]  # fmt: skip


def _table(state: ProjectState, app: str, model_name: str) -> str:
    model = state.models.get((app, model_name))
    return str((model.options.get("db_table") if model else "") or f"{app}_{model_name}")


def _is_managed(state: ProjectState, app: str, model_name: str) -> bool:
    model = state.models.get((app, model_name))
    return model is None or (model.options.get("managed", True) and not model.options.get("proxy"))


def _field(state: ProjectState, app: str, model_name: str, name: str) -> Any:
    model = state.models.get((app, model_name))
    return model.fields.get(name) if model else None


def _column(name: str, field: Any) -> str:
    return str(field.db_column or (f"{name}_id" if field.remote_field and not field.many_to_many else name))


def _type(field: Any, dialect: str) -> str:
    kind = field.get_internal_type()
    if dialect == POSTGRESQL:
        kind = kind.removeprefix("Positive")  # a check of the column there, not a type of its own
    if kind == "DecimalField":
        return f"numeric({field.max_digits}, {field.decimal_places})"
    if kind in _TYPES and (kind == "TextField" or field.max_length):
        return _TYPES[kind].format(field)
    if field.remote_field:
        return "key"
    return str(kind)


def _is_concurrent(operation: Any) -> bool:
    return type(operation).__name__.endswith("Concurrently")
