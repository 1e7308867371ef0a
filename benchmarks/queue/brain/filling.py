"""A ledger as after a month of work, made in PostgreSQL set by set: a million jobs in a minute or two.

number of a job → its time, its id, its queue, task and tenant, its state → rows of every table that a page reads

The number is the order in which jobs were enqueued, so rows and ids lie in the tables as time would have laid them. What
is said about a job follows from its number by a hash, the same at each run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.db import connection, models

from queue_app.levels import AGES, LEVELS, LEVELS_OF_TENANT
from queue_app.models import (
    Alert,
    BulkAction,
    Firing,
    Job,
    JobEvent,
    Lease,
    Member,
    Notice,
    Queue,
    Rollup,
    RollupLevel,
    Schedule,
    Silence,
    Tag,
    Tenant,
    Worker,
    Workflow,
)

QUEUES, TENANTS, FAILURES = 30, 200, 300  # besides one queue and one task that hardly ever have a job
_DAYS = 30
_FAIR = 3  # queues with limits; the jobs that wait there wait for their turn
_MODELS = (
    Job, JobEvent, Tag, Workflow, Member, Rollup, RollupLevel, Worker, Queue, Tenant, Schedule, Firing, BulkAction, Lease, Alert,
    Silence, Notice,
)  # fmt: skip

# All of it truly immutable, so that PostgreSQL inlines it: a timestamp less an interval is not, nor is text || number.
_FUNCTIONS = """
CREATE OR REPLACE FUNCTION bench_at(n bigint) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS
    $$ SELECT to_timestamp(:epoch - :days * 86400.0::float8 * (:jobs - n) / :jobs) $$;
CREATE OR REPLACE FUNCTION bench_r(n bigint, what text) RETURNS float8 IMMUTABLE LANGUAGE sql AS
    $$ SELECT (hashint8extended(n, hashtext(what)) & 2147483647) / 2147483648.0::float8 $$;
CREATE OR REPLACE FUNCTION bench_id(n bigint, what text) RETURNS uuid IMMUTABLE LANGUAGE sql AS
    $$ SELECT (lpad(to_hex((extract(epoch FROM bench_at(n)) * 1000)::bigint), 12, '0') || '7'
               || substr(md5(what || n::text), 1, 3) || '8' || substr(md5(what || n::text), 4, 15))::uuid $$;
CREATE OR REPLACE FUNCTION bench_uuid(what text) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT md5(what)::uuid $$;
"""

# Most of it in few queues, tasks and tenants: a square law. One in twenty waits, one in fifty is a dead letter.
_FACTS = """
SELECT n, bench_id(n, 'job') AS id, bench_at(n) AS at, q, CASE WHEN rare THEN 'rare' ELSE 'q' || lpad(q::text, 2, '0') END AS queue,
       CASE WHEN rare THEN 'shop.rare' ELSE 'shop.task_' || lpad((q * 2 + n % 2)::text, 2, '0') END AS name,
       CASE WHEN bench_r(n, 't?') < 0.2 THEN ''
            ELSE 'tenant-' || lpad(floor(:tenants * bench_r(n, 't') ^ 2)::text, 3, '0') END AS tenant,
       state, state IN ('PENDING', 'FAILED', 'PROCESSING') AS is_open,
       floor(:failures * bench_r(n, 'f') ^ 3)::int AS failure,
       bench_uuid('worker' || floor(:workers * bench_r(n, 'w'))) AS worker,
       (0.02 + 2 * bench_r(n, 'd') ^ 4) * interval '1 second' AS waited,
       (0.005 + 20 * bench_r(n, 'l') ^ 8) * interval '1 second' AS took,
       CASE WHEN n <= :big THEN 0 WHEN n % :spread < 20 THEN n / :spread + 1 END AS flow
FROM (SELECT n, floor(:queues * bench_r(n, 'q') ^ 2)::int AS q, n % GREATEST(:jobs / 20, 50) = 3 AS rare,
             CASE WHEN n > :jobs * 0.9 AND n % 2 = 0
                  THEN CASE WHEN n % 100 = 0 THEN 'FAILED' WHEN n % 500 = 2 THEN 'PROCESSING' ELSE 'PENDING' END
                  WHEN n % 50 = 7 THEN 'DEAD_LETTER' WHEN n % 100 = 3 THEN 'CANCELLED' ELSE 'COMPLETED' END AS state
      FROM generate_series(1, :jobs) AS n OFFSET 0) AS drawn
