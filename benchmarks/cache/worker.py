"""`python -m benchmarks.cache.worker SIDE URL PREFIX`: asks one library what the rig wants to know.

A line on stdin, {"do": …, "n": …, "size": …}, is answered by one on stdout. Nothing runs in between: sides take turns.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .values import KEYS, MANY, OF_SIZE


def main() -> None:
    name, url, prefix = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not end up in an answer
    side = importlib.import_module(f"benchmarks.cache.sides.{name}").Side(url, prefix)
    with asyncio.Runner() as runner:
        print(json.dumps({"ready": True}), file=out, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            answer = globals()[f"_{asked.pop('do')}"](side, runner, **asked)
            print(json.dumps(answer), file=out, flush=True)
        close = getattr(side, "aclose", None)
        if close is not None:
            runner.run(close())


# --- sync ------------------------------------------------------------------------------------------------------------
def _sync(side: Any, _: asyncio.Runner, *, call: str, size: str, n: int, **options: Any) -> dict[str, float]:
    """Seconds of each call, one after another."""
    value, ask = OF_SIZE[size], getattr(side, call)
    keys = [f"{size}{number}" for number in range(KEYS)]
    for key in keys:
        side.set(key, value)
    calls: list[Callable[[], Any]]
    if call == "set":
        calls = [lambda key=key: ask(key, value) for key in keys]
    elif call == "get_many":
        batches = [(keys + keys)[start : start + MANY] for start in range(KEYS)]
        calls = [lambda batch=batch: ask(batch) for batch in batches]
    else:
        calls = [lambda key=key: ask(key) for key in keys]
    for warm in calls:
        warm()
    clock, took = time.perf_counter, []
    for number in range(n):
        one = calls[number % KEYS]
        began = clock()
        one()
        took.append(clock() - began)
    return _quantiles(took)


def _tight(side: Any, _: asyncio.Runner, *, call: str, size: str, n: int) -> dict[str, float]:
    """For calls of a few microseconds: the clock is read around a hundred of them, and its own cost is nothing."""
    value, ask = OF_SIZE[size], getattr(side, call)
    keys = [f"{size}{number}" for number in range(KEYS)]
    for key in keys:
        side.set(key, value)
    for key in keys * 3:
        ask(key)
    clock, took = time.perf_counter, []
    for _number in range(max(n // KEYS, 1)):
        began = clock()
        for key in keys:
            ask(key)
        took.append((clock() - began) / KEYS)
    return _quantiles(took)


# --- async -----------------------------------------------------------------------------------------------------------
def _async(
    side: Any, runner: asyncio.Runner, *, call: str, size: str, n: int, tasks: int
) -> dict[str, float]:
    """Calls per second with so many of them under way."""
    return runner.run(_rate(side, call, OF_SIZE[size], n, tasks, size))


async def _rate(side: Any, call: str, value: Any, n: int, tasks: int, size: str) -> dict[str, float]:
    keys = [f"{size}{number}" for number in range(KEYS)]
    for key in keys:
        await side.aset(key, value)
    ask = getattr(side, call)

    async def work(first: int) -> None:
        for number in range(first, n, tasks):
            if call == "aget_many":
                start = number % KEYS
                await ask((keys + keys)[start : start + MANY])
            elif call == "aset":
                await ask(keys[number % KEYS], value)
            else:
                await ask(keys[number % KEYS])

    await asyncio.gather(*(work(first) for first in range(tasks)))  # warm: connections are there
    began = time.perf_counter()
    await asyncio.gather(*(work(first) for first in range(tasks)))
    return {"per_s": n / (time.perf_counter() - began)}


# --- one loader ------------------------------------------------------------------------------------------------------
def _stampede(
    side: Any, runner: asyncio.Runner, *, key: str, callers: int, load_s: float, at: float, kind: str
) -> dict[str, Any]:
    """How often the loader ran here for so many callers of one cold key, who begin at one moment (wall clock)."""
    runs, errors, guard = [0], [], threading.Lock()

    def ran() -> None:
        with guard:
            runs[0] += 1

    if kind == "threads":

        def load() -> dict[str, int]:
            ran()
            time.sleep(load_s)
            return {"v": 1}

        function = side.loading(load, key)
        _threads(function, callers, at, errors)
    else:

        async def aload() -> dict[str, int]:
            ran()
            await asyncio.sleep(load_s)
            return {"v": 1}

        runner.run(_tasks(side.aloading(aload, key), callers, at, errors))
    return {"loads": runs[0], "errors": len(errors), "first_error": errors[0] if errors else ""}


def _threads(function: Callable[[], Any], callers: int, at: float, errors: list[str]) -> None:
    def one() -> None:
        time.sleep(max(at - time.time(), 0))
        try:
            function()
        except Exception as error:
            errors.append(repr(error)[:200])

    threads = [threading.Thread(target=one) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _tasks(function: Callable[[], Any], callers: int, at: float, errors: list[str]) -> None:
    await asyncio.sleep(max(at - time.time(), 0))
    found = await asyncio.gather(*(function() for _ in range(callers)), return_exceptions=True)
    errors += [repr(error)[:200] for error in found if isinstance(error, BaseException)]


# --- counting, failing -----------------------------------------------------------------------------------------------
def _increments(side: Any, runner: asyncio.Runner, *, n: int, tasks: int) -> dict[str, int]:
    async def count() -> int:
        await side.aset("counter", 0)

        async def work() -> None:
            for _ in range(n // tasks):
                await side.aincr("counter")

        await asyncio.gather(*(work() for _ in range(tasks)))
        return int(await side.aget("counter"))

    return {"counted": runner.run(count())}


def _down(side: Any, _: asyncio.Runner, *, n: int) -> dict[str, Any]:
    """Reads and writes while the server is gone: how long each takes, and how many raise."""
    took, raised = [], 0
    for number in range(n):
        began = time.perf_counter()
        try:
            side.get(f"down{number % KEYS}") if number % 2 else side.set(f"down{number % KEYS}", 1)
        except Exception:
            raised += 1
        took.append(time.perf_counter() - began)
    return _quantiles(took) | {"raised": raised}


def _quantiles(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {
        "p50_us": statistics.median(ordered) * 1e6,
        "p99_us": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1e6,
        "mean_us": statistics.fmean(ordered) * 1e6,
    }


if __name__ == "__main__":
    main()
