"""PostgreSQL: each statement moves the rows and writes their events in one round trip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from . import CLAIMABLE, COLUMNS, COMMON, EACH, UNSET, Claimed, End, New, claimed

_NOW = "clock_timestamp()"
_TYPES = {
    "priority": "int", "max_attempts": "int", "parent": "uuid", "run_after": "timestamptz", "expires_at": "timestamptz",
    "published_at": "timestamptz", "unique_until": "timestamptz", "created_at": "timestamptz",
}  # fmt: skip

# Few parameters, because each costs the client a quotation: what the jobs share is one JSON object, and their payloads
# are one array that is put together from their texts.
_INSERT = f"""
WITH made AS (
  INSERT INTO queue_app_job ({", ".join((*EACH, *COMMON, *UNSET))})
  SELECT id, payload, unique_key, {", ".join((*COMMON, *UNSET.values()))}
  FROM jsonb_to_record(%s::jsonb) AS common ({", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in COMMON)}),
    ROWS FROM (unnest(%s::uuid[]), jsonb_array_elements(%s::jsonb), jsonb_array_elements_text(%s::jsonb))
      AS each (id, payload, unique_key)
  ON CONFLICT (unique_key) DO NOTHING
  RETURNING id, state, created_at
), told AS (
  INSERT INTO queue_app_jobevent (job_id, state, at, detail) SELECT id, state, created_at, '{{}}' FROM made
)
SELECT id FROM made
""".replace("{false}", "false")

_CLAIM = f"""
WITH taken AS (
  UPDATE queue_app_job SET state = 'PROCESSING', fence = fence + 1, owner = %(worker)s, started_at = {_NOW}
  WHERE id = ANY(%(ids)s) AND {CLAIMABLE.format(now=_NOW, worker="%(worker)s", true="true", false="false")}
  RETURNING {", ".join(COLUMNS)}, coalesce(expires_at <= {_NOW}, false) AS expired
), told AS (
  INSERT INTO queue_app_jobevent (job_id, state, at, worker, detail)
  SELECT id, 'PROCESSING', {_NOW}, %(worker)s, '{{}}' FROM taken
)
SELECT * FROM taken
"""

_FINISH = f"""
WITH ended AS (
  SELECT * FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::int[], %s::text[], %s::text[], %s::float8[], %s::text[])
    AS e (id, fence, state, ran, result, error, delay_s, detail)
), moved AS (
  UPDATE queue_app_job AS j SET
    state = e.state,
    attempt = j.attempt + e.ran,
    suspect = false,
    is_marked = false,
    result = coalesce(e.result::jsonb, j.result),
    last_error = coalesce(e.error::jsonb, j.last_error),
    run_after = coalesce({_NOW} + e.delay_s * interval '1 second', j.run_after),
    published_at = CASE WHEN e.state IN ('FAILED', 'PENDING') THEN NULL ELSE j.published_at END,
    finished_at = CASE WHEN e.state IN ('FAILED', 'PENDING') THEN NULL ELSE {_NOW} END,
    unique_key = CASE WHEN e.state IN ('FAILED', 'PENDING') OR j.unique_until IS NOT NULL THEN j.unique_key END
  FROM ended AS e
  WHERE j.id = e.id AND CASE j.state WHEN 'PROCESSING' THEN j.fence = e.fence ELSE false END
  RETURNING j.id, e.state, e.detail
), told AS (
  INSERT INTO queue_app_jobevent (job_id, state, at, worker, detail)
  SELECT id, state, {_NOW}, %s, detail::jsonb FROM moved
)
SELECT id FROM moved
"""


def insert(cursor: Any, new: New) -> set[UUID]:
    ids = "{" + ",".join(map(str, new.ids)) + "}"
    common = json.dumps(dict(zip(COMMON, new.common, strict=True)), default=str)  # times and ids
    cursor.execute(_INSERT, [common, ids, f"[{','.join(new.payloads)}]", json.dumps(new.keys)])
    return {row[0] for row in cursor.fetchall()} if new.keys else set(new.ids)


def begin(cursor: Any) -> None:
    # What the hot statements read has just been written. By the planner's own measure, made for disks, a look-up by id
    # costs so much that it reads the whole of a table of some ten thousand rows for each batch.
    cursor.execute("SET LOCAL random_page_cost = 1")


def claim(cursor: Any, worker: UUID, ids: Sequence[UUID]) -> list[Claimed]:
    cursor.execute(_CLAIM, {"worker": worker, "ids": sorted(ids)})
    return [claimed(row) for row in cursor.fetchall()]


def finish(cursor: Any, worker: UUID, ends: Sequence[End]) -> set[UUID]:
    # In the order of their ids, as the claims: two workers that meet in the same rows wait instead of deadlocking.
    columns = [list(column) for column in zip(*sorted(ends), strict=True)]
    cursor.execute(_FINISH, [*columns, worker])
    return {row[0] for row in cursor.fetchall()}


def now(cursor: Any) -> datetime:
    cursor.execute(f"SELECT {_NOW}")
    found: datetime = cursor.fetchone()[0]
    return found