"""

_ERROR = """
jsonb_build_object('type', 'ShopError' || failure % 40,
    'message', 'order ' || n || ' could not be charged: reason ' || failure,
    'traceback', 'Traceback (most recent call last):' || repeat(E'\\n  File "/srv/shop/tasks.py", line 10, in charge', 30))
"""


def fill(jobs: int) -> None:
    """Empty the ledger's tables and fill them. jobs: a thousand or more; the other tables keep their share to it."""
    small = jobs < 10_000
    terms: dict[str, Any] = {
        "jobs": jobs,
        "days": _DAYS,
        "queues": 5 if small else QUEUES,
        "tenants": 10 if small else TENANTS,
        "failures": 10 if small else FAILURES,
        "workers": 4 if small else 40,
        "schedules": 10 if small else 100,
        "firings": max(10, jobs * 720 // 1_000_000),  # of each: hourly for 30 days
        "big": jobs // 200,  # jobs in the largest workflow
        "spread": max(200, jobs // 1000),  # jobs from the start of one workflow to the next one's
        "fair": _FAIR,
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now = cursor.fetchone()[0]
        terms |= {"now": now.isoformat(), "epoch": now.timestamp()}
        tables = ", ".join(f'"{model._meta.db_table}"' for model in _MODELS)
        cursor.execute(f"SET synchronous_commit = off; TRUNCATE {tables} RESTART IDENTITY CASCADE")
        cursor.execute(_with(terms, _FUNCTIONS))
        cursor.execute(
            f"DROP TABLE IF EXISTS bench_fact; CREATE UNLOGGED TABLE bench_fact AS {_with(terms, _FACTS)}"
        )
        for model, columns, source in _rows():
            _insert(cursor, model, columns, source, terms)
        cursor.execute("DROP TABLE bench_fact")
        for model in _MODELS:
            cursor.execute(f'VACUUM (ANALYZE) "{model._meta.db_table}"')
        cursor.execute("RESET synchronous_commit; CHECKPOINT")


def _insert(
    cursor: Any, model: type[models.Model], columns: Mapping[str, str], source: str, terms: Mapping[str, Any]
) -> None:
    """columns: column → SQL over `source`. A column that is not named gets its field's default, as the ORM would give."""
    defaults: dict[str, Any] = {}
    for field in model._meta.concrete_fields:
        auto = field.primary_key and isinstance(field, models.AutoField)
        if field.column not in columns and not field.null and not field.has_db_default() and not auto:
            defaults[field.column] = field.get_db_prep_save(field.get_default(), connection)
    names = ", ".join(f'"{name}"' for name in (*columns, *defaults))
    made = _with(terms, ", ".join(columns.values())).replace("%", "%%")
    values = ", ".join([made, *["%s"] * len(defaults)])
    rows = _with(terms, source).replace("%", "%%")
    text = f'INSERT INTO "{model._meta.db_table}" ({names}) SELECT {values} {rows}'
    cursor.execute(text, list(defaults.values()))


def _with(terms: Mapping[str, Any], sql: str) -> str:
    """`:name` becomes the term of that name; `::type` stays."""
    return re.sub(r"(?<!:):([a-z]+)\b", lambda found: str(terms[found[1]]), sql)


def _rows() -> list[tuple[type[models.Model], dict[str, str], str]]:
    return [
        (Queue, _QUEUE, "FROM (SELECT DISTINCT q, queue, is_rare FROM (SELECT q, queue, queue = 'rare' AS is_rare"
                        " FROM bench_fact WHERE queue <> 'rare' UNION SELECT 99, 'rare', true) AS a) AS b"),
        (Worker, _WORKER, "FROM generate_series(0, :workers * 5 - 1) AS w"),
        (Job, _JOB, "FROM bench_fact ORDER BY n"),
        (JobEvent, _EVENT, _STEPS),
        (Workflow, _WORKFLOW, "FROM (SELECT flow, min(n) AS first, count(*) AS jobs, max(at) AS last,"
                              " count(*) FILTER (WHERE NOT is_open) AS tried,"
                              " count(*) FILTER (WHERE state = 'COMPLETED') AS completed,"
                              " count(*) FILTER (WHERE state = 'DEAD_LETTER') AS dead,"
                              " count(*) FILTER (WHERE state = 'CANCELLED') AS cancelled, bool_or(is_open) AS runs"
                              " FROM bench_fact WHERE flow IS NOT NULL GROUP BY flow) AS flows ORDER BY first"),
        (Member, _MEMBER, "FROM (SELECT *, row_number() OVER (PARTITION BY flow ORDER BY n) - 1 AS position,"
                          " min(n) OVER (PARTITION BY flow) AS first FROM bench_fact WHERE flow IS NOT NULL) AS placed"),
        *_levels(),
        (RollupLevel, {"step_s": "s", "upto": f"{_floored('s', 'now()')}", "kept_from": f"':now'::timestamptz - CASE WHEN s < 3600 THEN 2 ELSE {_DAYS} END * interval '1 day'"},
         f"FROM unnest(ARRAY[{', '.join(str(step_s) for step_s in LEVELS)}]) AS s"),
        (Rollup, _rollup("0", "at") | {"tenant": "''"}, _spans("'1970-01-01T00:00Z'::timestamptz", "true").replace(", tenant", "")),
        (Tenant, _TENANT, "FROM generate_series(0, :tenants - 1) AS t CROSS JOIN generate_series(0, :fair - 1) AS q"),
        (Schedule, _SCHEDULE, "FROM generate_series(0, :schedules - 1) AS s"),
        (Firing, _FIRING, "FROM generate_series(1, :firings) AS f CROSS JOIN queue_app_schedule AS s ORDER BY f, s.id"),
        (Tag, {"job_id": "id", "name": "tag"}, _TAGS),
        (BulkAction, _BULK, "FROM generate_series(1, :schedules) AS r"),
        (Alert, _ALERT, "FROM generate_series(1, :schedules * 20) AS r"),
        (Silence, _SILENCE, "FROM generate_series(1, :schedules) AS r"),
        (Notice, _NOTICE, "FROM generate_series(1, :schedules * 20) AS r"),
        (Lease, {"name": "'rollups'", "position": "'1'", "until": "now()"}, ""),
    ]  # fmt: skip


_OPEN_TURN = "CASE WHEN q < :fair AND queue <> 'rare' AND is_open THEN CASE WHEN state = 'PROCESSING' THEN 3 ELSE 2 END ELSE 0 END"
_JOB = {
    "id": "id",
    "name": "name",
    "queue": "queue",
    "delivery": "CASE WHEN n % 10 = 1 THEN 'broker' ELSE 'ledger' END",
    "tenant": "tenant",
    "priority": "CASE n % 10 WHEN 0 THEN 6 WHEN 1 THEN 0 ELSE 3 END",
    "payload": "jsonb_build_object('order', n, 'customer', jsonb_build_object('id', n % 5000, 'country',"
    " (ARRAY['DE', 'FR', 'US', 'JP'])[n % 4 + 1]), 'lines', jsonb_build_array(n % 97, n % 89, n % 83),"
    " 'note', repeat('as ordered ', 12))",
    "state": "state",
    "attempt": "CASE state WHEN 'DEAD_LETTER' THEN 4 WHEN 'FAILED' THEN 1 WHEN 'COMPLETED' THEN 1 ELSE 0 END",
    "max_attempts": "4",
    "run_after": "CASE WHEN state = 'FAILED' OR (state = 'PENDING' AND n % 5 = 0) THEN now() + interval '1 day' END",
    "published_at": "CASE WHEN state <> 'FAILED' THEN at END",
    "owner": "CASE WHEN state <> 'PENDING' THEN worker END",
    "fence": "CASE WHEN state = 'PENDING' THEN 0 ELSE 1 END",
    "turn": _OPEN_TURN,
    "parent": "CASE WHEN n % 20 = 9 THEN bench_id(n - 8, 'job') END",
    "workflow": "CASE WHEN flow IS NOT NULL THEN bench_id(flow, 'flow') END",
    "request_id": "CASE WHEN n % 2 = 0 THEN 'request-' || n / 6 ELSE '' END",
    "result": "CASE WHEN state = 'COMPLETED' THEN '{\"charged\": true}'::jsonb END",
    "last_error": f"CASE WHEN state IN ('DEAD_LETTER', 'FAILED') THEN {_ERROR} END",
    "fingerprint": "CASE WHEN state = 'DEAD_LETTER' THEN substr(md5('failure' || failure), 1, 16) ELSE '' END",
    "created_at": "at",
    "started_at": "CASE WHEN state NOT IN ('PENDING', 'CANCELLED') THEN at + waited END",
    "finished_at": "CASE WHEN NOT is_open THEN at + waited + took END",
}
# A job that is over has three steps, a dead letter has nine, one that waits has one.
_STEPS = """FROM (
SELECT n, id, 'PENDING' AS state, at, NULL::uuid AS worker FROM bench_fact
UNION ALL SELECT n, id, 'PROCESSING', at + waited, worker FROM bench_fact WHERE state IN ('COMPLETED', 'PROCESSING')
UNION ALL SELECT n, id, CASE again % 2 WHEN 1 THEN 'PROCESSING' ELSE 'FAILED' END, at + waited + took * (again / 8.0), worker
    FROM bench_fact CROSS JOIN generate_series(1, 7) AS again WHERE state = 'DEAD_LETTER'
UNION ALL SELECT n, id, state, at + waited + took, worker FROM bench_fact WHERE NOT is_open
) AS steps ORDER BY n, at"""
_EVENT = {"job_id": "id", "state": "state", "at": "at", "worker": "worker", "detail": "'{}'::jsonb"}
_QUEUE = {
    "name": "queue",
    "delivery": "''",
    "paused": "q = 4",
    "is_fair": "q < :fair",
    "max_concurrency": "CASE WHEN q < :fair THEN 100 END",
    "created_at": "now() - interval '60 days'",
}
_TENANT = {
    "queue_id": "'q' || lpad(q::text, 2, '0')",
    "name": "'tenant-' || lpad(t::text, 3, '0')",
    "weight": "1 + t % 5",
    "seen_at": "now()",
}
_WORKER = {
    "id": "bench_uuid('worker' || w)",
    "host": "'host-' || w % 10",
    "pid": "1000 + w",
    "pool": "'threads'",
    "concurrency": "8",
    "queues": '\'["q00", "q01"]\'::jsonb',
    "memory_bytes": "100000000",
    "ended": "w * 1000",
    "started_at": "now() - interval '1 day' - w * interval '1 hour'",
    "last_seen_at": "now()",
    # Those that the jobs name are alive, the others have gone.
    "lease_until": "CASE WHEN w < :workers THEN now() + interval '7 days' ELSE now() - interval '1 hour' END",
    "stopped_at": "CASE WHEN w >= :workers THEN now() - interval '1 hour' END",
}
_WORKFLOW = {
    "id": "bench_id(flow, 'flow')",
    "kind": "(ARRAY['chain', 'group', 'batch'])[flow % 3 + 1]",
    "name": "CASE WHEN flow % 2 = 0 THEN 'import ' || flow ELSE '' END",
    "total": "jobs",
    "tried": "tried",
    "completed": "completed",
    "dead": "dead",
    "cancelled": "cancelled",
    "created_at": "bench_at(first)",
    "finished_at": "CASE WHEN NOT runs AND dead = 0 THEN last + interval '1 minute' END",
}
_MEMBER = {
    "job": "id",
    "workflow_id": "bench_id(flow, 'flow')",
    "position": "position",
    "role": "''",
    "behind": "CASE WHEN position > 0 THEN position END",
    "opens": "position + 1",
    "is_tried": "NOT is_open",
    "outcome": "CASE WHEN is_open THEN '' ELSE state END",
}
_SPANS = """FROM (SELECT {span} AS at, queue, name, tenant, count(*) AS jobs,
    count(*) FILTER (WHERE state = 'COMPLETED') AS completed, count(*) FILTER (WHERE state = 'DEAD_LETTER') AS dead,
    count(*) FILTER (WHERE state = 'CANCELLED') AS cancelled,
    sum(extract(epoch FROM waited)) AS wait_s, sum(extract(epoch FROM took)) AS run_s
    FROM bench_fact WHERE NOT is_open AND {which} GROUP BY 1, queue, name, tenant) AS spans ORDER BY at"""


def _floored(step_s: str, at: str) -> str:
    return f"to_timestamp(floor(extract(epoch FROM {at}) / {step_s}) * {step_s})"


def _levels() -> list[tuple[type[models.Model], dict[str, str], str]]:
    """Each level of the statistics as far back as it is kept by default, of all tenants and of each."""
    found = []
    for step_s in LEVELS:
        days = 2 if step_s in AGES[0] else _DAYS
        which = f"at >= ':now'::timestamptz - interval '{days} days'"
        spans = _spans(_floored(str(step_s), "at + waited + took"), which)
        found.append((Rollup, _rollup(str(step_s), "at") | {"tenant": "''"}, spans.replace(", tenant", "")))
        if step_s in LEVELS_OF_TENANT:
            of_tenants = _spans(_floored(str(step_s), "at + waited + took"), f"{which} AND tenant <> ''")
            found.append((Rollup, _rollup(str(step_s), "at"), of_tenants))
    return found


def _spans(span: str, which: str) -> str:
    return _SPANS.format(span=span, which=which)


def _rollup(step_s: str, at: str) -> dict[str, str]:
    """All of a span's waits in the bucket of their mean, and its runs too: one job in a span is the rule."""
    bucket = "LEAST(240, GREATEST(0, ceil(ln({0} / jobs / 0.001) / ln(1.1))))::int"
    return {
        "step_s": step_s,
        "at": at,
        "queue": "queue",
        "name": "name",
        "tenant": "tenant",
        "started": "jobs - cancelled + dead * 3",
        "completed": "completed",
        "failed": "dead * 3",
        "dead": "dead",
        "cancelled": "cancelled",
        "wait": f"jsonb_build_object({bucket.format('wait_s')}, jobs)",
        "wait_s": "wait_s",
        "run": f"jsonb_build_object({bucket.format('run_s')}, jobs)",
        "run_s": "run_s",
    }


_SCHEDULE = {
    "name": "'schedule ' || lpad(s::text, 3, '0')",
    "task": "'shop.task_' || lpad((s % 60)::text, 2, '0')",
    "payload": "'{}'::jsonb",
    "queue": "''",
    "priority": "3",
    "tenant": "''",
    "cron": "CASE WHEN s % 2 = 0 THEN s % 60 || ' * * * *' ELSE '' END",
    "interval_s": "CASE WHEN s % 2 = 1 THEN 3600 END",
    "paused": "s % 10 = 0",
    "starts_at": "now() - interval '30 days'",
    "next_at": "now() + interval '30 minutes'",
    "last_at": "now() - interval '30 minutes'",
}
_FIRING = {
    "schedule_id": "s.id",
    "due_at": "now() - (:firings - f) * interval '1 hour'",
    "at": "now() - (:firings - f) * interval '1 hour' + interval '1 second'",
    "outcome": "CASE WHEN f % 50 = 3 THEN 'missed' ELSE 'fired' END",
    "cause": "'clock'",
    "job": "bench_id((f * 1000 + s.id) % :jobs + 1, 'job')",
}
_BULK = {
    "action": "(ARRAY['replay', 'discard', 'cancel', 'run'])[r % 4 + 1]",
    "selection": "jsonb_build_object('queue', 'q' || lpad((r % 30)::text, 2, '0'))",
    "seen": "100",
    "id": "bench_uuid('replay' || r)",
    "rate": "50",
    "wanted": "1000",
    "done": "1000",
    "actor": "'admin'",
    "created_at": "now() - r * interval '1 hour'",
    "counted_to": "now()",
    "finished_at": "CASE WHEN r > 1 THEN now() END",
}
_ALERT = {
    "name": "(ARRAY['latency', 'failures', 'dead-letters'])[r % 3 + 1]",
    "condition": "(ARRAY['latency', 'failures', 'new_dead'])[r % 3 + 1]",
    "queue": "'q' || lpad((r % 30)::text, 2, '0')",
    "state": "CASE WHEN r > 20 THEN 'resolved' ELSE 'firing' END",
    "value": "r",
    "words": "'q: 12 dead letters in the last 10 minutes (rule: 1)'",
    "since": "now() - r * interval '1 minute'",
    "fired_at": "now() - r * interval '1 minute'",
    "resolved_at": "CASE WHEN r > 20 THEN now() END",
    "open_key": "CASE WHEN r <= 20 THEN 'key ' || r END",
}
_SILENCE = {"until": "now() + (r - 50) * interval '1 hour'", "reason": "'a deployment'", "actor": "'admin'"}
_NOTICE = {
    "id": "bench_uuid('notice' || r)",
    "channel": "'webhook 1'",
    "body": "jsonb_build_object('id', r, 'text', 'FIRING latency: emails')",
    "sent_at": "now()",
}
# One job in ten has a tag of twenty, one in a thousand the rare one.
_TAGS = """
FROM (SELECT n, id, 'tag-' || n / 10 % 20 AS tag FROM bench_fact WHERE n % 10 = 0
      UNION ALL SELECT n, id, 'rare' FROM bench_fact WHERE n % 1000 = 500) AS tagged ORDER BY n
"""
