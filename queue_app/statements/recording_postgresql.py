"""PostgreSQL: the rows travel as one JSON text, which costs the client less than quoting arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from queue_app.events import Standing, Step

from .recording import ABOUT, INSERTED, NAMED, PROGRESS, TOLD, UNSET, UPDATED, standing_of

_TIMES = ("created_at", "started_at", "finished_at", "run_after", "expires_at", "at")
_TYPES = {
    "id": "uuid", "job_id": "uuid", "owner": "uuid", "worker": "uuid", "parent": "uuid", "priority": "int",
    "attempt": "int", "crash_count": "int", "max_attempts": "int", **dict.fromkeys(_TIMES, "timestamptz"),
    **dict.fromkeys(("payload", "result", "last_error", "detail"), "jsonb"),
}  # fmt: skip


def _given(names: Sequence[str]) -> str:
    """A JSON array of arrays as a table with these columns."""
    columns = [
        f"to_timestamp((r ->> {at})::float8) AS {name}"
        if name in _TIMES
        else f"(r ->> {at})::{_TYPES.get(name, 'text')} AS {name}"
        for at, name in enumerate(names)
    ]
    return f"SELECT {', '.join(columns)} FROM json_array_elements(%s::json) AS r"


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
    cursor.execute(_INSERT, [orjson.dumps(rows).decode()])


def update(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_UPDATE, [orjson.dumps(rows).decode()])


def name(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_NAME, [orjson.dumps(rows).decode()])


def tell(cursor: Any, steps: Sequence[Step]) -> None:
    cursor.execute(_TELL, [orjson.dumps(list(map(tuple, steps))).decode()])
