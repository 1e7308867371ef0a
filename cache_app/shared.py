"""What all instances of an alias' backend in this process stand on: Django makes one instance per thread and context.

alias and its parameters → options, codec, store, counts: made once, closed when the settings change
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from . import options, stats
from .codec import Codec
from .options import Options
from .store import Store


@dataclass(frozen=True, slots=True)
class Shared:
    alias: str
    options: Options
    codec: Codec
    store: Store
    counts: stats.Counts


_guard = threading.RLock()  # a tiered store makes the store behind it
_all: dict[tuple[Any, ...], Shared] = {}


def of(
    kind: type, location: Any, params: Mapping[str, Any], make_store: Callable[[str, Options], Store]
) -> Shared:
    """Raises ImproperlyConfigured for options that would lose or expose something; the others are system checks."""
    key = (kind, repr(location), repr(params))
    found = _all.get(key)
    if found is not None:
        return found
    with _guard:
        if key not in _all:
            _all[key] = _made(kind, location, params, make_store)
        return _all[key]


def alias_of(kind: type, location: Any, params: Mapping[str, Any]) -> str:
    """The name under which CACHES lists these parameters; Django does not tell it to a backend.

    Else that of the same keys: what `initialize_cache` makes of them counts as the alias does.
    """
    same_keys = []
    for alias, listed in settings.CACHES.items():
        rest = {name: value for name, value in listed.items() if name not in ("BACKEND", "LOCATION")}
        is_kind = str(listed.get("BACKEND", "")).endswith(f"{kind.__module__}.{kind.__name__}")
        if not is_kind or listed.get("LOCATION", "") != location:
            continue
        if rest == params:
            return str(alias)
        if rest.get("KEY_PREFIX", "") == params.get("KEY_PREFIX", ""):
            same_keys.append(str(alias))
    return same_keys[0] if same_keys else str(params.get("KEY_PREFIX") or location)


def close_all(**_: Any) -> None:
    with _guard:
        known = list(_all.values())
        _all.clear()
    for shared in known:
        close = getattr(shared.store, "close", None)
        if close is not None:
            with contextlib.suppress(OSError):
                close()


def _made(
    kind: type, location: Any, params: Mapping[str, Any], make_store: Callable[[str, Options], Store]
) -> Shared:
    alias = alias_of(kind, location, params)
    chosen, problems = options.read(alias, params.get("OPTIONS", {}))
    for problem in problems:
        if "KEYS" in problem.message:
            raise ImproperlyConfigured(f"{problem.message} {problem.hint}")
    codec = Codec(
        serializer=chosen.SERIALIZER,
        compressor=chosen.COMPRESSOR,
        compress_from_bytes=chosen.COMPRESS_FROM_BYTES,
        sign=chosen.SIGN,
        keys=options.keys_of(chosen),
    )
    return Shared(alias, chosen, codec, make_store(alias, chosen), stats.counts(alias))


def _changed(*, setting: str, **_: Any) -> None:
    if setting == "CACHES":
        close_all()


def _after_fork() -> None:
    global _guard
    _guard = threading.RLock()  # the thread that held it is not in the child


setting_changed.connect(_changed, dispatch_uid=__name__)
os.register_at_fork(after_in_child=_after_fork)
