from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import ROOT, environment
from benchmarks.queue import pages
from benchmarks.queue.sides import SIDES, Urls
from tests import servers

LISTED = """
import django, json
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from benchmarks.queue.brain.filling import fill
fill(1000)
from benchmarks.queue.brain.page_list import QUERIES, pages, samples
found, notes = pages(samples())
print(json.dumps({"pages": {page.name: page.address for page in found}, "notes": notes, "asked": list(QUERIES)}))
"""


def cost(page: str = "admin job", ms: float = 100.0, queries: int = 5, few: int | None = 5) -> dict[str, Any]:
    return {
        "page": page,
        "address": "/admin/queue_app/job/",
        "ms": [ms] * 19 + [9000.0],
        "cpu_ms": [80.0] * 20,
        "queries": queries,
        "few_queries": few,
        "database_ms": 12.0,
        "statement": "SELECT 1",
        "statement_ms": 9.0,
        "plan": "Result",
    }


def test_judge__95th_percentile__is_held_against_the_goal_and_one_outlier_is_not() -> None:
    quick, slow, _ = pages.judge([cost(), cost(ms=301.0)])
    assert (quick.value, quick.unit, quick.reached, slow.reached) == (100.0, "ms", True, False)
    assert quick.sides == {"p50": "100 ms", "of it CPU": "80 ms", "SQL": "12 ms", "queries": "5"}


def test_judge__more_queries_than_with_few_rows__is_named() -> None:
    *_, growing = pages.judge([cost(), cost("api jobs", queries=55), cost("new", few=None)])
    assert (growing.value, growing.reached, growing.sides) == (1, False, {"pages": "api jobs"})
    *_, steady = pages.judge([cost()])
    assert (steady.reached, steady.sides) == (True, {"pages": "none"})


def test_told__slow_page__has_statement_and_plan() -> None:
    assert pages.told(cost()).splitlines()[1:] == ["/admin/queue_app/job/", "9 ms: SELECT 1", "Result"]


@pytest.mark.service
@pytest.mark.slow
def test_pages__filled_ledger__every_list_and_detail_page_is_found(tmp_path: Path) -> None:
    try:
        servers.binary("postgres")
    except servers.Missing as missing:
        if "CI" in os.environ:
            raise
        pytest.skip(f"{missing} is not installed")
    redis = servers.valkey(port=servers.free_port())
    with servers.postgresql() as url, redis as redis_url:
        variables = SIDES["ledger-pg"].variables(Urls(redis=redis_url, postgresql=url), tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", LISTED],
            cwd=ROOT,
            env=environment(PYTHONPATH=ROOT, BRAIN_DATA_DIR=tmp_path, **variables),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["notes"] == []
    assert set(found["asked"]) <= set(found["pages"])
    assert {"admin job, one", "admin schedule, new", "api jobs/<uuid:pk>"} <= set(found["pages"])
    assert not any("{" in address or "<" in address for address in found["pages"].values())
