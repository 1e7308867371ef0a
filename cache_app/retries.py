"""Keys whose load has failed a moment ago: what they still have answers, and the loader is left alone until then.

Kept per process: each tries again by itself, so a source that is down sees one attempt per process, key and pause.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable

ROOM = 10_000  # keys; the oldest go first, which only means that they are tried earlier

_guard = threading.Lock()
_until: OrderedDict[Hashable, float] = OrderedDict()


def hold_off(key: Hashable, until: float) -> None:
    """until: on the clock that `is_held_off` is asked with."""
    with _guard:
        _until[key] = until
        _until.move_to_end(key)
        if len(_until) > ROOM:
            _until.popitem(last=False)


def is_held_off(key: Hashable, now: float) -> bool:
    until = _until.get(key)
    return until is not None and now < until


def forget(key: Hashable) -> None:
    if key in _until:  # nearly never: no lock for nothing
        with _guard:
            _until.pop(key, None)


def _forked() -> None:
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_forked)
