"""`@cached`: a function's results in a cache, for `def` and `async def`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from . import backends, keys, model_tags, stats
from .backend import BrainCache
from .calls import HITS, Answer, Call, described
from .early import BETA
from .entries import Read
from .loading import aanswer, answer, is_plainly_fresh, load_alone
from .rules import DEFAULT, Rules
from .store import StoreFailed

if TYPE_CHECKING:
    from django.db.models import Model

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
Arguments = tuple[Sequence[Any], Mapping[str, Any]]

_all: dict[str, CachedFunction[..., Any]] = {}


class CachedFunction(Protocol[P, R_co]):
    """What `cached` returns. lookup, invalidate and key take the arguments of a call."""

    lookup: Callable[..., Any]
    invalidate: Callable[..., Any]
    key: Callable[..., str]
    name: str  # module and qualified name; what its calls are counted under
    alias: str | None  # of CACHES; None: the one of `initialize_cache`, or "default"
    warm: Callable[[], Any] | None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def cached(
    ttl_s: Any = DEFAULT,
    *,
    ttl: Any = DEFAULT,
    key: Callable[..., Any] | None = None,
    version: int = 1,
    alias: str | None = None,
    tags: Sequence[str] | Callable[..., Iterable[str]] = (),
    depends_on: Sequence[type[Model] | str] = (),
    vary: Sequence[Callable[[], Any]] = (),
    unless: Callable[[Any], object] | None = None,
    negative: Callable[[Any], object] | None = None,
    negative_ttl_s: float | None = None,
    cache_errors: tuple[type[Exception], ...] = (),
    error_ttl_s: float | None = None,
    sliding: bool = False,
    jitter: float | None = None,
    stale_s: float = 0.0,
    retry_s: float = 1.0,
    soft_timeout_s: float | None = None,
    hard_timeout_s: float | None = None,
    early: float = BETA,
    lock: bool = True,
    warm: Callable[[], Iterable[Arguments]] | None = None,
) -> Callable[[Callable[P, R_co]], CachedFunction[P, R_co]]:
    """Keep the results for ttl_s seconds (`ttl` is the same; None = for ever; default: BRAIN["CACHE"]["DEFAULT_TTL_S"]).

    What tells calls apart, and where their results are
        key: called with the call's arguments, returns what tells calls apart (default: all of them). Methods need it.
        vary: called without arguments; their results tell calls apart too (translation.get_language, a tenant).
        version: raise it when the meaning of the result changes; old entries are then never read again.
        alias: of CACHES.
    What ends them early
        tags: texts, or a callable of the arguments that returns some; `cache.invalidate_tags` ends what has them.
        depends_on: models, or "app.Model"; a committed change of any of their rows ends the results.
    What is kept
        unless: called with the result; when true, it is answered and not stored.
        negative_ttl_s: the life of a result that is None, or of which `negative` says so.
        cache_errors, error_ttl_s: exceptions of exactly these classes are kept, if their arguments are JSON.
        sliding: each hit begins the life anew. jitter: share of the life that is taken off at random.
    What happens around a load
        lock: one process loads and the others wait for it. In one process, one caller loads in any case.
        early: how eagerly a load starts in the background before the end of the life (early.py); 0 = never.
        stale_s: for so long after its life a result answers when the function raises or takes too long;
            for retry_s after that it answers without trying.
        soft_timeout_s: then such a result answers. hard_timeout_s: then LoadTimeout is raised. The load goes on.
        warm: returns (args, kwargs) of the calls that `manage.py cache warm` makes.

    Results are what the alias' serializer can hold (codec.Uncacheable for others); None is a result like any other.
    The decorated function has, with the arguments of a call, awaitable if it is a coroutine function:
    `.lookup(…)` → Cached (the value, and whether it was a hit), `.invalidate(…)` → bool, and `.key(…)` → str.
    """
    if callable(ttl_s):
        raise TypeError("write @cached() with parentheses")
    if ttl_s is not DEFAULT and ttl is not DEFAULT:
        raise TypeError("ttl_s and ttl are the same: give one")
    rules = Rules(
        ttl_s=ttl_s if ttl is DEFAULT else ttl,
        lock=lock,
        early=early,
        sliding=sliding,
        jitter=jitter,
        stale_s=stale_s,
        retry_s=retry_s,
        soft_timeout_s=soft_timeout_s,
        hard_timeout_s=hard_timeout_s,
        unless=unless,
        negative=negative,
        negative_ttl_s=negative_ttl_s,
        cache_errors=tuple(cache_errors),
        error_ttl_s=error_ttl_s,
    )

    def decorate(function: Callable[P, R_co]) -> CachedFunction[P, R_co]:
        calls = _Calls(function, rules, key, version, alias, tags, tuple(vary), tuple(depends_on))
        made = (_awaited if inspect.iscoroutinefunction(function) else _direct)(function, calls)
        made.name, made.alias, made.warm = calls.name, alias, _warm(made, warm)
        _all[calls.name] = made
        return cast("CachedFunction[P, R_co]", made)

    return decorate


def known() -> dict[str, CachedFunction[..., Any]]:
    """Every function of this process that `cached` decorates, by module and qualified name."""
    return dict(_all)


class _Calls:
    """From the arguments of one decorated function to its calls."""

    def __init__(
        self,
        function: Callable[..., Any],
        rules: Rules,
        key: Callable[..., Any] | None,
        version: int,
        alias: str | None,
        tags: Sequence[str] | Callable[..., Iterable[str]],
        vary: tuple[Callable[[], Any], ...],
        depends_on: tuple[type[Model] | str, ...],
    ) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator can be run through once: let the function return a list")
        if isinstance(tags, str):
            raise TypeError("tags is a sequence of texts, not one text")
        self.function, self.rules, self.given_key, self.alias, self.vary = function, rules, key, alias, vary
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.version = f"{version}!" if rules.cache_errors else str(version)  # rules.py says why
        self.arguments = keys.Arguments(inspect.signature(function))
        self.model_tags = tuple(model_tags.watch(model, alias) for model in depends_on)
        self.given_tags = tags
        self.may_depend = bool(depends_on) or callable(tags)  # on rows: the callable may name some
        self.tags = None if callable(tags) else (*self.model_tags, *tags)
        self._bound: tuple[BrainCache, stats.Counts, str] | None = None

    def key(self, *args: Any, **kwargs: Any) -> str:
        return self.key_of(self.bound()[2], args, kwargs)

    def tags_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[str]:
        if self.tags is not None:
            return self.tags
        return (*self.model_tags, *self.given_tags(*args, **kwargs))  # type: ignore[operator]

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], key: str, tags: Sequence[str]) -> Call:
        cache, counts, _ = self.bound()
        load = functools.partial(self.function, *args, **kwargs)
        return Call(cache, key, load, self.rules, counts, self.name, tags)

    def bound(self) -> tuple[BrainCache, stats.Counts, str]:
        """Its cache, its counts, and what its keys begin with: looked up once for as long as the cache is the same."""
        cache, bound = backends.backend(self.alias), self._bound
        if bound is None or bound[0] is not cache:
            stem = keys.stem(cache.key_prefix, self.name, self.version)
            bound = self._bound = (cache, stats.counts(cache.alias, self.name), stem)
        return bound

    def key_of(self, stem: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if self.given_key is not None:
            text = f"key={keys.canonical(self.given_key(*args, **kwargs))}"
        else:
            text = self.arguments.text(args, kwargs)
        if self.vary:
            text = keys.varied(text, [surrounding() for surrounding in self.vary])
        return stem + keys.bounded(text)


def _direct(function: Callable[..., Any], calls: _Calls) -> Any:
    rules, may_depend = calls.rules, calls.may_depend

    def answered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        cache, counts, stem = calls.bound()
        key, tags = calls.key_of(stem, args, kwargs), calls.tags_of(args, kwargs)
        if may_depend and model_tags.is_changed_here(tags):
            return load_alone(calls.call(args, kwargs, key, tags))
        found: Read | StoreFailed
        try:
            found = cache.read(key, tags)
            if is_plainly_fresh(found, rules):  # a call need not be made for it
                counts.add(HITS[found.tier])
                return found.value, found.meta, True, False
        except StoreFailed as failed:
            found = failed
        return answer(calls.call(args, kwargs, key, tags), found)

    def lookup(*args: Any, **kwargs: Any) -> Any:
        return described(answered(args, kwargs))

    def invalidate(*args: Any, **kwargs: Any) -> bool:
        try:
            return calls.bound()[0].store.delete_many([calls.key(*args, **kwargs)]) > 0
        except StoreFailed as failed:
            raise failed.__cause__ or failed from None

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return answered(args, kwargs)[0]

    return _with(wrapper, lookup, invalidate, calls)


def _awaited(function: Callable[..., Any], calls: _Calls) -> Any:
    rules = calls.rules

    async def answered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        cache, counts, stem = calls.bound()
        key, tags = calls.key_of(stem, args, kwargs), calls.tags_of(args, kwargs)
        found: Read | StoreFailed
        try:
            found = await cache.aread(key, tags)
            if is_plainly_fresh(found, rules):
                counts.add(HITS[found.tier])
                return found.value, found.meta, True, False
        except StoreFailed as failed:
            found = failed
        return await aanswer(calls.call(args, kwargs, key, tags), found)

    async def lookup(*args: Any, **kwargs: Any) -> Any:
        return described(await answered(args, kwargs))

    async def invalidate(*args: Any, **kwargs: Any) -> bool:
        try:
            return await calls.bound()[0].store.adelete_many([calls.key(*args, **kwargs)]) > 0
        except StoreFailed as failed:
            raise failed.__cause__ or failed from None

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return (await answered(args, kwargs))[0]

    return _with(wrapper, lookup, invalidate, calls)


def _with(wrapper: Any, lookup: Any, invalidate: Any, calls: _Calls) -> Any:
    wrapper.lookup, wrapper.invalidate, wrapper.key = lookup, invalidate, calls.key
    return wrapper


def _warm(function: Any, listed: Callable[[], Iterable[Arguments]] | None) -> Callable[[], Any] | None:
    """Makes the listed calls one after the other; how many of them had to load. Awaitable for a coroutine function."""
    if listed is None:
        return None

    def warm() -> int:
        return sum(not function.lookup(*args, **kwargs).hit for args, kwargs in listed())

    async def awarm() -> int:
        return sum([not (await function.lookup(*args, **kwargs)).hit for args, kwargs in listed()])

    return awarm if inspect.iscoroutinefunction(function) else warm
