"""MySQL and MariaDB: the rows travel as one JSON text; mysqlclient sends rows with expressions one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.db import connection

from queue_app.broker.events import Standing, Step

from .recording import ABOUT, INSERTED, NAMED, PROGRESS, TOLD, UNSET, UPDATED, dashed, standing_of

_TIMES = ("created_at", "started_at", "finished_at", "run_after", "expires_at", "at")
_IDS = ("id", "job_id", "owner", "worker", "parent")
_TYPES = {
    **dict.fromkeys(_IDS, "CHAR(36)"), **dict.fromkeys(_TIMES, "DOUBLE"),
    **dict.fromkeys(("attempt", "crash_count", "priority", "max_attempts"), "INT"),
    **dict.fromkeys(("payload", "result", "last_error", "detail"), "LONGTEXT"),
}  # fmt: skip


def _time(seconds: str) -> str:
    # Not FROM_UNIXTIME, which answers in the time zone of the session; columns are in UTC.
    return f"TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ROUND({seconds} * 1000000) MICROSECOND"


def _given(names: Sequence[str]) -> str:
    columns = (f"{name} {_TYPES.get(name, 'VARCHAR(255)')} PATH '$[{at}]'" for at, name in enumerate(names))
    return f"JSON_TABLE(%s, '$[*]' COLUMNS ({', '.join(columns)}))"


def _selected(names: Sequence[str]) -> str:
    return ", ".join(_time(f"g.{name}") if name in _TIMES else f"g.{name}" for name in names)


_STANDING = """
SELECT id, delivery, name, state, attempt, crash_count, owner,
  TIMESTAMPDIFF(MICROSECOND, '1970-01-01', started_at) / 1e6
FROM queue_app_job WHERE id IN %s ORDER BY id FOR UPDATE
"""
_INSERT = f"""
INSERT INTO queue_app_job ({", ".join((*INSERTED, *UNSET))})
SELECT {_selected(INSERTED)}, {", ".join(UNSET.values())} FROM {_given(INSERTED)} AS g
""".replace("{false}", "0")
_KEPT = {"result": "coalesce(g.result, j.result)", "last_error": "coalesce(g.last_error, j.last_error)"}
_UPDATE = f"""
UPDATE queue_app_job AS j JOIN {_given(UPDATED)} AS g ON j.id = g.id SET
{", ".join(f"j.{name} = {_KEPT.get(name) or (_time(f'g.{name}') if name in _TIMES else f'g.{name}')}" for name in PROGRESS)}
"""
_NAME = f"""
UPDATE queue_app_job AS j JOIN {_given(NAMED)} AS g ON j.id = g.id SET
{", ".join(f"j.{name} = {_time(f'g.{name}') if name in _TIMES else f'g.{name}'}" for name in ABOUT)},
j.created_at = coalesce({_time("g.created_at")}, j.created_at)
"""
_TELL = f"""
INSERT INTO queue_app_jobevent ({", ".join(TOLD)}) SELECT {_selected(TOLD)} FROM {_given(TOLD)} AS g
"""


def standing(cursor: Any, ids: Sequence[str]) -> dict[str, Standing | None]:
    by_stored = {_id(id): id for id in ids}
    cursor.execute(_STANDING, [tuple(by_stored)])
    found = {}
    for id, delivery, name, state, attempt, crashes, owner, started_at in cursor.fetchall():
        started_s = None if started_at is None else float(started_at)
        owner = None if owner is None else dashed(str(owner))
        found[by_stored[str(id)]] = standing_of(delivery, name, state, attempt, crashes, owner, started_s)
    return found


def insert(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_INSERT, [json.dumps(_stored(INSERTED, rows))])


def update(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_UPDATE, [json.dumps(_stored(UPDATED, rows))])


def name(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute(_NAME, [json.dumps(_stored(NAMED, rows))])


def tell(cursor: Any, steps: Sequence[Step]) -> None:
    cursor.execute(_TELL, [json.dumps(_stored(TOLD, steps))])


def _stored(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    at = [names.index(name) for name in _IDS if name in names]
    found = [list(row) for row in rows]
    for row in found:
        for place in at:
            if row[place] is not None:
                row[place] = _id(row[place])
    return found


def _id(id: str) -> str:
    """As the column holds it: a native uuid on MariaDB 10.7 and newer, 32 hex digits elsewhere."""
    return id if connection.features.has_native_uuid_field else id.replace("-", "")
