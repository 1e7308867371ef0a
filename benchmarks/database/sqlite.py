"""SQLite, four processes that write and two that read: the entry of our URL against Django's defaults.

A writer reads a row and saves it in one transaction, without a pause; a reader reads five rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.figures import Figure, judged, median, paired
from benchmarks.processes import ROOT, Broken, environment
from orm_app.databases import Entry, from_url

WRITERS, READERS = 4, 2
ROWS = 100
OURS, THEIRS = "brain", "Django's default"
UNEQUAL = (
    "SQLite: ours writes with synchronous=NORMAL in WAL mode: after a power cut the last commits may be gone, the file "
    "is whole. Django's default is synchronous=FULL with a rollback journal.",
)


@dataclass(frozen=True, slots=True)
class Done:
    """Of one process in one round."""

    commits: int
    locked: int  # transactions that ended with "database is locked"
    reads: int
    p99_ms: float


@dataclass(slots=True)
class Side:
    entry: Entry
    commits_per_s: list[float] = field(default_factory=list)
    reads_per_s: list[float] = field(default_factory=list)
    write_p99_ms: list[float] = field(default_factory=list)
    commits: int = 0
    locked: int = 0

    def run(self, seconds: float) -> None:
        writers = [_start(self.entry, "write", seconds) for _ in range(WRITERS)]
        readers = [_start(self.entry, "read", seconds) for _ in range(READERS)]
        for process in (*writers, *readers):
            _line(process)  # "ready"
        for process in (*writers, *readers):
            process.stdin.write("go\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        wrote, read = [_done(process) for process in writers], [_done(process) for process in readers]
        commits = sum(one.commits for one in wrote)
        self.commits_per_s.append(commits / seconds)
        self.reads_per_s.append(sum(one.reads for one in read) / seconds)
        self.write_p99_ms.append(max(one.p99_ms for one in wrote))
        self.commits += commits
        self.locked += sum(one.locked for one in (*wrote, *read))

    def locked_share(self) -> str:
        return f"{self.locked} of {self.commits + self.locked} ({self.locked / (self.commits + self.locked):.1%})"


def figures(folder: Path, *, quick: bool) -> Iterator[Figure]:
    rounds, seconds = (3, 2.0) if quick else (7, 4.0)
    sides = {OURS: Side(_ours(folder)), THEIRS: Side(_theirs(folder))}
    for side in sides.values():
        process = _start(side.entry, "fill", 0)
        _line(process)
        process.wait(30)
    for number in range(rounds):
        for name in (OURS, THEIRS) if number % 2 == 0 else (THEIRS, OURS):
            sides[name].run(seconds)
    ours, theirs = sides[OURS], sides[THEIRS]
    locked = {name: side.locked_share() for name, side in sides.items()}
    yield judged("SQLite: database is locked", ours.locked, "errors", 0, locked, at_most=True)
    yield paired("SQLite: commits", (OURS, ours.commits_per_s), (THEIRS, theirs.commits_per_s), "/s", 1.3)
    yield paired("SQLite: reads", (OURS, ours.reads_per_s), (THEIRS, theirs.reads_per_s), "/s", 5.0)
    p99 = {name: median(side.write_p99_ms, "ms") for name, side in sides.items()}
    slowest = max(ours.write_p99_ms)
    yield judged("SQLite: p99 of a write", slowest, "ms", None, p99)


def _ours(folder: Path) -> Entry:
    return from_url(f"sqlite:///{folder / 'ours.sqlite3'}")


def _theirs(folder: Path) -> Entry:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "theirs.sqlite3"), "OPTIONS": {}}


def _start(entry: Entry, what: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.database.sqlite", what, str(seconds)]
    env = environment(BENCH_DATABASE=json.dumps(entry))
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise Broken(f"a process of the SQLite benchmark ended with exit code {process.wait(10)}")
    return line


def _done(process: subprocess.Popen[str]) -> Done:
    found = Done(**json.loads(_line(process)))
    process.communicate(timeout=30)
    return found


# --- in the processes --------------------------------------------------------------------------------------------------


def main() -> None:
    import os

    from benchmarks.database.shop import site

    what, seconds = sys.argv[1], float(sys.argv[2])
    # A process that works on and on keeps its connection.
    site.configure(json.loads(os.environ["BENCH_DATABASE"]) | {"CONN_MAX_AGE": None})
    if what == "fill":
        site.fill(ROWS)
        print("filled", flush=True)
        return
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(_write(seconds) if what == "write" else _read(seconds))), flush=True)


def _write(seconds: float) -> Done:
    import random
    import time

    from django.db import OperationalError, transaction

    from benchmarks.database.shop.models import Item

    took_ms: list[float] = []
    locked, end = 0, time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        try:
            with transaction.atomic():
                item = Item.objects.get(pk=random.randint(1, ROWS))
                item.n += 1
                item.save()
        except OperationalError:
            locked += 1
        else:
            took_ms.append((time.perf_counter() - began) * 1000)
    return Done(len(took_ms), locked, 0, _p99(took_ms))


def _read(seconds: float) -> Done:
    import time

    from django.db import OperationalError

    from benchmarks.database.shop.models import Item

    took_ms: list[float] = []
    locked, end = 0, time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        try:
            list(Item.objects.filter(n__gt=5)[:5])
        except OperationalError:
            locked += 1
        else:
            took_ms.append((time.perf_counter() - began) * 1000)
    return Done(0, locked, len(took_ms), _p99(took_ms))


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


if __name__ == "__main__":
    main()
