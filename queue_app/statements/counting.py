"""What rollups read of the history, in each database's own words: steps counted by minute, queue, task, tenant and bucket.

A step to PROCESSING is measured from when the job was due, an end from the step to PROCESSING before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import OperationalError, connection, transaction

from queue_app.histograms import GROWTH, LOWEST_S


class Counted(NamedTuple):
    """Steps that are alike. minute: since 1970. bucket: of histograms.py, None when there is nothing to measure."""

    minute: int
    queue: str
    name: str
    tenant: str
    state: str
    bucket: int | None
    steps: int
    total_s: float


class Mark(NamedTuple):
    """The newest step at a moment, and the database's count of transactions then; 0 where that plays no part."""

    event: int
    horizon: int


@dataclass(frozen=True, slots=True)
class _Words:
    minute: str
    seconds: str  # between {since} and {at}
    action: str  # of {event}: its detail's, or NULL
    letters: str = ""  # so that names are told apart letter by letter


_ALL: Mapping[str, _Words] = {
    "postgresql": _Words(
        "floor(extract(epoch FROM e.at) / 60)::bigint",
        "extract(epoch FROM ({at} - {since}))::float8",
        "{event}.detail ->> 'action'",
    ),
    "sqlite": _Words(
        "CAST(strftime('%%s', e.at) AS INTEGER) / 60",
        "((julianday({at}) - julianday({since})) * 86400.0)",  # by the millisecond
        "CASE {event}.detail WHEN '{{}}' THEN NULL ELSE {event}.detail ->> '$.action' END",
    ),
    "mysql": _Words(
        "TIMESTAMPDIFF(MINUTE, '1970-01-01', e.at)",
        "(TIMESTAMPDIFF(MICROSECOND, {since}, {at}) / 1e6)",
        "JSON_UNQUOTE(JSON_EXTRACT({event}.detail, '$.action'))",
        "COLLATE utf8mb4_bin ",
    ),
}

# What people and the reconciler write beside the steps carries an action: only a cancel by hand is a step as well.
# Of a job on its first claim its own row knows all; only others need a look into their history.
_COUNT = """
WITH step AS (
  SELECT e.id, e.job_id, e.at, e.state, e.worker, {names}, j.run_after, j.created_at, j.started_at,
    j.last_error IS NULL AND j.crash_count = 0 AND j.fence <= 1 AND j.workflow IS NULL AS is_first, {minute} AS minute
  FROM queue_app_jobevent AS e {join} queue_app_job AS j ON j.id = e.job_id
  WHERE e.id > %s AND e.id <= %s AND e.state <> 'PENDING' AND (e.state = 'CANCELLED' OR {action_e} IS NULL)
), since AS (
  SELECT e.*, CASE
    WHEN e.state = 'PROCESSING' AND e.is_first THEN e.created_at
    WHEN e.state = 'PROCESSING' THEN coalesce((
      SELECT max(p.at) FROM queue_app_jobevent AS p WHERE p.job_id = e.job_id AND p.id < e.id
        AND p.state IN ('PENDING', 'FAILED') AND coalesce({action_p}, '') <> 'aged'
    ), e.created_at)
    WHEN e.worker IS NULL THEN NULL
    WHEN e.is_first THEN e.started_at
    ELSE (
      SELECT max(p.at) FROM queue_app_jobevent AS p WHERE p.job_id = e.job_id AND p.id < e.id
        AND p.state = 'PROCESSING' AND {action_p} IS NULL
    ) END AS since
  FROM step AS e
), took AS (
  SELECT minute, queue, name, tenant, state, {seconds} AS s FROM (
    SELECT e.*, CASE WHEN e.state = 'PROCESSING' AND e.run_after > e.since AND e.run_after <= e.at THEN e.run_after
      ELSE e.since END AS due
    FROM since AS e
  ) AS e
)
SELECT minute, queue, name, tenant, state,
  CASE WHEN s <= {lowest} THEN 0 WHEN s > {lowest} THEN CEILING(LN(s / {lowest}) / LN({growth})) END AS bucket,
  count(*), coalesce(sum(CASE WHEN s > 0 THEN s ELSE 0 END), 0)
FROM took GROUP BY 1, 2, 3, 4, 5, 6
"""

# Look each step's job up by its id: the planner's other way is to read all jobs for each part of the history.
_LOOK_UP = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off"


def count(after: int, upto: int) -> list[Counted]:
    """The steps with ids in (after, upto], counted."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_LOOK_UP)
        cursor.execute(_text(connection.vendor), [after, upto])
        return [_counted(row) for row in cursor.fetchall()]


def part(after: int, upto: int, most: int) -> int:
    """The id of the `most`-th step after `after`, `upto` at most."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM queue_app_jobevent WHERE id > %s AND id <= %s ORDER BY id LIMIT 1 OFFSET %s",
            [after, upto, most - 1],
        )
        found = cursor.fetchone()
    return int(found[0]) if found else upto


def mark() -> Mark:
    """Ids are given out in order, but transactions commit in theirs: an older step may still be on its way."""
    horizon = "0"
    if connection.vendor == "postgresql":
        horizon = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT coalesce(max(id), 0), {horizon} FROM queue_app_jobevent")
        return Mark(*map(int, cursor.fetchone()))


def is_settled(after: int, upto: int, horizon: int) -> bool:
    """Whether no step with an id in (after, upto] can still come: all transactions that were open at the mark have ended."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            return bool(cursor.fetchone()[0] >= horizon)
        if connection.vendor == "mysql":
            return _is_free(cursor, after, upto)
    return True  # SQLite: one writer at a time


def _is_free(cursor: Any, after: int, upto: int) -> bool:
    """A row that is not committed is locked; this sees it, and does not wait."""
    try:
        cursor.execute(
            "SELECT count(*) FROM queue_app_jobevent WHERE id > %s AND id <= %s FOR UPDATE NOWAIT",
            [after, upto],
        )
        cursor.fetchall()
    except OperationalError as error:
        if error.args[:1] not in ((1205,), (3572,)):  # MariaDB's and MySQL's word for a lock that is taken
            raise
        return False
    return True


def _text(vendor: str) -> str:
    words = _ALL[vendor]
    return _COUNT.format(
        minute=words.minute,
        names=", ".join(f"j.{name} {words.letters}AS {name}" for name in ("queue", "name", "tenant")),
        join="CROSS JOIN" if vendor == "sqlite" else "JOIN",  # SQLite: the steps first, then their jobs by id
        action_e=words.action.format(event="e"),
        action_p=words.action.format(event="p"),
        seconds=words.seconds.format(at="e.at", since="e.due"),
        lowest=LOWEST_S,
        growth=GROWTH,
    )


def _counted(row: Any) -> Counted:
    minute, queue, name, tenant, state, bucket, count, total_s = row
    number = None if bucket is None else int(bucket)
    return Counted(int(minute), queue, name, tenant, state, number, int(count), float(total_s))
