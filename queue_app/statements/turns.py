"""The governor's look at who waits: the same words on every database, and never through a backlog.

`NOT (turn = 0)` stands everywhere: SQLite takes the partial index only for a query that repeats its condition as text.
"""

from __future__ import annotations

_WAITS = "NOT (turn = 0) AND turn = 2"
PAGE = 900  # names in one statement: MySQL and MariaDB end a recursion after 1000 rounds

ANY = f"SELECT EXISTS (SELECT 1 FROM queue_app_job WHERE {_WAITS} AND queue = %s)"

_NEXT = f"SELECT MIN(j.tenant) FROM queue_app_job AS j WHERE {_WAITS} AND j.queue = %s AND j.tenant"
# From each name to the next one by the index, past all the rows between them.
TENANTS = f"""
WITH RECURSIVE found AS (
  SELECT ({_NEXT} {{after}} %s) AS tenant, 1 AS number
  UNION ALL
  SELECT ({_NEXT} > found.tenant), number + 1 FROM found WHERE found.tenant IS NOT NULL AND number < {PAGE}
)
SELECT tenant FROM found WHERE tenant IS NOT NULL
"""
QUEUES = f"""
WITH RECURSIVE found AS (
  SELECT (SELECT MIN(j.queue) FROM queue_app_job AS j WHERE {_WAITS}) AS queue, 1 AS number
  UNION ALL
  SELECT (SELECT MIN(j.queue) FROM queue_app_job AS j WHERE {_WAITS} AND j.queue > found.queue), number + 1
  FROM found WHERE found.queue IS NOT NULL AND number < {PAGE}
)
SELECT queue FROM found WHERE queue IS NOT NULL
"""
FIRST = f"""
SELECT * FROM (
  SELECT {{number}} AS number, id, priority FROM queue_app_job
  WHERE {_WAITS} AND queue = %s AND tenant = %s ORDER BY priority DESC, id LIMIT {{jobs}}
) AS of_{{number}}
"""
