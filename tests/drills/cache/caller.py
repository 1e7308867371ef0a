"""`python -m tests.drills.cache.caller ROLE FILE CACHES`: works with the cache until it is told to stop.

Writes a line of JSON for every call into FILE. Roles: writer, reader, counter, loader, locker.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

KEYS = 20
_goes_on = True


def main() -> None:
    role, path, caches = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    signal.signal(signal.SIGTERM, _stop)
    from django.conf import settings

    settings.configure(CACHES=caches, BRAIN={}, USE_TZ=True)
    _give_up_soon()
    with open(path, "a", buffering=1) as out:
        ROLES[role](out)


def _give_up_soon() -> None:
    from dataclasses import replace

    from cache_app.conf import conf

    conf.bind(
        replace(conf(), COMMAND_TIMEOUT_S=0.5, CONNECT_TIMEOUT_S=0.5, POOL_WAIT_S=1.0, REBUILD_LEASE_S=1.0)
    )


def _stop(*_: Any) -> None:
    global _goes_on
    _goes_on = False


def _say(out: TextIO, **line: Any) -> None:
    out.write(json.dumps({"at": time.monotonic()} | line) + "\n")


def _loop(out: TextIO, one: Callable[[int], None], pause_s: float) -> None:
    number = 0
    while _goes_on:
        number += 1
        try:
            one(number)
        except Exception as error:
            _say(out, do="error", what=f"{type(error).__name__}: {error}"[:200])
            time.sleep(0.01)
        time.sleep(pause_s)


def write(out: TextIO) -> None:
    """The only writer of its keys: versions rise."""
    from django.core.cache import cache

    def one(number: int) -> None:
        key = f"k{number % KEYS}"
        if cache.set(key, [key, number], None):
            _say(out, do="wrote", key=key, v=number)

    _loop(out, one, 0.002)


def read(out: TextIO) -> None:
    from django.core.cache import cache

    def one(number: int) -> None:
        key = f"k{random.randrange(KEYS)}"
        began = time.monotonic()
        found = cache.get(key)
        of, version = found if found is not None else (None, None)
        _say(out, do="read", key=key, of=of, v=version, at=began)

    _loop(out, one, 0.0005)


def count(out: TextIO) -> None:
    from django.core.cache import cache

    def one(number: int) -> None:
        try:
            _say(out, do="counted", v=cache.incr("counter"))
        except ValueError:  # it is not there (any more)
            cache.add("counter", 0, None)

    _loop(out, one, 0.001)


def load(out: TextIO) -> None:
    from cache_app import cached

    @cached(ttl=0.5, key=lambda number: number)
    def slowly(number: int) -> list[Any]:
        _say(out, do="loaded", key=f"l{number}")
        time.sleep(0.02)
        return [f"l{number}", time.monotonic()]

    def one(_: int) -> None:
        number = random.randrange(5)
        began = time.monotonic()
        of, made_at = slowly(number)
        _say(
            out, do="loading", key=f"l{number}", of=of, age_s=began - made_at, took_s=time.monotonic() - began
        )

    _loop(out, one, 0.002)


def lock(out: TextIO) -> None:
    """Holds one lock again and again; says when it had it, by the fence."""
    from cache_app import LockTimeout, cache_lock
    from cache_app.locks import LockLost

    def one(_: int) -> None:
        try:
            with cache_lock("only", ttl_s=0.5, wait_s=5.0) as held:
                began = time.monotonic()
                _say(out, do="held", fence=held.fence, at=began)
                time.sleep(0.005)
                ended = time.monotonic()
                _say(out, do="left", fence=held.fence, at=ended, held_s=ended - began)
        except LockLost:
            _say(out, do="lost")
        except LockTimeout:
            _say(out, do="error", what="LockTimeout")

    _loop(out, one, 0.0)


ROLES: dict[str, Callable[[TextIO], None]] = {
    "writer": write,
    "reader": read,
    "counter": count,
    "loader": load,
    "locker": lock,
}

if __name__ == "__main__":
    main()
