"""`manage.py cache`: how the caches stand; its verbs look into them and change them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from cache_app import keyspace, standing
from cache_app.management.changing_verbs import ChangingVerbs
from cache_app.management.looking_verbs import LookingVerbs
from cache_app.standing import Standing
from foundation.commands import DEGRADED, FAILED, OK, BrainCommand


class Command(BrainCommand):
    help = (
        "The state of the caches: server, memory, keys. Exit code 3: degraded, 1: down. "
        "Example: manage.py cache keys 'user:*'"
    )

    is_brief = True

    def define(self, parser: CommandParser) -> None:
        LookingVerbs(self).define()
        ChangingVerbs(self).define()

    def bare(self, **options: Any) -> int:
        found = standing.all_aliases()
        self.table(
            ["alias", "kind", "server", "keys", "memory", "evicted", "state"], [_row(one) for one in found]
        )
        of_default = next((one for one in found if one.alias == "default" and one.servers), None)
        sums = {} if of_default is None else _sums(of_default)
        self.document({**sums, "aliases": [one.document() for one in found]})
        if any(one.error for one in found):
            return FAILED
        return DEGRADED if any(one.degraded for one in found) else OK


def _row(found: Standing) -> list[Any]:
    keys = None if found.keys is None else f"{'' if found.keys_exact else 'about '}{found.keys}"
    evicted = sum(server.evicted for server in found.servers) if found.servers else None
    server = ", ".join(sorted({one.server for one in found.servers})) or None
    return [found.alias, found.kind, server, keys, _memory(found), evicted, found.degraded or "ok"]


def _memory(found: Standing) -> str | None:
    if found.servers:
        used = sum(server.used_memory_bytes for server in found.servers)
        most = sum(server.max_memory_bytes for server in found.servers)
    elif found.held:
        used, most = found.held.size_bytes, found.held.most_bytes
    else:
        return None
    return f"{used / 2**20:.1f}{f' of {most / 2**20:.1f}' if most else ''} MiB"


def _sums(found: Standing) -> dict[str, Any]:
    """Of the default alias, at the document's top."""
    return keyspace.Overview(found.servers, found.keys or 0, found.keys_exact).document()
