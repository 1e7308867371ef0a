"""`@cached`: a function's results in Redis, for `def` and `async def`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from .conf import conf
from .connections import aclient, client, key_prefix
from .keys import call_key
from .loading import Awaited, Cached, Call, Direct, fetch
from .steps import adrive, drive

DEFAULT: Final = object()
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class CachedFunction(Protocol[P, R_co]):
    """What `cached` returns. lookup, invalidate and key take the arguments of a call."""

    lookup: Callable[..., Any]
    invalidate: Callable[..., Any]
    key: Callable[..., str]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def cached(
    ttl_s: Any = DEFAULT,
    *,
    ttl: Any = DEFAULT,
    key: Callable[..., Any] | None = None,
    version: int = 1,
    lock: bool = False,
) -> Callable[[Callable[P, R_co]], CachedFunction[P, R_co]]:
    """Keep the results for ttl_s seconds (`ttl` is the same; None = for ever; default: BRAIN["CACHE"]["DEFAULT_TTL_S"]).

    key: called with the call's arguments, returns what tells calls apart (default: all arguments). Methods need it.
    version: raise it when the meaning of the result changes; old entries are then never read again.
    lock: of many callers that miss, over all processes, one runs the function and the others wait for its result.

    Results are JSON (codec.Uncacheable for what has no JSON form); None is a result like any other; exceptions are
    not kept. The decorated function has, with the arguments of a call, awaitable if it is a coroutine function:
    `.lookup(…)` → Cached (the value, and whether it was a hit), `.invalidate(…)` → bool, and `.key(…)` → str.
    """
    if callable(ttl_s):
        raise TypeError("write @cached() with parentheses")
    if ttl_s is not DEFAULT and ttl is not DEFAULT:
        raise TypeError("ttl_s and ttl are the same: give one")
    chosen = ttl_s if ttl is DEFAULT else ttl
    if chosen is not DEFAULT and chosen is not None and chosen <= 0:
        raise ValueError("ttl_s is a positive number of seconds, or None for ever")

    def decorate(function: Callable[P, R_co]) -> CachedFunction[P, R_co]:
        calls = _Calls(function, chosen, key, version, lock)
        made = (_awaited if inspect.iscoroutinefunction(function) else _direct)(function, calls)
        return cast("CachedFunction[P, R_co]", made)

    return decorate


class _Calls:
    """From the arguments of one decorated function to its keys and calls."""

    def __init__(
        self,
        function: Callable[..., Any],
        ttl_s: Any,
        key: Callable[..., Any] | None,
        version: int,
        lock: bool,
    ) -> None:
        self.function, self.ttl_s, self.key, self.version, self.lock = function, ttl_s, key, version, lock
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.signature = inspect.signature(function)

    def key_of(self, *args: Any, **kwargs: Any) -> str:
        if self.key is not None:
            return call_key(key_prefix(), self.name, self.version, {"key": self.key(*args, **kwargs)})
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return call_key(key_prefix(), self.name, self.version, bound.arguments)

    def call(self, *args: Any, **kwargs: Any) -> Call:
        ttl_s = conf().DEFAULT_TTL_S if self.ttl_s is DEFAULT else self.ttl_s
        load = functools.partial(self.function, *args, **kwargs)
        return Call(self.name, self.key_of(*args, **kwargs), ttl_s, self.lock, load)


def _direct(function: Callable[..., Any], calls: _Calls) -> Any:
    def lookup(*args: Any, **kwargs: Any) -> Cached:
        call = calls.call(*args, **kwargs)
        found: Cached = drive(fetch(call), Direct(call).perform)
        return found

    def invalidate(*args: Any, **kwargs: Any) -> bool:
        return bool(client().unlink(calls.key_of(*args, **kwargs)))

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return lookup(*args, **kwargs).value

    return _with(wrapper, lookup, invalidate, calls)


def _awaited(function: Callable[..., Any], calls: _Calls) -> Any:
    async def lookup(*args: Any, **kwargs: Any) -> Cached:
        call = calls.call(*args, **kwargs)
        found: Cached = await adrive(fetch(call), Awaited(call).perform)
        return found

    async def invalidate(*args: Any, **kwargs: Any) -> bool:
        return bool(await aclient().unlink(calls.key_of(*args, **kwargs)))

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return (await lookup(*args, **kwargs)).value

    return _with(wrapper, lookup, invalidate, calls)


def _with(wrapper: Any, lookup: Any, invalidate: Any, calls: _Calls) -> Any:
    wrapper.lookup, wrapper.invalidate, wrapper.key = lookup, invalidate, calls.key_of
    return wrapper
