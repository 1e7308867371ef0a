"""Pages: what the admin's and the API's pages cost with a million jobs, and whether they ask more of a larger table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import HOME
from benchmarks.figures import Figure, judged
from benchmarks.processes import ROOT, Broken, environment
from tests import servers

from .plan import Plan, say
from .rates import percentile
from .sides import SIDES, Urls

GOAL_MS = 300.0  # of the 95th percentile
FEW = 1_000  # jobs, for the number of queries
_LIMIT_S = 3600.0
_SIDE = "ledger-pg"  # whose settings they run with
_PLANS = "pages.txt"

Cost = dict[str, Any]  # a line of brain/pages.py


def figures(plan: Plan) -> list[Figure]:
    return plan.attempt("pages", lambda: _measured(plan))


def _measured(plan: Plan) -> list[Figure]:
    plan.up()  # nothing else runs meanwhile
    say(f"pages with {plan.size.page_jobs:,} jobs …")
    redis = servers.valkey(port=servers.free_port())
    with servers.scratch("bench") as home, servers.postgresql() as url, redis as redis_url:
        lines = _asked(home, Urls(redis=redis_url, postgresql=url), plan)
    for line in lines:
        if "note" in line:
            plan.note(f"page: {line['note']}")
    costs = [line for line in lines if "page" in line]
    _keep(costs)
    return judge(costs)


def _asked(home: Path, urls: Urls, plan: Plan) -> list[Cost]:
    variables = SIDES[_SIDE].variables(urls, home) | {"BRAIN_LOG_LEVEL": "ERROR"}
    sizes = [FEW, plan.size.page_jobs, plan.size.page_requests, round(GOAL_MS)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.queue.brain.pages", *map(str, sizes)],
        cwd=ROOT,
        env=environment(PYTHONPATH=ROOT, BRAIN_DATA_DIR=home / "data", **variables),
        stdout=subprocess.PIPE,
        text=True,
        timeout=_LIMIT_S,
    )
    if done.returncode:
        raise Broken(f"the pages could not be asked for: exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def judge(costs: Sequence[Cost]) -> list[Figure]:
    """Each page's 95th percentile, and how many pages ask more often than with few rows."""
    found = [_figure(cost) for cost in costs]
    growing = [cost["page"] for cost in costs if cost["few_queries"] not in (None, cost["queries"])]
    text = {"pages": ", ".join(growing) or "none"}
    what = f"pages whose number of queries is another with {FEW:,} jobs"
    return [*found, judged(what, len(growing), "", 0, text, at_most=True)]


def _figure(cost: Cost) -> Figure:
    sides = {
        "p50": f"{statistics.median(cost['ms']):,.0f} ms",
        "of it CPU": f"{statistics.median(cost['cpu_ms']):,.0f} ms",
        "SQL": f"{cost['database_ms']:,.0f} ms",
        "queries": str(cost["queries"]),
    }
    return judged(cost["page"], percentile(cost["ms"], 0.95), "ms", GOAL_MS, sides, at_most=True)


def _keep(costs: Iterable[Cost]) -> None:
    """The slowest statements of the slow pages, with their plans, for whoever is to mend them."""
    slow = [cost for cost in costs if percentile(cost["ms"], 0.95) > GOAL_MS]
    if not slow:
        return
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = HOME / _PLANS
    file.write_text("\n\n".join(map(told, slow)) + "\n")
    say(f"the slowest statement of each page above {GOAL_MS:.0f} ms, and its plan: {file.relative_to(ROOT)}")


def told(cost: Cost) -> str:
    p50, p95 = statistics.median(cost["ms"]), percentile(cost["ms"], 0.95)
    head = f"== {cost['page']}: p50 {p50:,.0f} ms, p95 {p95:,.0f} ms, {cost['queries']} queries of {cost['database_ms']:,.0f} ms"
    return f"{head}\n{cost['address']}\n{cost['statement_ms']:,.0f} ms: {cost['statement']}\n{cost['plan'] or 'no plan'}"
