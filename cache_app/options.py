"""OPTIONS of one CACHES alias: defaults, units, and what is wrong with them. Pure.

What django-redis reads from the same dict (CONNECTION_POOL_KWARGS, PASSWORD, …) is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from foundation.conf import Problem, read_from, setting, unknown_key

SERIALIZERS = ("json", "typed", "pickle")
COMPRESSORS = (None, "zstd", "lz4", "gzip")
DJANGO_REDIS = frozenset(
    [
        "CLIENT_CLASS",
        "CONNECTION_FACTORY",
        "CONNECTION_POOL_CLASS",
        "CONNECTION_POOL_KWARGS",
        "CONNECTION_POOL_CLASS_KWARGS",
        "REDIS_CLIENT_CLASS",
        "REDIS_CLIENT_KWARGS",
        "PARSER_CLASS",
        "PASSWORD",
        "SOCKET_TIMEOUT",
        "SOCKET_CONNECT_TIMEOUT",
        "SENTINEL_KWARGS",
        "REVERSE_KEY_FUNCTION",
        "CLOSE_CONNECTION",
        "CULL_FREQUENCY",
    ]
)
# django-redis' own ways to choose what we choose otherwise: named, so that a migrating reader is told.
INSTEAD = {
    "IGNORE_EXCEPTIONS": 'Write "ON_DOWN": "ignore".',
    "LOG_IGNORED_EXCEPTIONS": "They are counted, and logged at most once per BRAIN['CACHE']['LOG_EVERY_S'].",
    "PICKLE_VERSION": 'Write "SERIALIZER": "pickle" with KEYS, if it has to be pickle.',
    "JSON_ENCODER": 'Write "SERIALIZER": "typed": it keeps what the encoder turned into text.',
}


SHORTEST_KEY = 16  # bytes


@dataclass(frozen=True, slots=True)
class Options:
    SERIALIZER: str = setting("json", choices=SERIALIZERS)  # pickle needs KEYS
    COMPRESSOR: str | None = setting(None, choices=COMPRESSORS)
    COMPRESS_FROM_BYTES: int = setting(1024, low=0, high=2**30)  # smaller values cost more than they save
    SIGN: bool = False  # refuse what none of KEYS has signed; pickle always does
    KEYS: tuple[str | bytes, ...] = ()  # the first signs, all of them verify
    ON_DOWN: str = setting("raise", choices=("raise", "ignore", "stale"))
    JITTER: float = setting(0.0, low=0.0, high=0.5)  # share of a TTL that is taken off at random
    MAX_BYTES: int = setting(64 * 2**20, low=1024, high=2**40)  # of memory, of L1, of the files
    MAX_ENTRIES: int = setting(100_000, low=1, high=10**9)
    POLICY: str = setting("tinylfu", choices=("tinylfu", "lru"))  # of memory and L1
    COPY: bool = True  # False: memory and L1 hand out the stored object itself
    L1_TTL_S: float = setting(60.0, low=0.01, high=86_400)  # ceiling for what L1 holds
    TRACKER_PING_S: float = setting(1.0, low=0.05, high=60)  # a silent tracking connection is asked so often
    STALE_MAX_BYTES: int = setting(
        16 * 2**20, low=1024, high=2**40
    )  # of last known values, ON_DOWN = "stale"
    STALE_MAX_AGE_S: float = setting(3600.0, low=1, high=31_536_000)
    CLUSTER: bool = False  # LOCATION names any nodes of a Redis or Valkey cluster
    SENTINELS: tuple[tuple[str | int, ...], ...] = ()  # (host, port) of each
    SENTINEL_SERVICE: str = ""
    BREAKER_FAILURES: int = setting(3, low=1, high=1000)  # in a row, then the store is not asked
    BREAKER_OPEN_S: float = setting(2.0, low=0.01, high=600)  # until one call may try again


OURS = frozenset(field.name for field in fields(Options))


def read(alias: str, values: object, where: str = "") -> tuple[Options, list[Problem]]:
    """The options of CACHES[alias], and what is wrong with them; a wrong value keeps its default.

    where: what the problems call them, if they do not stand in CACHES.
    """
    where = where or f"CACHES[{alias!r}]['OPTIONS']"
    if not isinstance(values, Mapping):
        return read_from(where, Options, values)
    ours = {name: value for name, value in values.items() if name in OURS}
    found, problems = read_from(where, Options, ours)
    for name in values:
        if name in INSTEAD:
            problems.append(Problem("key", f"{name} of {where} has no effect.", INSTEAD[name]))
        elif name not in OURS and name not in DJANGO_REDIS:
            problems.append(unknown_key(name, where, sorted(OURS)))
    problems += _contradictions(where, found)
    return found, problems


def keys_of(options: Options) -> tuple[bytes, ...]:
    return tuple(key.encode() if isinstance(key, str) else key for key in options.KEYS)


def _contradictions(where: str, found: Options) -> list[Problem]:
    needs = "pickle" if found.SERIALIZER == "pickle" else "SIGN" if found.SIGN else ""
    if needs and not any(found.KEYS):
        hint = (
            'Give "KEYS": (secret, …), the first one signs; keep old ones until what they signed has expired.'
        )
        return [Problem("range", f"{where} has {needs} and no KEYS.", hint)]
    if any(len(key) < SHORTEST_KEY for key in keys_of(found)):
        hint = f"Give each {SHORTEST_KEY} bytes or more: `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        return [Problem("range", f"{where} has KEYS that are too short.", hint)]
    return []
