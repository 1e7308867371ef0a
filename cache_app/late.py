"""Invalidations that the store has not taken: kept in this process and tried again until it does.

A lost invalidation is a page that stays old for the rest of its life, so none is dropped while there is room. What is
still waiting when the process ends is lost, and the lives of the entries bound the damage.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import structlog

from . import seldom
from .backend import BrainCache
from .lock_waits import started
from .store import StoreFailed

log = structlog.get_logger(__name__)

ROOM = 10_000  # tags
FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 5.0

_guard = threading.Lock()
_waiting: dict[tuple[BrainCache, str], int] = {}  # → the number of the newest request for it
_requests = 0
_thread: threading.Thread | None = None


def raise_tags(cache: BrainCache, tags: Iterable[str]) -> bool:
    """End what stands under the tags. False: the store did not take it, and will be asked again."""
    names = sorted(tags)
    try:
        _raise(cache, names)
    except StoreFailed as failed:
        cache.counts.add("store_errors")
        seldom.warn(log, "cache_invalidation_late", alias=cache.alias, error=type(failed.__cause__).__name__)
        _keep(cache, names)
        return False
    return True


def waiting() -> int:
    return len(_waiting)


def try_again() -> bool:
    """Once, now. True: nothing waits any more."""
    with _guard:
        tried = dict(_waiting)
    is_done = True
    for cache in {cache for cache, _ in tried}:
        mine = {place: number for place, number in tried.items() if place[0] is cache}
        try:
            _raise(cache, [tag for _, tag in mine])
        except StoreFailed:
            is_done = False
            continue
        with _guard:  # one that was asked for again meanwhile belongs to a later commit
            for place, number in mine.items():
                if _waiting.get(place) == number:
                    del _waiting[place]
    return is_done and not _waiting


def _raise(cache: BrainCache, tags: list[str]) -> None:
    cache.store.raise_versions([cache.tag_key(tag) for tag in tags])
    cache.counts.add("invalidations", len(tags))


def _keep(cache: BrainCache, tags: list[str]) -> None:
    global _requests, _thread
    with _guard:
        for tag in tags:
            if len(_waiting) >= ROOM and (cache, tag) not in _waiting:
                log.error("cache_invalidation_lost", alias=cache.alias, tag=tag)
                continue
            _requests += 1
            _waiting[cache, tag] = _requests
        if _thread is None:
            _thread = started(_run, "cache-late-invalidations")  # if it cannot, the next one tries again


def _run() -> None:
    global _thread
    pause_s, ended = FIRST_PAUSE_S, threading.Event()
    while True:
        ended.wait(pause_s)
        pause_s = min(pause_s * 2, LAST_PAUSE_S)
        try_again()
        with _guard:
            if not _waiting:
                _thread = None
                return


def _forked() -> None:
    """In a child: the parent goes on with what is its own."""
    global _guard, _thread
    _guard, _thread = threading.Lock(), None
    _waiting.clear()


os.register_at_fork(after_in_child=_forked)
