"""`manage.py cache`: the state of the cache; `cache clear --yes`: remove its keys."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Any

import redis
from django.core.management.base import CommandParser

from cache_app import keyspace
from foundation.commands import DEGRADED, OK, BrainCommand, Failed


class Command(BrainCommand):
    help = "The state of the cache: server, memory, keys, hits and misses. Exit code 3: degraded, 1: down."

    def define(self, parser: CommandParser) -> None:
        clear = self.verb(
            "clear", self.clear, help="Remove the keys under our prefix, never a whole database."
        )
        clear.add_argument("--yes", action="store_true", help="Do it; without this nothing is removed.")

    def bare(self, **options: Any) -> int:
        try:
            found = keyspace.overview()
        except redis.RedisError as error:
            raise _down(error) from error
        rows = [
            ("server", found.server),
            ("memory", _memory(found)),
            ("our keys", f"{found.keys}" if found.keys_exact else f"about {found.keys}"),
            ("hits / misses", f"{found.hits} / {found.misses} (all clients of the server, since its start)"),
            ("evicted", found.evicted),
            ("state", found.degraded or "ok"),
        ]
        self.table(["figure", "value"], rows)
        self.document({**asdict(found), "degraded": found.degraded})
        return DEGRADED if found.degraded else OK

    def clear(self, *, yes: bool, **options: Any) -> None:
        if not yes:
            raise Failed("nothing was removed", "Say --yes to remove every key of the default cache.", code=2)
        try:
            removed = keyspace.clear(actor=getpass.getuser(), source="cli")
        except redis.RedisError as error:
            raise _down(error) from error
        self.line(f"{removed} keys removed")
        self.document({"removed": removed})


def _down(error: redis.RedisError) -> Failed:
    message = str(error).partition("\n")[0]
    return Failed(f"Redis does not answer: {message}", "Look at REDIS_URL, or start it with `./brain up`.")


def _memory(found: keyspace.Overview) -> str:
    limit = f" of {found.max_memory_bytes / 2**20:.1f}" if found.max_memory_bytes else ""
    return f"{found.used_memory_bytes / 2**20:.1f}{limit} MiB"
