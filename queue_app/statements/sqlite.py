"""SQLite 3.38 or newer (`->>`, UPDATE … FROM): the jobs travel as one JSON text. Ids are 32 hex digits, as Django's.

Claim and finish return one row each, never one for each job: at each row the driver lets go of the interpreter's lock, and
waits for it again while it holds the database's only write lock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from . import CLAIMABLE, COLUMNS, COMMON, EACH, UNSET, Claimed, End, New, claimed

# UTC, comparable with the texts that Django stores. SQLite's clock has milliseconds, and Python's stamps have microseconds:
# the end of the present millisecond, so that none that was made before lies ahead of it.
_NOW = "strftime('%%Y-%%m-%%d %%H:%%M:%%f999', 'now')"

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

_CLAIMABLE = f"""
SELECT json_group_array(id), json_group_array(json_array(
  {", ".join(COLUMNS)}, coalesce(expires_at <= {_NOW}, 0)
)) FROM queue_app_job
WHERE id IN (SELECT value FROM json_each(%(ids)s)) AND {CLAIMABLE.format(now=_NOW, worker="%(worker)s", true="1", false="0")}
"""
_CLAIMABLE_IN_TURN = (
    f"{_CLAIMABLE} AND (turn = 3 OR queue NOT IN (SELECT value FROM json_each(%(governed)s)))"
)
_CLAIM = f"""
UPDATE queue_app_job SET state = 'PROCESSING', fence = fence + 1, owner = %s, started_at = {_NOW}
WHERE id IN (SELECT value FROM json_each(%s))
"""
_TELL_CLAIMED = f"""
INSERT INTO queue_app_jobevent (job_id, state, at, worker, detail)
SELECT value, 'PROCESSING', {_NOW}, %s, '{{}}' FROM json_each(%s)
"""

# The ends whose fences hold. CROSS JOIN: the ends first, then their rows by id.
_STANDING = """
FROM (
  SELECT value ->> 0 AS id, value ->> 1 AS fence, value ->> 2 AS state, value ->> 7 AS detail FROM json_each(%s)
) AS e CROSS JOIN queue_app_job AS j
WHERE j.id = e.id AND CASE j.state WHEN 'PROCESSING' THEN j.fence = e.fence ELSE 0 END
"""
_ACCEPTED = f"SELECT json_group_array(e.id) {_STANDING}"
_TELL = f"""
INSERT INTO queue_app_jobevent (job_id, state, at, worker, detail)
SELECT e.id, e.state, {_NOW}, %s, e.detail {_STANDING}
"""
_FINISH = f"""
UPDATE queue_app_job AS j SET
  state = e.state,
  attempt = j.attempt + e.ran,
  suspect = 0,
  is_marked = 0,
  turn = CASE WHEN e.state IN ('FAILED', 'PENDING') AND j.turn > 0 THEN 1 ELSE 0 END,
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
"""


def insert(cursor: Any, new: New) -> set[UUID]:
    each = zip((id.hex for id in new.ids), new.payloads, new.keys or repeat(None), strict=False)
    common = [value.hex if isinstance(value, UUID) else value for value in new.common]
    cursor.execute(_INSERT, [*common, json.dumps(list(each))])
    made = [row[0] for row in cursor.fetchall()]
    cursor.execute(_TELL_NEW, [common[_STATE], common[_CREATED_AT], json.dumps(made)])
    return {UUID(id) for id in made}


def exchange(
    cursor: Any, worker: UUID, ids: Sequence[UUID], ends: Sequence[End], governed: Collection[str]
) -> tuple[list[Claimed], set[UUID]]:
    wanted, told = json.dumps([id.hex for id in ids]), _told(ends)
    with transaction.atomic():  # what is done here, all other writers wait for
        accepted = _finish(cursor, worker, told) if ends else "[]"
        jobs = _claim(cursor, worker, wanted, governed) if ids else "[]"
    claims = [job._replace(fence=job.fence + 1) for job in map(claimed, json.loads(jobs))]
    return claims, set(map(UUID, json.loads(accepted)))


def finish(cursor: Any, worker: UUID, ends: Sequence[End]) -> set[UUID]:
    return set(map(UUID, json.loads(_finish(cursor, worker, _told(ends)))))


def _claim(cursor: Any, worker: UUID, wanted: str, governed: Collection[str]) -> str:
    values = {"worker": worker.hex, "ids": wanted}
    if governed:
        cursor.execute(_CLAIMABLE_IN_TURN, {**values, "governed": json.dumps(list(governed))})
    else:
        cursor.execute(_CLAIMABLE, values)
    ids, jobs = cursor.fetchone()
    if ids != "[]":
        cursor.execute(_CLAIM, [worker.hex, ids])
        cursor.execute(_TELL_CLAIMED, [worker.hex, ids])
    return str(jobs)


def _finish(cursor: Any, worker: UUID, told: str) -> str:
    cursor.execute(_ACCEPTED, [told])
    (accepted,) = cursor.fetchone()
    cursor.execute(_TELL, [worker.hex, told])
    cursor.execute(_FINISH, [told])
    return str(accepted)


def _told(ends: Sequence[End]) -> str:
    return json.dumps([[end.id.hex, *end[1:]] for end in ends])


def now(cursor: Any) -> datetime:
    return timezone.now()  # SQLite's clock is this host's, but for its microseconds
