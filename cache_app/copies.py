"""How memory keeps a value so that each reader gets one of its own: as bytes, without what an entry carries besides.

No header, signature or compression: these bytes never leave the process, and reading them is all that a hit does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from .codec import Codec, Uncacheable
from .plain_json import dumps as plain_dumps


@dataclass(frozen=True, slots=True)
class Copying:
    """dumps: raises Uncacheable for what would not read back as it is."""

    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


def copying(serializer: str) -> Copying:
    """For values that an alias with this serializer has read."""
    if serializer == "json":
        return Copying(plain_dumps, orjson.loads)
    if serializer == "typed":
        codec = Codec("typed")
        return Copying(partial(codec.encode, ""), lambda body: codec.decode("", body)[0])
    return Copying(_pickled, pickle.loads)  # of what this process has written


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception as error:  # a __reduce__ may raise anything
        raise Uncacheable(str(error)) from error
