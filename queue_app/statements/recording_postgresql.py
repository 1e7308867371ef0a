"""PostgreSQL: each column travels as an array that we write as a text, at a fraction of what the driver takes for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from queue_app.broker.events import Standing, Step

from .recording import ABOUT, INSERTED, NAMED, PROGRESS, TOLD, UNSET, UPDATED, standing_of

_TIMES = ("created_at", "started_at", "finished_at", "run_after", "expires_at", "at")
_JSON = ("payload", "result", "last_error", "detail")
_TEXTS = ("name", "queue", "tenant", "request_id", *_JSON)  # what may hold a comma or a quote
_ARRAYS = {
    **dict.fromkeys(("id", "job_id", "owner", "worker", "parent"), "uuid"), **dict.fromkeys(_TIMES, "float8"),
    **dict.fromkeys(("priority", "attempt", "crash_count", "max_attempts"), "int"),
}  # fmt: skip


def _given(names: Sequence[str]) -> str:
    """The arrays as a table with these columns."""
    arrays = ", ".join(f"%s::{_ARRAYS.get(name, 'text')}[]" for name in names)
    return f"SELECT {', '.join(map(_column, names))} FROM unnest({arrays}) AS r ({', '.join(names)})"


def _column(name: str) -> str:
    if name in _TIMES:
        return f"to_timestamp({name}) AS {name}"
    return f"{name}::jsonb AS {name}" if name in _JSON else name


_STANDING = """
SELECT id::text, delivery, name, state, attempt, crash_count, owner::text, extract(epoch FROM started_at)::float8
FROM queue_app_job WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE
"""
_INSERT = f"""
INSERT INTO queue_app_job ({", ".join((*INSERTED, *UNSET))})
SELECT {", ".join((*INSERTED, *UNSET.values()))} FROM ({_given(INSERTED)}) AS given
""".replace("{false}", "false")
_KEPT = {"result": "coalesce(g.result, j.result)", "last_error": "coalesce(g.last_error, j.last_error)"}
_UPDATE = f"""
UPDATE queue_app_job AS j SET {", ".join(f"{name} = {_KEPT.get(name, f'g.{name}')}" for name in PROGRESS)}
FROM ({_given(UPDATED)}) AS g WHERE j.id = g.id
"""
_NAME = f"""
UPDATE queue_app_job AS j SET {", ".join(f"{name} = g.{name}" for name in ABOUT)},
  created_at = coalesce(g.created_at, j.created_at)
FROM ({_given(NAMED)}) AS g WHERE j.id = g.id
"""
_TELL = f"INSERT INTO queue_app_jobevent ({', '.join(TOLD)}) {_given(TOLD)}"


def standing(cursor: Any, ids: Sequence[str]) -> dict[str, Standing | None]:
    cursor.execute(_STANDING, ["{" + ",".join(ids) + "}"])
    return {id: standing_of(*columns) for id, *columns in cursor.fetchall()}


def insert(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_INSERT, _arrays(INSERTED, rows))


def update(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_UPDATE, _arrays(UPDATED, rows))


def name(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_NAME, _arrays(NAMED, rows))


def tell(cursor: Any, steps: Sequence[Step]) -> None:
    cursor.execute(_TELL, _arrays(TOLD, steps))


def _arrays(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    columns = zip(*rows, strict=True)
    return [
        _texts(column) if name in _TEXTS else _plain(column)
        for name, column in zip(names, columns, strict=True)
    ]


def _plain(values: Iterable[Any]) -> str:
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _texts(values: Iterable[str | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    return '"' + value.replace('"', '\\"') + '"'
