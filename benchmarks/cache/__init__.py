"""The cache against its peers: the same operations, in turn, on one Valkey of the benchmark's own.

Sides run in processes and environments of their own and import this package there: the rig is loaded when asked for.
"""

from importlib import import_module
from typing import Any

_FACE = ("UNEQUAL", "add_options", "run")


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.command"), name)
