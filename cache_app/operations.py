"""What people do to a cache: the admin, the API and the command all call these, and each change is audited.

Every function raises CacheUnavailable where the store does not answer, whatever the failure policy of the alias: whoever
deletes by hand wants to know. Keys are shown in the audit log, values never.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import redis
from django.core.cache import InvalidCacheBackendError

from foundation import audit

from . import backends, browsing, stats_store
from .backend import BrainCache
from .store import StoreFailed

_NAMED = 20  # keys that an audit entry names


class UnknownAlias(LookupError):
    """CACHES has no such alias, or it is none of ours."""


class CacheUnavailable(Exception):
    """The store does not answer, or refuses. The text holds no credentials."""


def cache_of(alias: str) -> BrainCache:
    """Raises UnknownAlias."""
    try:
        return backends.backend(alias)
    except InvalidCacheBackendError as error:
        raise UnknownAlias(str(error)) from error


def aliases() -> list[str]:
    return backends.ours()


@contextmanager
def asking() -> Iterator[None]:
    """Whatever a store fails with becomes CacheUnavailable."""
    try:
        yield
    except StoreFailed as failed:
        raise CacheUnavailable(told(failed.__cause__ or failed)) from failed
    except (redis.RedisError, OSError) as error:
        raise CacheUnavailable(told(error)) from error


def told(error: BaseException) -> str:
    """One line. redis-py names hosts and never passwords; of a Sentinel it also tells the client's whole state."""
    text = f"{type(error).__name__}: {error}".partition("\n")[0].partition(" : <redis.")[0]
    return text[:300].removesuffix(": ")


def statistics(alias: str = "") -> stats_store.Totals:
    """What was counted, of all aliases or of one. Raises UnknownAlias for one of which neither CACHES nor a count tells."""
    found = stats_store.totals()
    if not alias:
        return found
    tallies = {key: tally for key, tally in found.tallies.items() if key[0] == alias}
    if not tallies:
        cache_of(alias)
    return replace(found, tallies=tallies)


def set_value(
    alias: str, key: str, value: Any, *, ttl_s: float | None, actor: Any, source: str, **request: Any
) -> None:
    """ttl_s: None = for ever. Raises Uncacheable."""
    cache = cache_of(alias)
    with asking():
        cache.write(cache.full_key(key), value, ttl_s=ttl_s, jitter=0.0)
    _record("cache.set", alias, {"keys": [key], "ttl_s": ttl_s}, actor, source, request)


def delete(
    alias: str, keys: Sequence[str], version: str = "", *, actor: Any, source: str, **request: Any
) -> int:
    """Own keys of one version; how many there were."""
    cache = cache_of(alias)
    with asking():
        removed = cache.store.delete_many([browsing.full_of(cache, key, version) for key in keys])
    cache.counts.add("deletes", removed)
    after = {"keys": list(keys[:_NAMED]), "removed": removed} | ({"version": version} if version else {})
    _record("cache.delete", alias, after, actor, source, request)
    return removed


def preview(alias: str, pattern: str, version: str = "") -> browsing.Matching:
    """What `delete_pattern` would remove."""
    with asking():
        return browsing.matching(cache_of(alias), pattern, version)


def delete_pattern(
    alias: str, pattern: str, version: str = "", *, actor: Any, source: str, **request: Any
) -> int:
    """pattern: a glob of own keys. How many were removed. ValueError for an empty one."""
    if not pattern:
        raise ValueError("a pattern is needed: * means all keys of a version")
    cache = cache_of(alias)
    with asking():
        removed = cache.store.delete_matching(cache.pattern(pattern, version or None))  # type: ignore[arg-type]
    cache.counts.add("deletes", removed)
    after = {"pattern": pattern, "removed": removed} | ({"version": version} if version else {})
    _record("cache.delete_pattern", alias, after, actor, source, request)
    return removed


def invalidate_tags(alias: str, tags: Sequence[str], *, actor: Any, source: str, **request: Any) -> None:
    """End every entry under any of them."""
    cache = cache_of(alias)
    with asking():
        cache.store.raise_versions([cache.tag_key(tag) for tag in tags])
    cache.counts.add("invalidations", len(tags))
    _record("cache.invalidate_tags", alias, {"tags": list(tags)}, actor, source, request)


def invalidate_namespace(alias: str, name: str, *, actor: Any, source: str, **request: Any) -> None:
    """End every entry in it. ValueError for an empty name."""
    cache = cache_of(alias)
    namespace = cache.namespace(name)
    with asking():
        cache.store.raise_versions([cache.tag_key(namespace.tag)])
    namespace.counts.add("invalidations")
    _record("cache.invalidate_namespace", alias, {"namespace": name}, actor, source, request)


def clear(alias: str, *, actor: Any, source: str, **request: Any) -> int:
    """Remove every key under the alias' prefix, in every version, and nothing else; how many."""
    cache = cache_of(alias)
    with asking():
        removed = sum(cache.store.delete_matching(pattern) for pattern in cache.everything())
    cache.counts.add("deletes", removed)
    _record("cache.clear", alias, {"prefix": cache.key_prefix, "removed": removed}, actor, source, request)
    return removed


def reset_statistics(*, actor: Any, source: str, **request: Any) -> None:
    """The totals of all processes and aliases begin anew."""
    with asking():
        stats_store.reset()
    _record("cache.reset_statistics", "", {}, actor, source, request)


def _record(
    action: str, alias: str, after: dict[str, Any], actor: Any, source: str, request: dict[str, Any]
) -> None:
    target = f"cache:{alias}" if alias else "cache"
    audit.record(actor=actor, action=action, target=target, after=after or None, source=source, **request)
