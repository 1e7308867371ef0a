"""OPTIONS["pool"] of a database entry: the names and the defaults are psycopg_pool's where it has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class PoolOptions:
    min_size: int = 1
    max_size: int = 8
    timeout: float = 10.0  # seconds that a caller waits for a connection
    max_lifetime: float = (
        1800.0  # seconds; up to 5 % less, so that connections of one start do not end at once
    )
    max_idle: float = 600.0  # seconds until a connection above min_size is closed
    max_waiting: int = 0  # callers; the next one is refused at once. 0: no limit


def read(given: object) -> PoolOptions:
    """given: True for the defaults, or a dict. Raises ValueError with a sentence that names the wrong key."""
    if given is True:
        return PoolOptions()
    if not isinstance(given, Mapping):
        raise ValueError(f"it is a {type(given).__name__}: write True or a dict")
    known = [field.name for field in fields(PoolOptions)]
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: use {', '.join(known)}")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{name} is not a number from 0 upwards")
    options = PoolOptions(**given)
    if options.max_size < max(1, options.min_size):
        raise ValueError("max_size is smaller than min_size, or than 1")
    return options
