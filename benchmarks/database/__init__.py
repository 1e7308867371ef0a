"""The database layer: pools, SQLite and queries, each against the plain way.

Sites run in processes that import this package: the rig is loaded when it is asked for.
"""

from importlib import import_module
from typing import Any

_FACE = ("UNEQUAL", "add_options", "run")


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.command"), name)
