"""Many processes read and write a few hot keys through the tiered cache: whether any of them ever reads what is over.

`run` counts stale reads, `staleness` measures how long a reader's memory is behind a writer's reply. For the tests,
the drill and the benchmark; Django's settings have to be set up, and each process has a cache of its own.

    python -m tests.cache_app.races [steps]        both, on a Valkey and on a Redis of its own
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

KEYS = 4
GRACE_S = 0.05  # what was acknowledged so long before a read began, the read has to see
# A new interpreter would take seconds to import Django.
_forking = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Result:
    reads: int
    writes: int
    near: int  # reads that memory answered
    stale: int
    worst_s: float  # the longest time that a stale value was over when its read began; 0.0 = there was none
    losses: int  # of tracking connections
    seconds: float
    pause_s: (
        float  # the longest time for which the server did not answer: so long it may keep what it has to tell
    )


def run(steps: int, processes: int, url: str, *, cut_every_s: float | None = None, **options: Any) -> Result:
    """steps: reads and writes of all processes together; every tenth is a write, every other process is asynchronous.

    cut_every_s: so often the server kills all tracking connections. options: of the alias.
    """
    board = _Board(steps)
    params = {"KEY_PREFIX": f"race-{uuid.uuid4().hex[:8]}", "OPTIONS": options}
    results = _forking.Queue()
    started = _forking.Barrier(processes + 1)
    workers = [
        _forking.Process(target=_race, args=(board, params, url, at, steps // processes, started, results))
        for at in range(processes)
    ]
    for worker in workers:
        worker.start()
    started.wait(180)
    began, pulse = time.monotonic(), _Pulse(url)
    cuts = _cut(url, cut_every_s, workers) if cut_every_s else 0
    found = [results.get(timeout=300) for _ in workers]
    seconds = time.monotonic() - began
    pulse.end()
    for worker in workers:
        worker.join(30)
    assert cuts == 0 or sum(one["losses"] for one in found) > 0
    sums = {name: sum(one[name] for one in found) for name in ("reads", "writes", "near", "stale", "losses")}
    return Result(
        **sums, worst_s=max(one["worst_s"] for one in found), seconds=seconds, pause_s=pulse.pause_s
    )


def staleness(rounds: int, url: str, *, pause_s: float = 0.0001, **options: Any) -> list[float]:
    """Seconds from the writer's reply until a reader in another process sees the new value, sorted.

    pause_s: of the reader between two looks; 0.0 = it never lets go of the processor.
    """
    params = {"KEY_PREFIX": f"stale-{uuid.uuid4().hex[:8]}", "OPTIONS": options}
    board = _Board(rounds)
    seen = _forking.RawArray("d", rounds + 1)
    reader = _forking.Process(target=_watch, args=(board, params, url, rounds, pause_s, seen))
    reader.start()
    cache = _cache(params, url)
    try:
        cache.set("0", [0], 600)
        _until(lambda: seen[0] > 0, 60)
        for version in range(1, rounds + 1):
            time.sleep(0.002 + random.random() * 0.006)  # so that its memory holds the old one
            cache.set("0", [version], 600)
            board.acknowledge(0, version, time.monotonic())
            _until(lambda version=version: seen[version] > 0, 30)  # type: ignore[misc]
    finally:
        cache.store.close()
        reader.join(10)
    return sorted(max(0.0, seen[version] - board.at(0, version)) for version in range(1, rounds + 1))


class _Pulse(threading.Thread):
    """Asks the server all the time whether it answers."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._client, self._over, self.pause_s = redis.Redis.from_url(url), threading.Event(), 0.0
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.005):
            asked = time.monotonic()
            self._client.ping()
            self.pause_s = max(self.pause_s, time.monotonic() - asked)

    def end(self) -> None:
        self._over.set()
        self.join()
        self._client.close()


class _Board:
    """What the processes know of each other: per key, when the server had acknowledged each version."""

    def __init__(self, versions: int) -> None:
        self._span = versions + 1
        self.newest = _forking.RawArray("q", KEYS)
        self._times = _forking.RawArray("d", KEYS * self._span)
        self.locks = [
            _forking.Lock() for _ in range(KEYS)
        ]  # one writer of a key at a time: versions have an order

    def acknowledge(self, key: int, version: int, now: float) -> None:
        self._times[key * self._span + version] = now
        self.newest[key] = version

    def at(self, key: int, version: int) -> float:
        return float(self._times[key * self._span + version])

    def due(self, key: int, began: float) -> tuple[int, float]:
        """The version that a read has to see at least, and since when."""
        version = self.newest[key]
        while version and self.at(key, version) > began - GRACE_S:
            version -= 1
        return version, self.at(key, version)


