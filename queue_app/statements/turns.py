"""The governor's look at who waits, never through a backlog; one way for PostgreSQL and SQLite, steps of it for MySQL.

`NOT (turn = 0)` stands everywhere: SQLite takes the partial index only for a query that repeats its condition as text.
"""

from __future__ import annotations

_WAITS = "NOT (turn = 0) AND turn = 2"

ANY = f"SELECT EXISTS (SELECT 1 FROM queue_app_job WHERE {_WAITS} AND queue = %s)"

# Not MIN: by statistics of a moment ago, when nothing waited, PostgreSQL reads all that it thinks are few.
_NEXT = f"SELECT j.tenant FROM queue_app_job AS j WHERE {_WAITS} AND j.queue = %s AND j.tenant"
# From each name to the next one by the index, past all the rows between them.
TENANTS = f"""
WITH RECURSIVE found AS (
  SELECT ({_NEXT} >= %s ORDER BY j.tenant LIMIT 1) AS tenant
  UNION ALL
  SELECT ({_NEXT} > found.tenant ORDER BY j.tenant LIMIT 1) FROM found WHERE found.tenant IS NOT NULL
)
SELECT tenant FROM found WHERE tenant IS NOT NULL
"""
# MySQL and MariaDB look into an index at a value, not at another row's column: there it is a statement for each name.
NEXT_TENANT = f"{_NEXT} {{after}} %s ORDER BY j.tenant LIMIT 1"
_NEXT_QUEUE = f"SELECT j.queue FROM queue_app_job AS j WHERE {_WAITS}"
QUEUES = f"""
WITH RECURSIVE found AS (
  SELECT ({_NEXT_QUEUE} ORDER BY j.queue LIMIT 1) AS queue
  UNION ALL
  SELECT ({_NEXT_QUEUE} AND j.queue > found.queue ORDER BY j.queue LIMIT 1) FROM found WHERE found.queue IS NOT NULL
)
SELECT queue FROM found WHERE queue IS NOT NULL
"""
NEXT_QUEUE = f"{_NEXT_QUEUE} AND j.queue > %s ORDER BY j.queue LIMIT 1"
FIRST = f"""
SELECT * FROM (
  SELECT {{number}} AS number, id, priority FROM queue_app_job
  WHERE {_WAITS} AND queue = %s AND tenant = %s ORDER BY priority DESC, id LIMIT {{jobs}}
) AS of_{{number}}
"""
