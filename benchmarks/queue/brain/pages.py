"""`python -m benchmarks.queue.brain.pages SMALL JOBS REQUESTS SLOW_MS`: fill the ledger, ask for every page, and say what it cost.

A line of JSON for each page on stdout: its milliseconds with JOBS jobs, its queries with JOBS and with SMALL ones, and of its
slowest statement the text and, where a request took longer than SLOW_MS, the plan. Through Django's test client: all of
the site's middleware, views and templates, and no network. What could not be asked for is a line with a "note".
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from benchmarks.queue.brain.page_list import Page

_BUDGET_S = 12.0  # of one page: a slow one is asked for fewer times
_TIMEOUT_MS = 60_000  # of one statement
_SHOWN = 3000  # characters of a statement


@dataclass(slots=True)
class Cost:
    """ms, cpu_ms: of each request, from the call to the body, and this process's share of it."""

    page: str
    address: str
    queries: int
    database_ms: float  # of all queries of one request
    statement: str
    statement_ms: float
    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    few_queries: int | None = None
    plan: str = ""


def main() -> None:
    small, jobs, requests, slow_ms = (int(text) for text in sys.argv[1:])
    django.setup()
    logging.disable(logging.WARNING)  # Django tells each page that is refused
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    client = _client()
    _filled(small)
    few = {cost.page: cost.queries for cost in _asked(client) if isinstance(cost, Cost)}
    _filled(jobs)
    for cost in _asked(client):
        if isinstance(cost, str):
            print(json.dumps({"note": cost}), flush=True)
            continue
        cost.few_queries = few.get(cost.page)
        _time(client, cost, requests)
        if max(cost.ms) > slow_ms:
            cost.plan = _plan(cost.statement)
        cost.statement = cost.statement[:_SHOWN]
        print(json.dumps(asdict(cost)), flush=True)


def _filled(jobs: int) -> None:
    from django.db import connection

    from benchmarks.queue.brain.filling import fill

    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        fill(jobs)
        cursor.execute(f"SET statement_timeout = {_TIMEOUT_MS}")
    print(f"{jobs:,} jobs made in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def _client() -> Any:
    """Of an administrator."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client(SERVER_NAME="localhost", raise_request_exception=False)
    client.force_login(get_user_model().objects.create_superuser("bench", "bench@example.com", None))
    return client


def _asked(client: Any) -> Iterator[Cost | str]:
    """Each page and its queries, or the reason why there is no figure."""
    from benchmarks.queue.brain.page_list import pages, samples

    found, notes = pages(samples())
    yield from notes
    for page in found:
        answer = client.get(page.address)  # a warm-up as well
        if answer.status_code == 200:
            yield _queries(client, page)
        elif not (
            answer.status_code == 403 and page.name.endswith(", new")
        ):  # rows that only a machine writes
            yield f"{page.name}: {page.address} answered {answer.status_code}"


def _queries(client: Any, page: Page) -> Cost:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from queue_app import clock

    clock.now()  # it asks the database once a minute: not of this page's doing
    with CaptureQueriesContext(connection) as capture:
        client.get(page.address)
    queries = capture.captured_queries  # the next request forgets them
    slowest = max(queries, key=lambda query: float(query["time"]))
    took_ms = [float(query["time"]) * 1e3 for query in queries]
    return Cost(page.name, page.address, len(queries), sum(took_ms), slowest["sql"], max(took_ms))


def _time(client: Any, cost: Cost, requests: int) -> None:
    until = time.perf_counter() + _BUDGET_S
    while len(cost.ms) < requests and (not cost.ms or time.perf_counter() < until):
        began, cpu = time.perf_counter(), time.process_time()
        client.get(cost.address)
        cost.ms.append((time.perf_counter() - began) * 1e3)
        cost.cpu_ms.append((time.process_time() - cpu) * 1e3)


def _plan(statement: str) -> str:
    """The statement is one that the page has sent."""
    from django.db import DatabaseError, connection, transaction

    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement}")
            return "\n".join(row[0] for row in cursor.fetchall())
    except DatabaseError as error:
        return f"no plan: {error}"


if __name__ == "__main__":
    main()
