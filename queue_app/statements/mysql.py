"""MySQL 8 and MariaDB 10.6 or newer (SKIP LOCKED, JSON_TABLE): no RETURNING, so rows are locked first and then moved."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from . import CLAIMABLE, COLUMNS, COMMON, EACH, UNSET, Claimed, End, New, claimed

_NOW = "UTC_TIMESTAMP(6)"

# A key that is taken leaves the row out: `id = id` changes nothing, and unlike INSERT IGNORE it hides no other error.
_INSERT = f"""
INSERT INTO queue_app_job ({", ".join((*EACH, *COMMON, *UNSET))})
SELECT e.id, e.payload, e.unique_key, {", ".join(["%s"] * len(COMMON))}, {", ".join(UNSET.values())}
FROM JSON_TABLE(%s, '$[*]' COLUMNS (
  id CHAR(36) PATH '$[0]', payload LONGTEXT PATH '$[1]', unique_key VARCHAR(200) PATH '$[2]'
)) AS e ON DUPLICATE KEY UPDATE queue_app_job.id = queue_app_job.id
""".replace("{false}", "0")
_MADE = "SELECT id FROM queue_app_job WHERE id IN %s"
_TELL_NEW = """
INSERT INTO queue_app_jobevent (job_id, state, at, detail)
SELECT e.id, %s, %s, '{}' FROM JSON_TABLE(%s, '$[*]' COLUMNS (id CHAR(36) PATH '$')) AS e
"""
_STATE, _CREATED_AT = COMMON.index("state"), COMMON.index("created_at")

_LOCK_CLAIMABLE = f"""
SELECT {", ".join(COLUMNS)}, coalesce(expires_at <= {_NOW}, 0) FROM queue_app_job
WHERE id IN %s AND {CLAIMABLE.format(now=_NOW, worker="%s", true="1", false="0")} FOR UPDATE SKIP LOCKED
"""
_LOCK_CLAIMABLE_IN_TURN = _LOCK_CLAIMABLE.replace(
    "FOR UPDATE", "AND (turn = 3 OR queue NOT IN %s) FOR UPDATE"
)
_CLAIM = f"""
UPDATE queue_app_job SET state = 'PROCESSING', fence = fence + 1, owner = %s, started_at = {_NOW} WHERE id IN %s
"""
_LOCK_RUNNING = "SELECT id, fence FROM queue_app_job WHERE id IN %s AND state = 'PROCESSING' FOR UPDATE"
_FINISH = f"""
UPDATE queue_app_job AS j JOIN JSON_TABLE(%s, '$[*]' COLUMNS (
  id CHAR(36) PATH '$[0]', state VARCHAR(12) PATH '$[1]', ran INT PATH '$[2]', result LONGTEXT PATH '$[3]',
  error LONGTEXT PATH '$[4]', delay_s DOUBLE PATH '$[5]'
)) AS e ON j.id = e.id SET
  j.state = e.state,
  j.attempt = j.attempt + e.ran,
  j.suspect = 0,
  j.is_marked = 0,
  j.turn = CASE WHEN e.state IN ('FAILED', 'PENDING') AND j.turn > 0 THEN 1 ELSE 0 END,
  j.result = coalesce(e.result, j.result),
  j.last_error = coalesce(e.error, j.last_error),
  j.run_after = coalesce({_NOW} + INTERVAL e.delay_s * 1000000 MICROSECOND, j.run_after),
  j.published_at = CASE WHEN e.state IN ('FAILED', 'PENDING') THEN NULL ELSE j.published_at END,
  j.finished_at = CASE WHEN e.state IN ('FAILED', 'PENDING') THEN NULL ELSE {_NOW} END,
  j.unique_key = CASE WHEN e.state IN ('FAILED', 'PENDING') OR j.unique_until IS NOT NULL THEN j.unique_key END
"""
_TELL = f"INSERT INTO queue_app_jobevent (job_id, state, at, worker, detail) VALUES (%s, %s, {_NOW}, %s, %s)"


def insert(cursor: Any, new: New) -> set[UUID]:
    ids = [_id(id) for id in new.ids]
    common = [_id(value) if isinstance(value, UUID) else value for value in new.common]
    cursor.execute(
        _INSERT, [*common, json.dumps(list(zip(ids, new.payloads, new.keys or repeat(None), strict=False)))]
    )
    if new.keys:
        cursor.execute(_MADE, [tuple(ids)])
        ids = [str(row[0]) for row in cursor.fetchall()]
    cursor.execute(_TELL_NEW, [common[_STATE], common[_CREATED_AT], json.dumps(ids)])
    return {UUID(id) for id in ids}


def exchange(
    cursor: Any, worker: UUID, ids: Sequence[UUID], ends: Sequence[End], governed: Collection[str]
) -> tuple[list[Claimed], set[UUID]]:
    with transaction.atomic():
        accepted = finish(cursor, worker, ends) if ends else set()
        return _claim(cursor, worker, ids, governed) if ids else [], accepted


def _claim(cursor: Any, worker: UUID, ids: Sequence[UUID], governed: Collection[str]) -> list[Claimed]:
    me = _id(worker)
    values: list[Any] = [tuple(_id(id) for id in sorted(ids)), me, me]
    if governed:
        cursor.execute(_LOCK_CLAIMABLE_IN_TURN, [*values, tuple(governed)])
    else:
        cursor.execute(_LOCK_CLAIMABLE, values)
    taken = [job._replace(fence=job.fence + 1) for job in map(claimed, cursor.fetchall())]
    if taken:
        cursor.execute(_CLAIM, [me, tuple(_id(job.id) for job in taken)])
        cursor.executemany(_TELL, [[_id(job.id), "PROCESSING", me, "{}"] for job in taken])
    return taken


def finish(cursor: Any, worker: UUID, ends: Sequence[End]) -> set[UUID]:
    cursor.execute(_LOCK_RUNNING, [tuple(_id(end.id) for end in sorted(ends))])
    standing = {UUID(str(id)): fence for id, fence in cursor.fetchall()}
    accepted = [end for end in ends if standing.get(end.id) == end.fence]
    if accepted:
        steps = [[_id(end.id), end.state, end.ran, end.result, end.error, end.delay_s] for end in accepted]
        cursor.execute(_FINISH, [json.dumps(steps)])
        cursor.executemany(_TELL, [[_id(end.id), end.state, _id(worker), end.detail] for end in accepted])
    return {end.id for end in accepted}


def now(cursor: Any) -> datetime:
    cursor.execute(f"SELECT {_NOW}")
    found: datetime = cursor.fetchone()[0]
    return found


def _id(value: UUID) -> str:
    """As the column holds it: a native uuid on MariaDB 10.7 and newer, 32 hex digits elsewhere."""
    return str(value) if connection.features.has_native_uuid_field else value.hex
