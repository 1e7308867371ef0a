"""PostgreSQL: each statement moves the rows and writes their events in one round trip."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from . import CLAIMABLE, COLUMNS, COMMON, EACH, UNSET, Claimed, End, New, claimed

_NOW = "clock_timestamp()"
_TYPES = {
    "priority": "int", "max_attempts": "int", "parent": "uuid", "workflow": "uuid", "run_after": "timestamptz", "expires_at": "timestamptz",
    "published_at": "timestamptz", "unique_until": "timestamptz", "created_at": "timestamptz",
    "turn": "int",
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

# The same for one job. Planning the statement above takes longer than running it; two plain ones take a third, and one
# message of two statements is one round trip and, outside of a transaction, one transaction.
_INSERT_ONE = f"""
INSERT INTO queue_app_job ({", ".join((*EACH, *COMMON, *UNSET))})
VALUES (%s, %s, NULL, {", ".join(["%s"] * len(COMMON))}, {", ".join(UNSET.values())});
INSERT INTO queue_app_jobevent (job_id, state, at, detail) VALUES (%s, %s, %s, '{{}}')
""".replace("{false}", "false")
_STATE, _CREATED_AT = COMMON.index("state"), COMMON.index("created_at")

# What the hot statements read has just been written. By the planner's own measure, made for disks, a look-up by id costs
# so much that it reads the whole of a table of some ten thousand rows for each batch.
_CHEAP_LOOKUPS = "SET LOCAL random_page_cost = 1"

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
_CLAIM_IN_TURN = _CLAIM.replace("RETURNING", "AND (turn = 3 OR queue <> ALL(%(governed)s)) RETURNING")

_FINISH = f"""
WITH ended AS (
  SELECT * FROM unnest(
    %(id)s::uuid[], %(fence)s::int[], %(state)s::text[], %(ran)s::int[], %(result)s::text[], %(error)s::text[],
    %(delay_s)s::float8[], %(detail)s::text[]
  ) AS e (id, fence, state, ran, result, error, delay_s, detail)
), moved AS (
  UPDATE queue_app_job AS j SET
    state = e.state,
    attempt = j.attempt + e.ran,
    suspect = false,
    is_marked = false,
    turn = CASE WHEN e.state IN ('FAILED', 'PENDING') AND j.turn > 0 THEN 1 ELSE 0 END,
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
  SELECT id, state, {_NOW}, %(worker)s, detail::jsonb FROM moved
)
SELECT id FROM moved
"""


def insert(cursor: Any, new: New) -> set[UUID]:
    if (
        len(new.ids) == 1 and not new.keys and hasattr(cursor, "mogrify")
    ):  # else the server binds: one statement each
        id, common = str(new.ids[0]), new.common
        cursor.execute(_INSERT_ONE, [id, new.payloads[0], *common, id, common[_STATE], common[_CREATED_AT]])
        return set(new.ids)
    ids = "{" + ",".join(map(str, new.ids)) + "}"
    common = json.dumps(dict(zip(COMMON, new.common, strict=True)), default=str)  # times and ids
    cursor.execute(_INSERT, [common, ids, f"[{','.join(new.payloads)}]", json.dumps(new.keys)])
    return {row[0] for row in cursor.fetchall()} if new.keys else set(new.ids)


def exchange(
    cursor: Any, worker: UUID, ids: Sequence[UUID], ends: Sequence[End], governed: Collection[str]
) -> tuple[list[Claimed], set[UUID]]:
    texts, values = [_CHEAP_LOOKUPS], {"worker": worker, "ids": sorted(ids), "governed": list(governed)}
    if ends:
        texts.append(_FINISH)
        values |= _columns(ends)
    if ids:
        texts.append(_CLAIM_IN_TURN if governed else _CLAIM)
    # One message is one round trip, and one transaction when none is open.
    execute = _at_once if hasattr(cursor, "mogrify") else _in_turn
    rows = execute(cursor, texts, values)
    accepted = {row[0] for row in next(rows)} if ends else set()
    return [claimed(row) for row in next(rows)] if ids else [], accepted


def finish(cursor: Any, worker: UUID, ends: Sequence[End]) -> set[UUID]:
    cursor.execute(_FINISH, {"worker": worker, **_columns(ends)})
    return {row[0] for row in cursor.fetchall()}


def _columns(ends: Sequence[End]) -> dict[str, list[Any]]:
    # In the order of their ids, as the claims: two workers that meet in the same rows wait instead of deadlocking.
    return dict(zip(End._fields, map(list, zip(*sorted(ends), strict=True)), strict=True))


def _at_once(cursor: Any, texts: Sequence[str], values: dict[str, Any]) -> Iterator[list[Any]]:
    cursor.execute(";".join(texts), values)
    while cursor.nextset():
        yield cursor.fetchall()


def _in_turn(cursor: Any, texts: Sequence[str], values: dict[str, Any]) -> Iterator[list[Any]]:
    """For `server_side_binding`, which takes one statement a message."""
    with transaction.atomic():
        cursor.execute(texts[0])
        found = [cursor.execute(text, values) or cursor.fetchall() for text in texts[1:]]
    yield from found


def now(cursor: Any) -> datetime:
    cursor.execute(f"SELECT {_NOW}")
    found: datetime = cursor.fetchone()[0]
    return found
