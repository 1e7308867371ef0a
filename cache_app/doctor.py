"""What is wrong with the caches now, and what to do about it: looks at every alias, changes nothing.

each look → findings, the ones that are well too → the command's table and exit code
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings

from foundation.findings import Finding, Level

from . import browsing, operations, standing, stats_store
from .backend import BrainCache
from .entries import wall_s
from .keyspace import HIGH_MEMORY, Server
from .shelves import link_of
from .standing import Standing
from .tallies import Tally, by_alias

CLOCK_S = 1.0  # a host whose clock differs by more ends entries too early or too late
_FRAGMENTED = 1.5  # resident memory of what is used, of a server that uses at least _WORTH_BYTES
_WORTH_BYTES = 64 * 2**20
_HEARD_S = 2.0  # that a tracker gets to be heard
_FULL_DISK = 0.05  # 0 to 1 of it that is free


def examine() -> list[Finding]:
    """All of it; a store that does not answer is a finding."""
    found = [finding for alias in operations.aliases() for finding in _alias(alias)]
    return [*found, *_statistics(), *_others()]


def _alias(alias: str) -> Iterator[Finding]:
    cache, state = operations.cache_of(alias), standing.of(alias)
    if state.error:
        yield _down(state)
    for look in _LOOKS:
        try:
            with operations.asking():
                yield from look(cache, state)
        except operations.CacheUnavailable:
            continue  # said above


def _down(state: Standing) -> Finding:
    hint = "Look at LOCATION, or start the server (`./brain up` starts the embedded one)."
    if state.kind == standing.FILE:
        hint = "Look at the directory that LOCATION names, and at its disk."
    return Finding(Level.ERROR, state.alias, f"does not answer: {state.error}", hint)


def _what(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    if state.error:
        return
    keys = browsing.in_words(state.keys or 0, state.keys_exact)
    told = f"{state.kind}, {keys}" + (", of this process alone" if state.is_of_process else "")
    if state.servers:
        told = f"{', '.join(sorted({found.server for found in state.servers}))}, {told}"
    yield Finding(Level.OK, state.alias, told)


def _memory(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    for found in state.servers:
        about = _about(state, "memory", found)
        if not found.max_memory_bytes:
            # A laptop's server may grow; one that others depend on takes its machine with it.
            level = Level.WARNING if _is_production() else Level.OK
            hint = "Set maxmemory: without it the server grows until the machine stops it."
            yield Finding(level, about, f"{_size(found.used_memory_bytes)} used, no limit", hint)
            continue
        ratio = found.memory_ratio or 0.0
        told = f"{_size(found.used_memory_bytes)} of {_size(found.max_memory_bytes)} used ({ratio:.0%})"
        hint = "Give it more, or shorten TTLs: the admin's page of the alias shows what is big."
        is_high = ratio >= HIGH_MEMORY
        yield Finding(Level.WARNING if is_high else Level.OK, about, told, hint if is_high else "")


def _policy(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    is_shared = not state.error and browsing.is_of_platform(cache)
    for found in state.servers:
        about = _about(state, "eviction", found)
        if found.policy.startswith("allkeys") and is_shared:
            hint = "Locks, limits and the queue's wake-ups live here too: noeviction, or a server for the cache alone."
            yield Finding(Level.WARNING, about, f"{found.policy} removes what must stay", hint)
        elif found.policy == "noeviction" and not is_shared:
            hint = "A server that only caches evicts better than it refuses: maxmemory-policy allkeys-lfu."
            yield Finding(Level.WARNING, about, "noeviction: writes fail at the limit", hint)
        else:
            yield Finding(Level.OK, about, found.policy)


def _evictions(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    for found in state.servers:
        if not found.evicted:
            continue
        per_hour = found.evicted / max(found.uptime_s, 1) * 3600
        told = f"{found.evicted:,} keys removed since the server's start, {per_hour:,.0f} per hour"
        hint = "What is removed is loaded again: give the server more memory, or shorten TTLs."
        yield Finding(Level.WARNING, _about(state, "evictions", found), told, hint)


def _fragmentation(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    for found in state.servers:
        if found.fragmentation is None or found.used_memory_bytes < _WORTH_BYTES:
            continue  # of a small server it says nothing
        told = f"{found.fragmentation:.2f}: {_size(found.resident_bytes)} resident"
        is_high = found.fragmentation > _FRAGMENTED
        hint = "CONFIG SET activedefrag yes, or restart the server at a quiet hour." if is_high else ""
        level = Level.WARNING if is_high else Level.OK
        yield Finding(level, _about(state, "fragmentation", found), told, hint)


def _clock(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    if state.error or not state.servers:
        return
    for link in link_of(cache).primaries():
        before, asked = wall_s(), time.monotonic()
        seconds, micros = map(int, link.read("TIME"))
        took_s = time.monotonic() - asked
        off_s = before + took_s / 2 - (seconds + micros / 1e6)
        is_off = abs(off_s) > CLOCK_S
        hint = "Have both follow NTP: entries end by the clock of whoever reads them." if is_off else ""
        told = f"the server's is {abs(off_s):.3f} s {'behind' if off_s > 0 else 'ahead of'} this host's"
        yield Finding(Level.WARNING if is_off else Level.OK, f"{state.alias}: clock", told, hint)


def _connection(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    for server, breaker in state.breakers.items():
        if breaker != "closed":
            hint = "The server failed several times in a row; this process asks again by itself."
            yield Finding(Level.WARNING, f"{state.alias}: breaker", f"{server}: {breaker}", hint)


def _tracker(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    """Begun here, if this process has not used the alias yet: whether it can be heard is what is asked."""
    tracker = getattr(cache.store, "tracker", None)
    if tracker is None or state.error:
        return
    tracker.start()
    until = time.monotonic() + _HEARD_S
    while not tracker.is_live and time.monotonic() < until:
        time.sleep(0.02)
    about, silent = f"{state.alias}: tracker", [name for name, heard in tracker.state().items() if not heard]
    if tracker.is_live:
        yield Finding(Level.OK, about, "the server says what has changed")
    else:
        hint = "Memory is not used meanwhile, so nothing is stale, and every read goes to the server."
        told = f"{', '.join(silent) or 'no server'} does not say what has changed"
        yield Finding(Level.WARNING, about, told, hint)


def _serializer(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    if state.serializer == "pickle":
        hint = "Whoever gets hold of KEYS and the server runs code here: json or typed where they are enough."
        yield Finding(Level.WARNING, f"{state.alias}: serializer", "pickle", hint)


def _files(cache: BrainCache, state: Standing) -> Iterator[Finding]:
    if state.kind != standing.FILE:
        return
    directory, about = str(cache.location), f"{state.alias}: directory"
    found = os.stat(directory)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        hint = "chmod 0700: whoever reads it reads what is cached, and whoever writes it chooses what is."
        yield Finding(Level.ERROR, about, f"{directory} is open to others ({mode:04o})", hint)
    if found.st_uid != os.geteuid():
        hint = "Give each user that runs the platform a directory of its own."
        yield Finding(Level.WARNING, about, f"{directory} belongs to user {found.st_uid}", hint)
    disk = shutil.disk_usage(directory)
    told = f"{_size(disk.free)} of {_size(disk.total)} free"
    if disk.free < _FULL_DISK * disk.total:
        hint = "A full disk makes every write fail: free some, or lower MAX_BYTES."
        yield Finding(Level.WARNING, f"{state.alias}: disk", told, hint)
    else:
        yield Finding(Level.OK, f"{state.alias}: disk", told)


def _statistics() -> Iterator[Finding]:
    found = stats_store.totals()
    for alias, tally in by_alias(found.tallies).items():
        yield from _damage(alias, tally)
    if not stats_store.is_there():
        yield Finding(Level.OK, "statistics", "of each process alone: the default cache is no Redis")
    elif not found.is_shared:
        hint = "Nothing is lost: the counts are added when Redis answers again."
        told = f"of this process alone: Redis does not answer, {stats_store.backlog():,} counts wait for it"
        yield Finding(Level.WARNING, "statistics", told, hint)
    else:
        yield Finding(Level.OK, "statistics", "of all processes, in Redis")


def _damage(alias: str, tally: Tally) -> Iterator[Finding]:
    if corrupt := tally.of("corrupt"):
        hint = "Misses, and overwritten by the next load. If they go on: two programs share a prefix, or KEYS differ."
        yield Finding(Level.WARNING, f"{alias}: entries", f"{corrupt:,} could not be read", hint)
    if losses := tally.of("tracker_losses"):
        hint = "Each time memory was emptied. Look at the network between here and the server."
        yield Finding(Level.OK, f"{alias}: tracker", f"lost {losses:,} times since the last reset", hint)


def _others() -> Iterator[Finding]:
    """Aliases that other backends serve: they are not looked into."""
    ours = operations.aliases()
    for alias, listed in settings.CACHES.items():
        if alias not in ours:
            yield Finding(Level.OK, alias, f"{listed.get('BACKEND')}: not ours, not looked into")


def _about(state: Standing, what: str, server: Server) -> str:
    return f"{state.alias}: {what}" + (f" of {server.name}" if len(state.servers) > 1 else "")


def _is_production() -> bool:
    return bool(getattr(settings, "PRODUCTION", not settings.DEBUG))


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:,.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"


_LOOKS: tuple[Callable[[Any, Standing], Iterator[Finding]], ...] = (
    _what, _memory, _policy, _evictions, _fragmentation, _clock, _connection, _tracker, _serializer, _files,
)  # fmt: skip