class _Runner:
    """One process. Every call is awaited where it can be: the same steps for both halves of the cache."""

    def __init__(self, board: _Board, cache: Any, is_async: bool) -> None:
        self.board, self.cache, self._prefix = board, cache, "a" if is_async else ""
        self.sums = {"reads": 0, "writes": 0, "stale": 0, "worst_s": 0.0}

    async def go(self, steps: int, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(steps):
            key, kind = chance.randrange(KEYS), chance.random()
            if kind < 0.1:
                await self.write(key, deletes=kind < 0.01)
            elif kind < 0.2:
                await self.check(range(KEYS), "get_many", [str(one) for one in range(KEYS)])
            elif kind < 0.3:
                await self.check([key], "read", self.cache.full_key(str(key)))
            else:
                await self.check([key], "get", str(key))
            if self._prefix and chance.random() < 0.05:
                await asyncio.sleep(0)

    async def write(self, key: int, *, deletes: bool) -> None:
        with self.board.locks[key]:
            version = self.board.newest[key] + 1
            if deletes:
                await self.call("delete", str(key))
            await self.call("set", str(key), [version], 600)
            self.board.acknowledge(key, version, time.monotonic())
        self.sums["writes"] += 1

    async def check(self, keys: Any, name: str, *args: Any) -> None:
        began = time.monotonic()
        due = {key: self.board.due(key, began) for key in keys}
        found = await self.call(name, *args)
        self.sums["reads"] += 1
        for key, (version, since) in due.items():
            value = _value(found, key)
            if value is not None and value[0] < version:
                self.sums["stale"] += 1
                over = self.board.at(key, value[0] + 1)
                self.sums["worst_s"] = max(self.sums["worst_s"], began - min(since, over))

    async def call(self, name: str, *args: Any) -> Any:
        result = getattr(self.cache, self._prefix + name)(*args)
        return await result if inspect.isawaitable(result) else result


def _value(found: Any, key: int) -> Any:
    if isinstance(found, dict):
        return found.get(str(key))
    return getattr(found, "value", found)


def _race(
    board: _Board, params: dict[str, Any], url: str, at: int, steps: int, started: Any, results: Any
) -> None:
    cache = _cache(params, url)
    runner = _Runner(board, cache, is_async=at % 2 == 1)
    cache.get("0")
    _until(lambda: cache.store.tracker.is_live, 120)
    started.wait(180)
    asyncio.run(runner.go(steps, at))
    events = cache.counts.events()
    cache.store.close()
    results.put(runner.sums | {"near": events.get("hits_l1", 0), "losses": events.get("tracker_losses", 0)})


def _watch(board: _Board, params: dict[str, Any], url: str, rounds: int, pause_s: float, seen: Any) -> None:
    cache = _cache(params, url)
    last = -1
    while last < rounds:
        found = cache.get("0")
        if found is not None and found[0] > last and cache.store.tracker.is_live:
            now = time.monotonic()
            for version in range(last + 1, found[0] + 1):
                seen[version] = now
            last = found[0]
        if pause_s:
            time.sleep(pause_s)
    cache.store.close()


def _cut(url: str, every_s: float, workers: list[Any]) -> int:
    cuts = 0
    with redis.Redis.from_url(url) as client:
        while all(worker.is_alive() for worker in workers):
            time.sleep(every_s)
            lines = [one["id"] for one in client.client_list() if one["name"] == "brain-cache-tracker"]
            cuts += sum(int(client.client_kill_filter(_id=line)) for line in lines)
    return cuts


def _cache(params: dict[str, Any], url: str) -> Any:
    import django

    django.setup()
    from cache_app.tiered import TieredCache

    return TieredCache(url, params)


def _until(happened: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.0005)


def main(steps: int) -> None:
    from tests import environment
    from tests.cache_app import tracked

    for make in tracked.MAKES:
        with tracked.server(make) as url:
            os.environ["REDIS_URL"] = url
            _settle_in()
            print(make, run(steps, 4, url))
            for pause_s in (0.0001, 0.0):
                behind = staleness(300, url, pause_s=pause_s)
                shares = {name: behind[int(len(behind) * share)] * 1000 for name, share in _SHARES.items()}
                looks = "looks every 0.1 ms" if pause_s else "never lets go of its core"
                text = ", ".join(f"{name} {ms:.2f} ms" for name, ms in shares.items())
                print(f"{make}, a reader that {looks}: {text} after the writer's reply")
    environment.pytest_unconfigure()


_SHARES = {"p50": 0.5, "p99": 0.99, "most": 0.999}


def _settle_in() -> None:
    import django
    import structlog

    django.setup()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
