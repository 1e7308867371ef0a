"""Two cores: the gateway alone on one; load, upstream and Valkey on the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.processes import Broken


@dataclass(frozen=True, slots=True)
class Cores:
    gateway: int
    load: int


def two() -> Cores:
    """Raises Broken on a machine with one."""
    first, *rest = sorted(os.sched_getaffinity(0))
    if not rest:
        raise Broken("two cores are needed: one for the gateway, one for the load and the upstream")
    return Cores(gateway=first, load=rest[0])


@contextlib.contextmanager
def on(core: int) -> Iterator[None]:
    """This thread, and whatever is started meanwhile, on this core: a child inherits where its parent may run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
