"""`python -m tests.drills.cache.forking URL FOLDER`: use every kind of cache, sync and async, then fork four times.

Exit code 0: parent and children all read what they wrote, counted exactly, and loaded each key once a process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback

from .rig import FILE, REDIS, TIERED

CHILDREN, COUNTS = 4, 200
MEMORY = "cache_app.memory.MemoryCache"


def main() -> int:
    url, folder = sys.argv[1:]
    from django.conf import settings

    prefix = f"fork{os.getpid()}"
    settings.configure(
        CACHES={
            "default": {"BACKEND": TIERED, "LOCATION": url, "KEY_PREFIX": f"{prefix}t"},
            "redis": {"BACKEND": REDIS, "LOCATION": url, "KEY_PREFIX": f"{prefix}r"},
            "memory": {"BACKEND": MEMORY, "LOCATION": "", "KEY_PREFIX": prefix},
            "file": {"BACKEND": FILE, "LOCATION": folder, "KEY_PREFIX": prefix},
        },
        BRAIN={},
        USE_TZ=True,
    )
    from django.core.cache import caches

    for alias in settings.CACHES:
        caches[alias].set("counter", 0, None)
    _use("parent")
    asyncio.run(_ause("parent"))
    threads = [threading.Thread(target=_use, args=(f"thread{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    children = [_fork(number) for number in range(CHILDREN)]  # while the threads are in the middle of it
    for thread in threads:
        thread.join()
    _use("parent again")
    failed = [child for child in children if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
    for alias in ("default", "redis", "file"):
        counted = caches[alias].get("counter")
        if counted != CHILDREN * COUNTS:
            print(f"{alias}: {counted} of {CHILDREN * COUNTS} counted", file=sys.stderr)
            failed.append(0)
    return 1 if failed else 0


def _fork(number: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from django.core.cache import caches

        _use(f"child{number}")
        asyncio.run(_ause(f"child{number}"))
        for alias in ("default", "redis", "file"):
            for _ in range(COUNTS):
                caches[alias].incr("counter")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _use(name: str) -> None:
    from django.core.cache import caches

    from cache_app import cache_lock, cached

    for alias in ("default", "redis", "memory", "file"):
        cache = caches[alias]
        for number in range(20):
            cache.set(f"{name}{number}", [name, number])
            found = cache.get(f"{name}{number}")
            assert found == [name, number], (alias, found)
    with cache_lock(f"lock{os.getpid()}{name}", ttl_s=5, wait_s=5):
        pass

    @cached(ttl=60, key=lambda: name)
    def load() -> list[str]:
        time.sleep(0.002)
        return [name]

    assert load() == load() == [name]


async def _ause(name: str) -> None:
    from django.core.cache import caches

    for alias in ("default", "redis", "memory", "file"):
        cache = caches[alias]
        await asyncio.gather(*(cache.aset(f"a{name}{number}", [name, number]) for number in range(20)))
        found = await asyncio.gather(*(cache.aget(f"a{name}{number}") for number in range(20)))
        assert found == [[name, number] for number in range(20)], (alias, found)


if __name__ == "__main__":
    sys.exit(main())
