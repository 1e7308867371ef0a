"""SQLite: a prepared statement for each row, which costs it less than reading JSON. Ids are 32 hex digits, as Django's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from queue_app.broker.events import Standing, Step

from .recording import ABOUT, INSERTED, NAMED, PROGRESS, TOLD, UNSET, UPDATED, dashed, standing_of

_TIMES = ("created_at", "started_at", "finished_at", "run_after", "expires_at", "at")
_IDS = ("id", "job_id", "owner", "worker", "parent")


def _value(name: str) -> str:
    if name in _TIMES:  # UTC, comparable with the texts that Django stores
        return "strftime('%%Y-%%m-%%d %%H:%%M:%%f', %s, 'unixepoch')"
    return "%s"


_STANDING = """
SELECT id, delivery, name, state, attempt, crash_count, owner, (julianday(started_at) - 2440587.5) * 86400
FROM queue_app_job WHERE id IN (SELECT value FROM json_each(%s))
"""
_INSERT = f"""
INSERT INTO queue_app_job ({", ".join((*INSERTED, *UNSET))})
VALUES ({", ".join((*map(_value, INSERTED), *UNSET.values()))})
""".replace("{false}", "0")
_KEPT = {"result": "coalesce(%s, result)", "last_error": "coalesce(%s, last_error)"}
_UPDATE = f"""
UPDATE queue_app_job SET {", ".join(f"{name} = {_KEPT.get(name, _value(name))}" for name in PROGRESS)} WHERE id = %s
"""
_NAME = f"""
UPDATE queue_app_job SET {", ".join(f"{name} = {_value(name)}" for name in ABOUT)},
  created_at = coalesce({_value("created_at")}, created_at)
WHERE id = %s
"""
_TELL = f"INSERT INTO queue_app_jobevent ({', '.join(TOLD)}) VALUES ({', '.join(map(_value, TOLD))})"


def standing(cursor: Any, ids: Sequence[str]) -> dict[str, Standing | None]:
    by_hex = {id.replace("-", ""): id for id in ids}
    cursor.execute(_STANDING, ['["' + '","'.join(by_hex) + '"]'])
    return {
        by_hex[id]: standing_of(delivery, name, state, attempt, crashes, owner and dashed(owner), started_at)
        for id, delivery, name, state, attempt, crashes, owner, started_at in cursor.fetchall()
    }


def insert(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.executemany(_INSERT, _hex(INSERTED, rows))


def update(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.executemany(_UPDATE, _id_last(_hex(UPDATED, rows)))


def name(cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
    cursor.executemany(_NAME, _id_last(_hex(NAMED, rows)))


def tell(cursor: Any, steps: Sequence[Step]) -> None:
    cursor.executemany(_TELL, _hex(TOLD, steps))


def _hex(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    at = [names.index(name) for name in _IDS if name in names]
    for row in rows:
        values = list(row)
        for place in at:
            if values[place] is not None:
                values[place] = values[place].replace("-", "")
        yield values


def _id_last(rows: Iterator[list[Any]]) -> Iterator[list[Any]]:
    return ([*rest, id] for id, *rest in rows)
