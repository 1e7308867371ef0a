"""`db.query` against the bare QuerySet: reading, building, inserting; and page 10,000 against page 1.

The parent starts one process for each engine; both sides take turns in it, on one connection.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, judged, median, paired
from benchmarks.processes import ROOT, Broken, environment
from tests import servers

PAGE = 10_000
UNEQUAL = (
    "Query: ours checks the names in a query where they are written, the bare QuerySet when it compiles.",
    "Query: reading and building are counted in processor time of the caller, without the server's; pages in time.",
    "Query: bulk_insert makes 25,000 rows at a time in one transaction, bulk_create what Django's default is on the engine.",
)
_ENGINES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "SQLite": lambda folder: nullcontext(f"sqlite:///{folder}/query.sqlite3"),
    "PostgreSQL": lambda folder: servers.postgresql(),
    "MariaDB": lambda folder: servers.mariadb(),
}
Clock = Callable[[], float]  # seconds
Pairs = list[tuple[float, float]]  # (ours, the bare one), one of each round


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int
    reads: int  # of 100 rows, in a round
    rows: int  # inserted in a round
    inserts: int  # rounds of them
    page_rows: int  # the table of pages has PAGE times this


FULL, QUICK = Size(41, 10, 100_000, 5, 50), Size(15, 10, 20_000, 3, 20)


def figures(folder: Path, *, quick: bool) -> Iterator[Figure]:
    for engine, started in _ENGINES.items():
        with started(folder) as url:
            found = _child(url, quick=quick)
        yield from _judged(engine, found)


def _judged(engine: str, found: dict[str, Pairs]) -> Iterator[Figure]:
    read, build = _sides(found["read"], 1e6), _sides(found["build"], 1e6)
    over = sorted(100 * (ours / bare - 1) for ours, bare in found["read"])[len(found["read"]) // 2]
    told = {"db.query": median(read[0], "µs"), "QuerySet": median(read[1], "µs")}
    yield judged(f"{engine}: 100 rows read, added", over, "%", 5.0, told, at_most=True)
    more = sorted(1e6 * (ours - bare) for ours, bare in found["build"])[len(found["build"]) // 2]
    told = {"db.query": median(build[0], "µs"), "QuerySet": median(build[1], "µs")}
    yield judged(f"{engine}: a query built, added", more, "µs", 15.0, told, at_most=True)
    mine, plain = _sides(found["insert"], 1.0)
    rows_per_s = [found["rows"][0][0] / s for s in mine], [found["rows"][0][0] / s for s in plain]
    yield paired(
        f"{engine}: bulk_insert",
        ("bulk_insert", rows_per_s[0]),
        ("bulk_create", rows_per_s[1]),
        "rows/s",
        0.95,
    )
    for name, key, goal in (("keyset", "page", 1.2), ("OFFSET, for comparison", "offset", None)):
        far, near = _sides(found[key], 1e3)
        value = sorted(last / first for last, first in found[key])[len(found[key]) // 2]
        told = {f"page {PAGE:,}": median(far, "ms"), "page 1": median(near, "ms")}
        yield judged(f"{engine}: {name}, page {PAGE:,} to page 1", value, "x", goal, told, at_most=True)


def _sides(pairs: Pairs, factor: float) -> tuple[list[float], list[float]]:
    return [ours * factor for ours, _ in pairs], [other * factor for _, other in pairs]


def _child(url: str, *, quick: bool) -> dict[str, Pairs]:
    command = [sys.executable, "-m", "benchmarks.database.query", url, "quick" if quick else "full"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"benchmarks.database.query failed:\n{done.stderr[-2000:]}")
    found: dict[str, Pairs] = json.loads(done.stdout)
    return found


# --- the process of one engine ---------------------------------------------------------------------------------------
def main() -> None:
    url, size = sys.argv[1], QUICK if sys.argv[2] == "quick" else FULL
    model = _model(url)
    found = {"rows": [(size.rows, 0)], "insert": _inserts(model, size)}
    found |= {"read": _reads(model, size), "build": _builds(model, size)} | _pages(model, size)
    print(json.dumps(found))


def _model(url: str) -> Any:
    import django
    from django.conf import settings

    from orm_app.databases import from_url

    settings.configure(DATABASES={"default": from_url(url)}, SECRET_KEY="benchmark", USE_TZ=True)
    django.setup()
    from django.db import connection, models

    class Visit(models.Model):
        name = models.CharField(max_length=40)
        kind = models.CharField(max_length=10)
        place = models.IntegerField()
        at = models.DateTimeField()

        def __str__(self) -> str:
            return self.name

        class Meta:
            app_label = "bench"
            indexes = [models.Index(fields=["-place", "-id"], name="bench_visit_place")]

    with connection.schema_editor() as editor:
        editor.create_model(Visit)
    return Visit


def _rows(count: int) -> list[dict[str, Any]]:
    from datetime import UTC, datetime

    at = datetime(2026, 11, 26, tzinfo=UTC)
    # Three of each place: ties, which the key of the row decides.
    return [{"name": f"n{n}", "kind": "abcd"[n % 4], "place": n // 3, "at": at} for n in range(count)]


def _reads(model: Any, size: Size) -> Pairs:
    from orm_app import db

    _refill(model, 1000)

    def ours() -> None:
        for _ in range(size.reads):
            db.query(model).where_eq("kind", "a").order_by("-place", "-id").limit(100).all()

    def bare() -> None:
        for _ in range(size.reads):
            list(model.objects.filter(kind="a").order_by("-place", "-id")[:100])

    return _in_turn(ours, bare, size.rounds, size.reads, time.thread_time)


def _builds(model: Any, size: Size) -> Pairs:
    from orm_app import db

    count = 50

    def ours() -> None:
        for _ in range(count):
            query = (
                db.query(model).where_eq("kind", "a").where(place__gte=5).order_by("-place", "id").limit(100)
            )
            query.queryset  # noqa: B018

    def bare() -> None:
        for _ in range(count):
            model.objects.filter(kind="a").filter(place__gte=5).order_by("-place", "id")[:100]

    return _in_turn(ours, bare, size.rounds, count, time.thread_time)


def _inserts(model: Any, size: Size) -> Pairs:
    from orm_app import db

    rows, found = _rows(size.rows), []
    sides: list[Callable[[], Any]] = [
        lambda: db.query(model).bulk_insert(rows),
        lambda: model.objects.bulk_create([model(**row) for row in rows]),
    ]
    for number in range(size.inserts + 1):
        took = {}
        for place in (0, 1) if number % 2 else (1, 0):
            model.objects.all()._raw_delete("default")
            took[place] = _timed(sides[place])
        if number:  # the first one warms up
            found.append((took[0], took[1]))
    return found


def _pages(model: Any, size: Size) -> dict[str, Pairs]:
    from orm_app import db, keyset

    _refill(model, PAGE * size.page_rows)
    query = db.query(model).order_by("-place", "-id")
    parts, skip = keyset.terms(query.queryset), (PAGE - 1) * size.page_rows
    cursor = keyset.encode(parts, keyset.values_of(query.offset(skip - 1).first(), parts))
    last = query.page_after(cursor, size=size.page_rows)
    if [row.pk for row in last] != [row.pk for row in query.offset(skip).all()]:
        raise SystemExit("the last page is not the last page")

    def keyset_page(at: str | None) -> Callable[[], None]:
        return lambda: [query.page_after(at, size=size.page_rows) for _ in range(5)] and None

    def offset_page(at: int) -> Callable[[], None]:
        return lambda: [query.offset(at).limit(size.page_rows).all() for _ in range(2)] and None

    return {
        "page": _in_turn(keyset_page(cursor), keyset_page(None), size.rounds, 5),
        "offset": _in_turn(offset_page(skip), offset_page(0), max(3, size.rounds // 3), 2),
    }


def _refill(model: Any, count: int) -> None:
    from django.db import connection

    from orm_app import db

    model.objects.all()._raw_delete("default")
    db.query(model).bulk_insert(_rows(min(count, 1000)))
    doubled = "INSERT INTO bench_visit (name, kind, place, at) SELECT name, kind, place + %s, at FROM bench_visit LIMIT %s"
    stored = min(count, 1000)
    while stored < count:
        db.execute(doubled, [stored // 3 + 1, count - stored])
        stored = min(stored * 2, count)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE bench_visit" if connection.vendor == "mysql" else "ANALYZE")


def _in_turn(
    ours: Callable[[], None],
    other: Callable[[], None],
    rounds: int,
    count: int,
    clock: Clock = time.perf_counter,
) -> Pairs:
    """Seconds of one, in each round; the first round warms up, and the sides change places."""
    found = []
    for number in range(rounds + 1):
        first, second = (ours, other) if number % 2 else (other, ours)
        took = {first: _timed(first, clock), second: _timed(second, clock)}
        if number:
            found.append((took[ours] / count, took[other] / count))
    return found


def _timed(work: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


if __name__ == "__main__":
    main()
