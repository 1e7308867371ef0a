"""`python -m tests.drills.database.worker ROLE …`: works on DATABASE_URL, and prints what it saw as one line of JSON."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import site

RETRIES = 60
_MEET_S = 10.0  # for the other of two that shall deadlock


def main() -> None:
    site.configure()
    role, *arguments = sys.argv[1:]
    print(json.dumps(ROLES[role](*arguments)), flush=True)


# --- all connections are held -----------------------------------------------------------------------------------------
def exhausted(max_size: str, timeout_s: str, callers: str) -> dict[str, Any]:
    """{waits_s, messages, refused_s, released_s, cancelled_s, in_use, waiting, again}"""
    from orm_app import pools

    with Holders(int(max_size)) as holders:
        in_vain = _in_threads(int(callers), lambda _: _ask())
        counted = pools.stats("default")[0]
        in_time, released_s = _released(holders)
        cancelled_s = asyncio.run(_cancelled(int(callers)))
    after = pools.stats("default")[0]
    with Holders(int(max_size)):  # all of them can be lent again
        again = pools.stats("default")[0].in_use
    return {
        "waits_s": [wait_s for wait_s, _ in in_vain],
        "messages": sorted({message for _, message in in_vain}),
        "refused": counted.errors_num,
        "released": in_time,
        "released_s": released_s,
        "cancelled_s": cancelled_s,
        "in_use": after.in_use,
        "waiting": after.waiting,
        "again": again,
    }


class Holders:
    """Threads that hold a connection each, within a transaction, until they are told to stop."""

    def __init__(self, count: int) -> None:
        self._ends = [threading.Event() for _ in range(count)]
        self._begun = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._hold, args=(end,)) for end in self._ends]

    def __enter__(self) -> Holders:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            if not self._begun.acquire(timeout=30):
                raise RuntimeError("a holder got no connection")
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.set()
        for thread in self._threads:
            thread.join()

    def release_one(self) -> None:
        next(end for end in self._ends if not end.is_set()).set()

    def _hold(self, end: threading.Event) -> None:
        from django.db import connection

        from orm_app import db

        from .bank.models import Account

        with db.transaction():
            Account.objects.count()
            self._begun.release()
            end.wait(120)
        connection.close()


def _ask() -> tuple[float, str]:
    from django.db import DatabaseError, connection

    from .bank.models import Account

    began, message = time.monotonic(), ""
    try:
        Account.objects.count()
    except DatabaseError as error:
        message = f"{type(error).__name__}: {error}"
    finally:
        waited_s = time.monotonic() - began
        connection.close()
    return waited_s, message


def _released(holders: Holders) -> tuple[int, float]:
    """One connection comes back while eight wait: how many of them were served, and when the last one was."""
    began: list[float] = []

    def release() -> None:
        time.sleep(0.5)
        began.append(time.monotonic())
        holders.release_one()

    threading.Thread(target=release).start()
    answers = _in_threads(8, lambda _: (*_ask(), time.monotonic()))
    served = [at for _, message, at in answers if not message]
    return len(served), max(served, default=float("inf")) - began[0]


async def _cancelled(callers: int) -> list[float]:
    """How long after their cancellation the tasks had ended that waited for a connection. One connection is free, and
    a task holds it."""
    from orm_app import db

    release, is_held = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.transaction():
            is_held.set()
            await release.wait()

    async def wait() -> None:
        async with db.transaction():
            raise RuntimeError("there was no connection to get")

    holder = asyncio.create_task(hold())
    await is_held.wait()
    waiting = [asyncio.create_task(wait()) for _ in range(callers)]
    await asyncio.sleep(0.3)
    began, ended_s = time.monotonic(), []
    for task in waiting:
        task.cancel()
        task.add_done_callback(lambda _: ended_s.append(time.monotonic() - began))
    await asyncio.sleep(0.2)
    release.set()
    await asyncio.wait([holder, *waiting])
    await asyncio.sleep(0)
    if not all(task.cancelled() for task in waiting):
        raise RuntimeError(
            f"a task was not cancelled: {[t.exception() for t in waiting if not t.cancelled()]}"
        )
    return ended_s


# --- deadlocks --------------------------------------------------------------------------------------------------------
def deadlocks(mode: str, rounds: str, pairs: str) -> dict[str, Any]:
    """{runs, rounds, failed, seconds}: each round two transactions take two rows in opposite order."""
    began = time.monotonic()
    counted: Counter[str] = Counter()
    each = int(rounds) // int(pairs)
    if mode == "sync":
        with ThreadPoolExecutor(int(pairs) * 2) as threads:
            for pair in range(int(pairs)):
                meeting = threading.Barrier(2)
                for side in (0, 1):
                    threads.submit(_clashes, pair, side, each, meeting, counted)
    else:
        asyncio.run(_aclashes(int(pairs), each, counted))
    return dict(counted) | {"rounds": each * int(pairs), "seconds": time.monotonic() - began}


def _order(pair: int, side: int) -> tuple[int, int]:
    first, second = 1 + 2 * pair, 2 + 2 * pair
    return (first, second) if side == 0 else (second, first)


def _clashes(pair: int, side: int, rounds: int, meeting: threading.Barrier, counted: Counter[str]) -> None:
    from django.db import connection

    for number in range(rounds):
        runs = itertools.count()
        meeting.wait(60)
        try:
            _clash(pair, side, number, runs, meeting)
        except Exception as error:
            counted["failed"] += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        counted["runs"] += next(runs)
    connection.close()


def _clash(pair: int, side: int, number: int, runs: Any, meeting: threading.Barrier) -> None:
    from orm_app import db

    @db.transaction(retry=RETRIES)
    def move() -> None:
        is_first = next(runs) == 0
        first, second = _order(pair, side)
        _take(first)
        if is_first:
            meeting.wait(_MEET_S)  # the other one has its first row as well
        _take(second)
        _book(f"{pair}-{side}-{number}", first, second)

    move()


async def _aclashes(pairs: int, rounds: int, counted: Counter[str]) -> None:
    from asgiref.sync import sync_to_async

    from orm_app import db

    async def clash(pair: int, side: int, number: int, runs: Any, meeting: asyncio.Barrier) -> None:
        @db.transaction(retry=RETRIES)
        async def move() -> None:
            is_first = next(runs) == 0
            first, second = _order(pair, side)
            await sync_to_async(_take)(first)
            if is_first:
                async with asyncio.timeout(_MEET_S):
                    await meeting.wait()
            await sync_to_async(_take)(second)
            await sync_to_async(_book)(f"a{pair}-{side}-{number}", first, second)

        await move()

    async def clashes(pair: int, side: int, meeting: asyncio.Barrier) -> None:
        for number in range(rounds):
            runs = itertools.count()
            await meeting.wait()
            try:
                await clash(pair, side, number, runs, meeting)
            except Exception as error:
                counted["failed"] += 1
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
            counted["runs"] += next(runs)

    async with asyncio.TaskGroup() as tasks:
        for pair in range(pairs):
            meeting = asyncio.Barrier(2)
            for side in (0, 1):
                tasks.create_task(clashes(pair, side, meeting))


def _take(account: int) -> None:
    """Its row's lock, and a change that must not be lost."""
    from django.db.models import F

    from .bank.models import Account

    Account.objects.filter(pk=account).update(cents=F("cents") + 0)


