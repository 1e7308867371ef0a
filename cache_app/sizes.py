"""About how many bytes a Python value takes: for a cache that holds references and keeps to a limit. Pure."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Collection
from itertools import islice
from sys import getsizeof
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

_LOOKED_AT = 300  # objects of one value whose sizes are added up
_SAMPLE = 16  # of the parts of one container
_NO_PARTS = (str, bytes, bytearray, int, float, complex, bool, type(None))
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)  # the program's, not the value's


def estimate_bytes(value: Any) -> int:
    """Exact for small values without shared parts; a long container counts by a sample of its parts.

    Microseconds for small values, a fraction of a millisecond for any. What the objects of a C extension hold beside
    Python objects is counted when their __sizeof__ tells it, as numpy's does.
    """
    size, weight, seen = 0.0, 0.0, set[int]()
    waiting: deque[tuple[Any, float]] = deque(
        [(value, 1.0)]
    )  # breadth first: every level gets its share of the looks
    while waiting and len(seen) < _LOOKED_AT:
        one, times = waiting.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        size += times * getsizeof(one, 64)
        weight += times
        if not isinstance(one, _NO_PARTS):
            waiting.extend(_parts(one, times))
    rest = sum(times for _, times in waiting)
    return int(size + rest * size / weight)


def _parts(value: Any, times: float) -> list[tuple[Any, float]]:
    """Parts to look at, and for how many each stands."""
    if isinstance(value, dict):
        return _sampled(value.keys(), times) + _sampled(value.values(), times)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return _sampled(value, times)
    held = gc.get_referents(value)  # attributes, slots, cells: whatever it is made of
    return _sampled([part for part in held if not isinstance(part, _SHARED)], times)


def _sampled(parts: Collection[Any], times: float) -> list[tuple[Any, float]]:
    if len(parts) <= _SAMPLE:
        return [(part, times) for part in parts]
    step = len(parts) // _SAMPLE if isinstance(parts, list | tuple) else 1
    sample = list(islice(parts, 0, step * _SAMPLE, step))
    # Some of them are the same object: then it is a few objects over and over, and each of those counts once.
    repeats = len({id(part) for part in sample}) < len(sample)
    return [(part, times if repeats else times * len(parts) / len(sample)) for part in sample]
