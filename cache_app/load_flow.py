"""What happens after a miss: single flight, lease, loader, store, as steps for load_steps to do."""

from __future__ import annotations

import contextlib
import math
import random
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
import structlog

from . import early, retries, seldom
from . import rules as rulebook
from .calls import HITS, Answer, Call, Landing, LoadFailed, LoadTimeout, Refused, left_s, settled
from .codec import Meta, Uncacheable
from .conf import conf
from .entries import Read, wall_s
from .flights import ABANDONED, Flight
from .locks import LockTimeout
from .rules import Rules
from .steps import Steps
from .store import StoreFailed

log = structlog.get_logger(__name__)
_DOWN = (StoreFailed, redis.RedisError, sqlite3.Error, OSError)  # what the places of locks raise


@dataclass(frozen=True, slots=True)
class Storing:
    """How the result of a load may be stored."""

    versions: Mapping[str, int]  # of its tags, before the load began
    has_value: bool  # one stands there that may still answer, which is better than an error
    lock: Any  # its lease; None: it is loaded without one


def answering(call: Call, found: Read | StoreFailed) -> Steps:
    """The way of every call, from what asking the store came to."""
    if isinstance(found, StoreFailed):
        call.store_failed(found)
        known = call.last_known()
        if known is not None and call.usable(known).is_found:
            call.counts.add("stale")
            return settled(call, (known.value, known.meta, True, True))
        return settled(call, (yield from _missed(call, None)))
    found = call.usable(found)
    if not found.is_found or left_s(found) <= 0:
        return settled(call, (yield from _missed(call, found)))
    call.counts.add(HITS[found.tier])
    if _is_due(call, found):
        yield from _refreshed(call, found)
    return settled(call, (found.value, found.meta, True, False))


def alone(call: Call) -> Steps:
    """Load for this caller only: nothing is read, shared or stored."""
    return settled(call, _answer(call, (yield from _loaded(call, None, None)), None))


def _missed(call: Call, read: Read | None) -> Steps:
    """read: what stands in the store, past its life or missing; None: the store does not answer."""
    if read is not None:
        call.counts.add("misses")
    stale = read if read is not None and _may_serve(call, read) else None
    if stale is not None and retries.is_held_off(call.seat, time.monotonic()):
        return _stale(call, stale)
    patience_s = call.rules.patience_s(stale is not None)
    give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
    while True:
        flight, leads = yield ("board",)
        if flight is None:  # a recursion: whoever loads it waits for this very call
            outcome = yield from _loaded(call, None, None)
        else:
            outcome = yield from _flown(call, flight, leads, read is not None, give_up_at)
        if outcome is not ABANDONED:
            return _answer(call, outcome, stale)


def _refreshed(call: Call, old: Read) -> Steps:
    """Start a load ahead of the entry's end, unless one is under way. Nobody waits for it."""
    if retries.is_held_off(call.seat, time.monotonic()):
        return
    flight, leads = yield ("board",)
    if flight is None or not leads:
        return
    if not (yield "detach", _rebuilt(call, flight, old=old), True):
        flight.abandon()


def _flown(call: Call, flight: Flight, leads: bool, is_store_up: bool, give_up_at: float) -> Steps:
    """The outcome, for a caller who leads or follows. None: not in time."""
    wait_s = conf().REBUILD_WAIT_S
    is_second = False
    while True:
        if leads:
            steps = _rebuilt(call, flight, is_store_up=is_store_up, with_lease=not is_second)
            if give_up_at == math.inf:
                return (yield from steps)
            if not (yield "detach", steps, False):
                flight.abandon()
                return None
        end_at = min(give_up_at, flight.progressed_at + wait_s)
        outcome = yield "follow", flight, max(end_at - time.monotonic(), 0.0)
        if outcome is not None:
            if not leads and isinstance(outcome, Landing):
                call.counts.add("coalesced")
            return outcome
        now = time.monotonic()
        if now >= give_up_at:
            return None
        leads = is_second = flight.take_over(now, wait_s)
        if leads:  # without the lease, which whoever hangs still has
            call.counts.add("lock_timeouts")


