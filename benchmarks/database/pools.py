"""Pools against a connection for each request and against kept ones (CONN_MAX_AGE): requests per second, connections.

client → uvicorn or a threaded WSGI server → one view, two queries → PostgreSQL or MariaDB
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, cost, judged, median, paired
from benchmarks.load import burst
from benchmarks.processes import ROOT, Broken, Process, environment, running
from orm_app.databases import Entry, from_url
from tests import servers

MAX_SIZE = 8
CLIENTS = 16
UNEQUAL = (
    "Pools check a connection before they lend it (psycopg: a query; ours: the socket, and a ping after 30 s of rest) "
    "and roll it back when they get it back; kept connections are not checked, which is Django's default.",
    "The WSGI server is Django's own, with a thread for each of the client's 16 connections.",
    "Client, server and database share one machine: connecting is cheap there, so the pools gain less than over a "
    "network or with TLS.",
)
POOL, NONE, KEPT = "pool", "connect per request", "CONN_MAX_AGE=60"


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int
    requests: int  # per round and side


FULL, QUICK = Size(7, 1000), Size(3, 300)


@dataclass(slots=True)
class Side:
    url: str
    process: Process
    sessions: Callable[[], int]  # that this side has on the server now
    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of the serving process, a request
    most: int = 0
    refused: int = 0  # rounds in which the server had no connection left

    def run(self, requests: int, *, may_fail: bool = False) -> None:
        cpu_s = self.process.cpu_s()
        with self._counting():
            try:
                done = burst("GET", self.url, count=requests, connections=CLIENTS, key="", expect=200)
            except Broken:
                if not may_fail:
                    raise
                self.refused += 1
                return
        self.per_s.append(done.per_second)
        self.cpu_us.append((self.process.cpu_s() - cpu_s) / requests * 1e6)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        is_over = threading.Event()

        def count() -> None:
            while not is_over.wait(0.02):
                self.most = max(self.most, self.sessions())

        thread = threading.Thread(target=count)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def figures(folder: Path, *, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    yield from postgresql(folder, size)
    yield from mysql(folder, size)


def postgresql(folder: Path, size: Size) -> Iterator[Figure]:
    with servers.postgresql() as url, _postgresql_sides(url, folder) as sides:
        pool, none, kept = (sides[name] for name in (POOL, NONE, KEPT))
        _measure({POOL: pool, NONE: none}, size)
        # Last, and for its connections alone: it takes all that the server has, and leaves the others none.
        for _ in range(2):
            kept.run(size.requests, may_fail=True)
    yield paired("PostgreSQL, ASGI: requests", (POOL, pool.per_s), (NONE, none.per_s), "/s", 1.3)
    yield cost("PostgreSQL, ASGI: CPU of the server process", pool.cpu_us, none.cpu_us, "µs", None)
    yield _connections("PostgreSQL, ASGI: connections", pool, kept)


def mysql(folder: Path, size: Size) -> Iterator[Figure]:
    for interface, goal in (("asgi", 1.0), ("wsgi", 0.9)):
        with servers.mariadb() as url, _mysql_sides(url, folder, interface) as sides:
            _measure(sides, size)
        pool, kept = sides[POOL], sides[KEPT]
        name = f"MariaDB, {interface.upper()}"
        yield paired(f"{name}: requests", (POOL, pool.per_s), (KEPT, kept.per_s), "/s", goal)
        yield cost(f"{name}: CPU of the server process", pool.cpu_us, kept.cpu_us, "µs", None)
        yield _connections(f"{name}: connections", pool, kept)


def _connections(name: str, pool: Side, kept: Side) -> Figure:
    refused = f", refused by the server in {kept.refused} rounds" if kept.refused else ""
    sides = {POOL: f"{pool.most}", KEPT: f"{kept.most}{refused}"}
    if kept.per_s:
        sides[KEPT] += f"; {median(kept.per_s, '/s')}"
    return judged(name, pool.most, "at most", MAX_SIZE, sides, at_most=True)


def _measure(sides: dict[str, Side], size: Size) -> None:
    names = list(sides)
    for side in sides.values():
        burst("GET", side.url, count=50, connections=CLIENTS, key="", expect=200)
    for number in range(size.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            sides[name].run(size.requests)


@contextlib.contextmanager
def _postgresql_sides(url: str, folder: Path) -> Iterator[dict[str, Side]]:
    import psycopg

    with psycopg.connect(url, autocommit=True) as asking, contextlib.ExitStack() as stack:
        sides = {}
        # Each side has a database of its own: that is how its sessions are told from the others'.
        for number, name in enumerate((POOL, NONE, KEPT)):
            asking.execute(f"CREATE DATABASE side_{number}")

            def sessions(number: int = number) -> int:
                row = asking.execute(
                    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = %s", [f"side_{number}"]
                ).fetchone()
                return int(row[0]) if row else 0

            entry = _as_side(from_url(url.rpartition("/")[0] + f"/side_{number}"), name)
            sides[name] = stack.enter_context(_served(f"pg-{number}", entry, "asgi", folder, sessions))
        yield sides


@contextlib.contextmanager
def _mysql_sides(url: str, folder: Path, interface: str) -> Iterator[dict[str, Side]]:
    import MySQLdb

    parts = urllib.parse.urlsplit(url)
    with (
        contextlib.closing(
            MySQLdb.connect(host=parts.hostname, port=parts.port, user=parts.username)
        ) as asking,
        contextlib.ExitStack() as stack,
    ):
        asking.autocommit(True)
        sides = {}

        def ask(sql: str) -> int:
            with asking.cursor() as cursor:
                cursor.execute(sql)
                row = cursor.fetchone()
                return int(row[0]) if row else 0

        ask("SET GLOBAL max_connections = 2000")  # or the kept connections would end the measurement
        for number, name in enumerate((POOL, KEPT)):
            ask(f"CREATE DATABASE side_{number} CHARACTER SET utf8mb4")

            def sessions(number: int = number) -> int:
                return ask(f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'side_{number}'")

            entry = _as_side(from_url(url.rpartition("/")[0] + f"/side_{number}"), name)
            label = f"my-{interface}-{number}"
            sides[name] = stack.enter_context(_served(label, entry, interface, folder, sessions))
        yield sides


def _as_side(entry: Entry, name: str) -> Entry:
    if name == POOL:
        entry["OPTIONS"]["pool"]["max_size"] = MAX_SIZE
        return entry
    plain = {"orm_app.mysql_pool": "django.db.backends.mysql"}.get(entry["ENGINE"], entry["ENGINE"])
    options = {key: value for key, value in entry["OPTIONS"].items() if key != "pool"}
    age_s = 60 if name == KEPT else 0
    return entry | {
        "ENGINE": plain,
        "OPTIONS": options,
        "CONN_MAX_AGE": age_s,
        "CONN_HEALTH_CHECKS": False,
    }


@contextlib.contextmanager
def _served(
    label: str, entry: dict[str, Any], interface: str, folder: Path, sessions: Callable[[], int]
) -> Iterator[Side]:
    env = environment(BENCH_DATABASE=json.dumps(entry))
    module, port = "benchmarks.database.shop.site", servers.free_port()
    _filled([sys.executable, "-m", module, "fill"], env)
    with running(label, [module, interface, str(port)], env=env, folder=folder) as process:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(process, url)
        yield Side(url, process, sessions)


def _wait_for(process: Process, url: str) -> None:
    def answers() -> bool:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)

    process.wait_for(answers)


def _filled(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"the tables could not be made:\n{done.stderr[-2000:]}")
