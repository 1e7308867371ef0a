"""Procrastinate on PostgreSQL; finished jobs stay in their table, as they do by default and in our ledger."""

from __future__ import annotations

import os

from procrastinate import App, PsycopgConnector

from benchmarks.queue.marks import aenter
from benchmarks.queue.producer import WORK_S

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_POSTGRESQL_URL"]))


@app.task(name="noop")
async def noop(n: int) -> None:
    await aenter(n)


@app.task(name="work_1ms")
async def work_1ms(n: int) -> None:
    await aenter(n, WORK_S["work_1ms"])
