"""SQLite 3.35 or newer (UPDATE … FROM, RETURNING): the jobs travel as one JSON text. Ids are 32 hex digits, as Django's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import repeat
from typing import Any
from uuid import UUID

from . import CLAIMABLE, COLUMNS, COMMON, EACH, UNSET, Claimed, End, New, claimed, in_turn

_NOW = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"  # UTC, comparable with the texts that Django stores

_INSERT = f"""
INSERT INTO queue_app_job ({", ".join((*EACH, *COMMON, *UNSET))})
SELECT value ->> 0, value ->> 1, value ->> 2, {", ".join(["%s"] * len(COMMON))}, {", ".join(UNSET.values())}
FROM json_each(%s) WHERE true ON CONFLICT (unique_key) DO NOTHING
RETURNING id
""".replace("{false}", "0")
_TELL_NEW = """
INSERT INTO queue_app_jobevent (job_id, state, at, detail)
SELECT value, %s, %s, '{}' FROM json_each(%s)
"""
_STATE, _CREATED_AT = COMMON.index("state"), COMMON.index("created_at")

_CLAIM = f"""
UPDATE queue_app_job SET state = 'PROCESSING', fence = fence + 1, owner = %(worker)s, started_at = {_NOW}
WHERE id IN (SELECT value FROM json_each(%(ids)s)) AND {CLAIMABLE.format(now=_NOW, worker="%(worker)s", true="1", false="0")}
RETURNING {", ".join(COLUMNS)}, coalesce(expires_at <= {_NOW}, 0)
"""

_FINISH = f"""
UPDATE queue_app_job AS j SET
  state = e.state,
  attempt = j.attempt + e.ran,
  suspect = 0,
  is_marked = 0,
  result = coalesce(e.result, j.result),
  last_error = coalesce(e.error, j.last_error),
  run_after = coalesce(strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', e.delay_s || ' seconds'), j.run_after),
  published_at = CASE WHEN e.state IN ('FAILED', 'PENDING') THEN NULL ELSE j.published_at END,
  finished_at = CASE WHEN e.state IN ('FAILED', 'PENDING') THEN NULL ELSE {_NOW} END,
  unique_key = CASE WHEN e.state IN ('FAILED', 'PENDING') OR j.unique_until IS NOT NULL THEN j.unique_key END
FROM (
  SELECT value ->> 0 AS id, value ->> 1 AS fence, value ->> 2 AS state, value ->> 3 AS ran, value ->> 4 AS result,
    value ->> 5 AS error, value ->> 6 AS delay_s FROM json_each(%s)
) AS e
WHERE j.id = e.id AND CASE j.state WHEN 'PROCESSING' THEN j.fence = e.fence ELSE 0 END
RETURNING id
"""
_TELL = f"""
INSERT INTO queue_app_jobevent (job_id, state, at, worker, detail)
SELECT value ->> 0, value ->> 1, {_NOW}, %s, value ->> 2 FROM json_each(%s)
"""


def insert(cursor: Any, new: New) -> set[UUID]:
    each = zip((id.hex for id in new.ids), new.payloads, new.keys or repeat(None), strict=False)
    common = [value.hex if isinstance(value, UUID) else value for value in new.common]
    cursor.execute(_INSERT, [*common, json.dumps(list(each))])
    made = [row[0] for row in cursor.fetchall()]
    cursor.execute(_TELL_NEW, [common[_STATE], common[_CREATED_AT], json.dumps(made)])
    return {UUID(id) for id in made}


def claim(cursor: Any, worker: UUID, ids: Sequence[UUID]) -> list[Claimed]:
    cursor.execute(_CLAIM, {"worker": worker.hex, "ids": json.dumps([id.hex for id in ids])})
    taken = [claimed(row) for row in cursor.fetchall()]
    _tell(cursor, worker, [[job.id.hex, "PROCESSING", "{}"] for job in taken])
    return taken


def finish(cursor: Any, worker: UUID, ends: Sequence[End]) -> set[UUID]:
    cursor.execute(_FINISH, [json.dumps([[end.id.hex, *end[1:7]] for end in ends])])
    accepted = {UUID(row[0]) for row in cursor.fetchall()}
    _tell(cursor, worker, [[end.id.hex, end.state, end.detail] for end in ends if end.id in accepted])
    return accepted


exchange = in_turn(finish, claim)


def now(cursor: Any) -> datetime:
    cursor.execute(f"SELECT {_NOW}", [])
    return datetime.fromisoformat(cursor.fetchone()[0])


def _tell(cursor: Any, worker: UUID, steps: list[list[str]]) -> None:
    if steps:
        cursor.execute(_TELL, [worker.hex, json.dumps(steps)])