def _rebuilt(
    call: Call, flight: Flight, *, is_store_up: bool = True, with_lease: bool = True, old: Read | None = None
) -> Steps:
    """The outcome, for all who wait on the flight. old: what a load ahead of its end is to replace."""
    try:
        if not is_store_up:
            outcome = yield from _loaded(call, flight, None)
        elif with_lease and call.rules.lock:
            outcome = yield from _leased(call, flight, old)
        else:
            outcome = yield from _unless_made_since(call, flight, old, None)
    except Exception as error:  # noqa: BLE001  (all who wait raise it)
        outcome = Refused(error, error.__traceback__)
    except BaseException:  # cancelled, or the interpreter ends: somebody else has to
        flight.abandon()
        raise
    if outcome is ABANDONED:
        flight.abandon()
    else:
        flight.end(outcome)
    return outcome


def _leased(call: Call, flight: Flight, old: Read | None) -> Steps:
    lock = None
    try:
        lock = yield "acquire", conf().REBUILD_WAIT_S if old is None else 0.0
    except LockTimeout:
        if old is not None:  # another process is at it
            return ABANDONED
        call.counts.add("lock_timeouts")
    except _DOWN as error:
        call.store_failed(error)
    try:
        outcome = yield from _unless_made_since(call, flight, old, lock)
    except GeneratorExit:  # the loop is gone, and with it who could release; the lease ends by itself
        raise
    except Exception:
        yield from _released(call, "release", lock)
        raise
    except BaseException:
        yield from _released(call, "give_back", lock)
        raise
    yield from _released(call, "release", lock)
    return outcome


def _released(call: Call, verb: str, lock: Any) -> Steps:
    if lock is None:
        return
    try:
        if not (yield verb, lock):
            seldom.warn(log, "cache_rebuild_outlived_its_lock", function=call.name)
    except _DOWN as error:  # the caller has its value
        call.counts.add("store_errors")
        seldom.warn(log, "cache_store_down", function=call.name, error=type(error).__name__)


def _unless_made_since(call: Call, flight: Flight, old: Read | None, lock: Any) -> Steps:
    try:
        read = call.usable((yield ("read",)))
    except StoreFailed as failed:
        call.store_failed(failed)
        return (yield from _loaded(call, flight, None))
    if read.is_found and left_s(read) > 0 and _is_newer(read, old):
        call.counts.add("coalesced")
        return Landing(read.value, read.meta)
    if old is not None:
        call.counts.add("refreshes")
    storing = Storing(read.versions, _may_serve(call, read), lock)
    # Without the number of each tag it could not be ended: something else than an entry stands under the key.
    return (yield from _loaded(call, flight, storing if read.versions.keys() >= set(call.tags) else None))


def _loaded(call: Call, flight: Flight | None, storing: Storing | None) -> Steps:
    """storing: None = nothing can or shall be stored."""
    call.counts.add("loads")
    began = time.perf_counter()
    if flight is not None:
        flight.progressed_at = time.monotonic()
    try:
        with contextlib.nullcontext() if flight is None else flight.led():
            value = yield ("load",)
    except Exception as error:  # noqa: BLE001  (an outcome: a value past its life may answer in its place)
        call.counts.add("load_errors")
        if storing is not None and storing.has_value:
            retries.hold_off(call.seat, time.monotonic() + call.rules.retry_s)
        elif storing is not None:
            yield from _error_stored(call, error, storing.versions)
        return LoadFailed(error, error.__traceback__)
    load_s = time.perf_counter() - began
    retries.forget(call.seat)
    call.counts.took("load", load_s)
    return (yield from _stored(call, value, storing, load_s))