def _book(name: str, source: int, target: int) -> None:
    from .bank.models import Account, Transfer

    for account, cents in ((source, -1), (target, 1)):
        row = Account.objects.get(pk=account)
        row.cents += cents
        row.save()
    Transfer.objects.create(id=name, source=source, target=target, cents=1)


# --- the bank ---------------------------------------------------------------------------------------------------------
def bank(mode: str, name: str, clients: str, transfers: str, accounts: str) -> dict[str, Any]:
    """{committed: [id], runs, failed}: transfers that read balances, compute in Python and write what they computed."""
    committed: list[str] = []
    counted: Counter[str] = Counter()

    def move(client: int, number: int) -> tuple[str, Callable[[], None]]:
        id_ = f"{name}-{client}-{number}"
        source, target = random.sample(range(1, int(accounts) + 1), 2)
        cents = random.randint(1, 5_000)

        def once() -> None:
            counted["runs"] += 1
            _transfer(id_, source, target, cents)

        return id_, once

    def told(id_: str, error: Exception | None) -> None:
        if error is None:
            committed.append(id_)
        else:
            counted["failed"] += 1
            print(f"{id_}: {type(error).__name__}: {error}", file=sys.stderr)

    run = _bank_sync if mode == "sync" else _bank_async
    run(int(clients), int(transfers), move, told)
    return {"committed": committed, "runs": counted["runs"], "failed": counted["failed"]}


Move = Callable[[int, int], tuple[str, Callable[[], None]]]
Told = Callable[[str, "Exception | None"], None]


def _bank_sync(clients: int, transfers: int, move: Move, told: Told) -> None:
    from django.db import connection

    from orm_app import db

    def client(number: int) -> None:
        for n in range(transfers):
            id_, once = move(number, n)
            try:
                db.run_in_transaction(once, retry=RETRIES, isolation="serializable")
                told(id_, None)
            except Exception as error:
                told(id_, error)
        connection.close()

    _in_threads(clients, client)


