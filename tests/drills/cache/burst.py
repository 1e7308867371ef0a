"""`python -m tests.drills.cache.burst URL KEY FILE threads|tasks CALLERS`: so many callers of one cold key at once.

The loader says in FILE whose it is before it begins, and takes a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

from .rig import TIERED


def main() -> None:
    url, key, path, kind, callers = sys.argv[1:]
    from django.conf import settings

    settings.configure(
        CACHES={"default": {"BACKEND": TIERED, "LOCATION": url, "KEY_PREFIX": "burst"}},
        BRAIN={},
        USE_TZ=True,
    )
    from dataclasses import replace

    from cache_app import cached
    from cache_app.conf import conf

    conf.bind(replace(conf(), REBUILD_LEASE_S=1.0))
    found: list[object] = []

    def say() -> None:
        with open(path, "a") as out:
            out.write(f"{os.getpid()}\n")

    def load() -> list[int]:
        say()
        time.sleep(1.0)
        return [1]

    async def aload() -> list[int]:
        say()
        await asyncio.sleep(1.0)
        return [1]

    aload.__qualname__ = load.__qualname__ = "load"  # one key for both kinds
    if kind == "threads":
        function = cached(ttl=60, key=lambda: key)(load)
        threads = [threading.Thread(target=lambda: found.append(function())) for _ in range(int(callers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        coroutine = cached(ttl=60, key=lambda: key)(aload)

        async def all_of_them() -> None:
            found.extend(await asyncio.gather(*(coroutine() for _ in range(int(callers)))))

        asyncio.run(all_of_them())
    sys.exit(0 if found == [[1]] * int(callers) else 1)


if __name__ == "__main__":
    main()