def _stored(call: Call, value: Any, storing: Storing | None, load_s: float) -> Steps:
    rules, now = call.rules, wall_s()
    form = rulebook.wrapped(value) if rules.cache_errors else value
    if rules.unless is not None and rules.unless(value):
        return Landing(form, Meta(now, now))
    try:
        if storing is None or (yield from _has_newer(call, storing)):
            return Landing(form, Meta(now, now), payload=_payload(call, form))
        life_s = rules.life_s(value, conf().DEFAULT_TTL_S)
        lives = _lives(rules, life_s, storing.versions) | {"load_s": load_s}
        if rules.is_negative(value):
            lives["sliding"] = False  # else it would be asked for again and again, and never be looked for
        first = yield "write", form, lives
    except Uncacheable as error:
        raise Uncacheable(f"{call.name} returned what its cache cannot hold: {error}") from error
    except StoreFailed as failed:
        call.store_failed(failed)
        return Landing(form, Meta(now, now), payload=_payload(call, form))
    return Landing(form, Meta(now, None if life_s is None else now + life_s, load_s), first=first)


def _has_newer(call: Call, storing: Storing) -> Steps:
    """Whether somebody else has stored one since this load lost its lease (its process was stopped, or Redis away)."""
    if storing.lock is None or not storing.lock.is_lost:
        return False
    read = call.usable((yield ("read",)))
    return read.is_found and left_s(read) > 0


def _error_stored(call: Call, error: Exception, versions: Mapping[str, int]) -> Steps:
    rules = call.rules
    form = rulebook.error_form(error, rules.cache_errors)
    if form is None:
        return
    try:
        lives = _lives(rules, rules.error_ttl_s, versions)
        yield "write", form, lives | {"keep_s": 0.0, "sliding": False}
    except StoreFailed:  # the caller gets the loader's error, not this one
        call.counts.add("store_errors")


def _lives(rules: Rules, life_s: float | None, versions: Mapping[str, int]) -> dict[str, Any]:
    return {
        "ttl_s": life_s,
        "keep_s": rules.stale_s,
        "versions": versions,
        "sliding": rules.sliding,
        "jitter": rules.jitter,
    }


def _payload(call: Call, form: Any) -> Any:
    """What cannot be kept raises Uncacheable while the store is down, too."""
    return call.cache.codec.encode(call.key, form) if call.cache.options.COPY else None


def _is_due(call: Call, read: Read) -> bool:
    """Whether a load is to be started ahead of the entry's end."""
    if read.meta is None or not call.rules.early:
        return False
    return early.is_due(left_s(read), read.meta.load_s, call.rules.early, random.random)


def _may_serve(call: Call, read: Read) -> bool:
    """Whether what was found may answer where a load fails: until `stale_s` after its life."""
    return read.is_found and left_s(read) + call.rules.stale_s > 0


def _is_newer(read: Read, old: Read | None) -> bool:
    if old is None or old.meta is None or read.meta is None:
        return True
    return read.meta.stored_at > old.meta.stored_at


def _answer(call: Call, outcome: Any, stale: Read | None) -> Answer:
    if isinstance(outcome, Landing):
        return outcome.own(call), outcome.meta, False, False
    if isinstance(outcome, Refused):
        raise outcome.error.with_traceback(outcome.traceback)
    if outcome is None:
        _gave_up(call, stale)
    if stale is None:
        if outcome is None:
            raise LoadTimeout(
                f"{call.name} was not loaded within {call.rules.hard_timeout_s} s; its load goes on"
            )
        raise outcome.error.with_traceback(outcome.traceback)
    why = "timeout" if outcome is None else type(outcome.error).__name__
    seldom.warn(log, "cache_stale_answered", function=call.name, why=why)
    return _stale(call, stale)


def _gave_up(call: Call, stale: Read | None) -> None:
    """The load takes longer than this caller waits. The next ones need not wait for it at all."""
    is_soft = stale is not None and call.rules.soft_timeout_s is not None
    call.counts.add("soft_timeouts" if is_soft else "hard_timeouts")
    if stale is not None:
        retries.hold_off(call.seat, time.monotonic() + call.rules.retry_s)


def _stale(call: Call, read: Read) -> Answer:
    call.counts.add("stale")
    return read.value, read.meta, True, True