def _bank_async(clients: int, transfers: int, move: Move, told: Told) -> None:
    from asgiref.sync import sync_to_async

    from orm_app import db

    async def client(number: int) -> None:
        for n in range(transfers):
            id_, once = move(number, n)
            work = db.transaction(retry=RETRIES, isolation="serializable")(_as_coroutine(sync_to_async(once)))
            try:
                await work()
                told(id_, None)
            except Exception as error:
                told(id_, error)

    async def everyone() -> None:
        await asyncio.gather(*(client(number) for number in range(clients)))

    asyncio.run(everyone())


def _as_coroutine(work: Any) -> Callable[[], Coroutine[Any, Any, None]]:
    async def run() -> None:
        await work()

    return run


def _transfer(name: str, source: int, target: int, cents: int) -> None:
    from .bank.models import Account, Transfer

    rows = {row.pk: row for row in Account.objects.filter(pk__in=(source, target))}
    time.sleep(random.random() * 0.002)  # what an application does between reading and writing
    rows[source].cents -= cents
    rows[target].cents += cents
    for row in rows.values():
        row.save()
    Transfer.objects.create(id=name, source=source, target=target, cents=cents)


# --- isolation --------------------------------------------------------------------------------------------------------
def isolation(count: str, at_once: str) -> dict[str, Any]:
    """{fates, in_use, waiting, most}: async transactions, of which some roll back and some are cancelled."""
    from orm_app import pools

    fates: dict[str, str] = {}
    most = asyncio.run(_isolation(int(count), int(at_once), fates))
    left = pools.stats("default")
    return {
        "fates": fates,
        "in_use": sum(one.in_use for one in left),
        "waiting": sum(one.waiting for one in left),
        "most": most,
        "threads": sum(thread.name.startswith("transaction") for thread in threading.enumerate()),
    }


class _Unwanted(Exception):
    pass


async def _isolation(count: int, at_once: int, fates: dict[str, str]) -> int:
    from orm_app import db, pools

    from .bank.models import Mark

    room, most = asyncio.Semaphore(at_once), 0

    async def one(number: int, kind: str) -> None:
        nonlocal most
        async with room:
            async with db.transaction():
                await Mark.objects.acreate(name=f"{number}:a")
                await asyncio.sleep(random.random() * 0.01)
                async with db.transaction():
                    await Mark.objects.acreate(name=f"{number}:b")
                most = max([most, *(stat.size for stat in pools.stats("default"))])
                if kind == "rolled back":
                    raise _Unwanted
            fates[str(number)] = "committed"

    async def fate(number: int) -> None:
        kind = random.choices(("committed", "rolled back", "cancelled"), (6, 2, 2))[0]
        task = asyncio.create_task(one(number, kind))
        if kind == "cancelled":
            # Anywhere: before it has begun, on its way, while it commits, after it.
            await asyncio.sleep(random.random() * _typical_s[0] * 2)
            task.cancel()
        began = time.monotonic()
        try:
            await task
            _typical_s[0] = 0.9 * _typical_s[0] + 0.1 * (time.monotonic() - began)
        except _Unwanted:
            fates[str(number)] = "rolled back"
        except asyncio.CancelledError:
            fates.setdefault(str(number), "cancelled")

    _typical_s = [0.05]
    feeding = asyncio.Semaphore(at_once)  # a few more tasks than may be in a transaction at once

    async def fed(number: int) -> None:
        async with feeding:
            await fate(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(fed(number))
    return most


# --- a disk that fills up ---------------------------------------------------------------------------------------------
def writer(number: str, path: str) -> dict[str, Any]:
    """Writes rows until stdin is closed: {errors: {text: count}}. What it is told is stored goes into `path` as
    [when, name], a line each; names begin with the writer's number."""
    from orm_app import db

    from .bank.models import Mark

    errors: Counter[str] = Counter()
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    with open(path, "a", buffering=1) as told:
        for n in itertools.count():
            if is_over.is_set():
                break
            name = f"{number}-{n:08d}-".ljust(40, "x")
            try:
                with db.transaction():
                    Mark.objects.create(name=name)
                told.write(json.dumps([time.monotonic(), name]) + "\n")
                time.sleep(0.003)
            except Exception as error:
                errors[f"{type(error).__name__}: {error}"] += 1
                time.sleep(0.02)
    return {"errors": dict(errors)}


def _in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(work, number) for number in range(count)]]


ROLES: dict[str, Callable[..., dict[str, Any]]] = {
    "exhausted": exhausted,
    "deadlocks": deadlocks,
    "bank": bank,
    "isolation": isolation,
    "writer": writer,
}

if __name__ == "__main__":
    main()
