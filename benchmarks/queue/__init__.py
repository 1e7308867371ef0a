"""The queue against its peers: enqueue → broker or table → worker → handler.

Handlers and producers of every side import `benchmarks.queue.marks` and `.producer` inside their own environments, so
nothing here may need more than the standard library; the rig itself is loaded when it is asked for.
"""

from importlib import import_module
from typing import Any

_FACE = ("UNEQUAL", "add_options", "run")


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.command"), name)
