"""Filling a cache before it is asked: the calls that functions list with `@cached(warm=…)`, made one after the other."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog

from foundation import audit

from . import decorators

log = structlog.get_logger(__name__)


class UnknownFunction(LookupError):
    """No function of this name lists what to warm."""


class Warmed(NamedTuple):
    """loaded: calls that had to load; what was there already is not loaded again. error: why it stopped, "" if not."""

    name: str
    loaded: int
    took_s: float
    error: str = ""


def warmable() -> dict[str, Callable[[], Any]]:
    """By module and qualified name; of the modules that this process has imported."""
    return {name: found.warm for name, found in sorted(decorators.known().items()) if found.warm is not None}


def chosen(names: Sequence[str]) -> list[str]:
    """Those that are named, by their whole name or its end; all of them for none. Raises UnknownFunction."""
    known = list(warmable())
    if not names:
        return known
    found = []
    for name in names:
        meant = [one for one in known if one == name or one.endswith(f".{name}")]
        if not meant:
            raise UnknownFunction(
                f"no function {name!r} has @cached(warm=…); known: {', '.join(known) or 'none'}"
            )
        found += meant
    return list(dict.fromkeys(found))


def warm(name: str, *, actor: Any, source: str, **request: Any) -> Warmed:
    """Make the calls that the function lists. An exception of its loader ends them and is told."""
    began, loaded, error = time.monotonic(), 0, ""
    function = warmable()[name]
    try:
        loaded = _run(function)
    except Exception as failed:
        log.exception("cache_warm_failed", function=name)
        error = f"{type(failed).__name__}: {failed}".partition("\n")[0][:200]
    found = Warmed(name, loaded, time.monotonic() - began, error)
    after = {"function": name, "loaded": loaded} | ({"error": error} if error else {})
    audit.record(
        actor=actor, action="cache.warm", target=f"cache:{name}", after=after, source=source, **request
    )
    return found


def _run(function: Callable[[], Any]) -> int:
    if inspect.iscoroutinefunction(function):
        return int(asyncio.run(function()))
    return int(function())
