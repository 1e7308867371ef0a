"""`python -m benchmarks.cache.lock_worker URL PREFIX`: takes and frees locks, ours and the peers', as the rig asks.

A line on stdin, {"do": …}, is answered by one on stdout; times are of the host's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
from django.conf import settings

NAME = "bench"
LEASE_S = 30.0


def main() -> None:
    url, prefix = sys.argv[1:]
    locks = Locks(url, prefix)
    with asyncio.Runner() as runner:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            answer = getattr(locks, asked.pop("do"))(runner, **asked)
            print(json.dumps(answer), flush=True)


class Locks:
    """brain: cache_lock. redis_py: a bare Lock that is made once. django_redis: `cache.lock`, made for each use."""

    def __init__(self, url: str, prefix: str) -> None:
        common = {"LOCATION": url, "KEY_PREFIX": prefix}
        settings.configure(
            CACHES={
                "default": common | {"BACKEND": "cache_app.redis.BrainRedisCache"},
                "peer": common | {"BACKEND": "django_redis.cache.RedisCache"},
            },
            BRAIN={},
            USE_TZ=True,
        )
        from django.core.cache import caches

        from cache_app import cache_lock

        self.url, self.prefix, self.peer, self.cache_lock = url, prefix, caches["peer"], cache_lock

    def rate(self, _: asyncio.Runner, *, side: str, n: int) -> dict[str, float]:
        """Locks and frees per second that nobody else wants."""
        pair = self._pair(side)
        for _number in range(50):
            pair()
        began = time.perf_counter()
        for _number in range(n):
            pair()
        return {"per_s": n / (time.perf_counter() - began)}

    def _pair(self, side: str) -> Callable[[], Any]:
        name = f"{self.prefix}{side}"
        if side == "redis_py":
            lock = redis.Redis.from_url(self.url, protocol=2).lock(name, timeout=LEASE_S)
        elif side in ("brain", "brain_renew"):
            lock = self.cache_lock(name, ttl_s=LEASE_S, renew=side == "brain_renew")
        elif side == "brain_new":
            return lambda: _taken(self.cache_lock(name, ttl_s=LEASE_S))
        else:
            return lambda: _taken(self.peer.lock(name, timeout=LEASE_S))
        return lambda: _taken(lock)

    def arate(self, runner: asyncio.Runner, *, side: str, n: int) -> dict[str, float]:
        return runner.run(self._arate(side, n))

    async def _arate(self, side: str, n: int) -> dict[str, float]:
        name = f"{self.prefix}{side}"
        if side == "redis_py":
            client = redis.asyncio.Redis.from_url(self.url, protocol=2)
            lock: Any = client.lock(name, timeout=LEASE_S)
            acquire, release = lock.acquire, lock.release
        else:
            lock = self.cache_lock(name, ttl_s=LEASE_S)
            acquire, release = lock.aacquire, lock.arelease
        for number in range(n + 50):
            if number == 50:
                began = time.perf_counter()
            await acquire()
            await release()
        took_s = time.perf_counter() - began
        if side == "redis_py":
            await client.aclose()
        return {"per_s": n / took_s}

    # --- one waits, the other frees -------------------------------------------------------------------------------------
    def hold(self, _: asyncio.Runner, *, side: str) -> dict[str, float]:
        self.held = self._waited_for(side)
        self.held.acquire()
        return {"at": time.monotonic()}

    def free(self, _: asyncio.Runner) -> dict[str, float]:
        at = time.monotonic()
        self.held.release()
        return {"at": at}

    def wait(self, runner: asyncio.Runner, *, side: str) -> dict[str, float]:
        lock = self._waited_for(side)
        if side == "brain_async":
            runner.run(lock.aacquire())
        else:
            lock.acquire()
        at = time.monotonic()
        lock.release()
        return {"at": at}

    def _waited_for(self, side: str) -> Any:
        if side == "django_redis":
            return self.peer.lock(f"{self.prefix}handed", timeout=LEASE_S)
        return self.cache_lock(f"{self.prefix}handed", ttl_s=LEASE_S, fifo=side == "brain_fifo")

    # --- while others are killed and stopped ----------------------------------------------------------------------------
    def contend(self, _: asyncio.Runner, *, log: str, lease_s: float, seed: int) -> None:
        """Hold the lock again and again; each grant, what follows and what came of it is a line of the log, at once."""
        chance = random.Random(seed)
        with open(log, "a", buffering=1) as out:
            while True:
                lock = self.cache_lock(NAME, ttl_s=lease_s, wait_s=2.0, fifo=bool(seed % 2))
                with suppress(TimeoutError):
                    lock.acquire()
                    out.write(f"grant {lock.fence} {time.monotonic()}\n")
                    time.sleep(chance.random() * 0.06)
                    out.write(f"leave {lock.fence} {time.monotonic()}\n")
                    is_ours = lock.release()
                    out.write(f"release {lock.fence} {int(is_ours)}\n")


def _taken(lock: Any) -> None:
    lock.acquire()
    lock.release()


if __name__ == "__main__":
    main()
