"""The queue: enqueue → ledger row → wake-up message → claim → run → finish | retry later | dead letter."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compat import QueueConfig, WorkerConfig, initialize_message_queue
    from .composition import batch, call, chain, group
    from .intake import aenqueue, aenqueue_many, enqueue, enqueue_many
    from .registry import task
    from .retry import DeadLetter, Discard, Retry, RetryPolicy
    from .states import Priority
    from .unique import Unique
    from .workflows import aadd_to_batch, add_to_batch, aenqueue_workflow, enqueue_workflow

__all__ = [
    "DeadLetter",
    "Discard",
    "Priority",
    "QueueConfig",
    "Retry",
    "RetryPolicy",
    "Unique",
    "WorkerConfig",
    "aadd_to_batch",
    "add_to_batch",
    "aenqueue",
    "aenqueue_many",
    "aenqueue_workflow",
    "batch",
    "call",
    "chain",
    "enqueue",
    "enqueue_many",
    "enqueue_workflow",
    "group",
    "initialize_message_queue",
    "task",
]

# No module has the name of what it holds: importing `queue_app.task` would put the module in the function's place.
_HOMES = {
    "DeadLetter": "retry",
    "Discard": "retry",
    "Priority": "states",
    "QueueConfig": "compat",
    "Retry": "retry",
    "RetryPolicy": "retry",
    "Unique": "unique",
    "WorkerConfig": "compat",
    "aadd_to_batch": "workflows",
    "add_to_batch": "workflows",
    "aenqueue": "intake",
    "aenqueue_many": "intake",
    "aenqueue_workflow": "workflows",
    "batch": "composition",
    "call": "composition",
    "chain": "composition",
    "enqueue": "intake",
    "enqueue_many": "intake",
    "enqueue_workflow": "workflows",
    "group": "composition",
    "initialize_message_queue": "compat",
    "task": "registry",
}


def __getattr__(name: str) -> Any:
    """PEP 562: models may be imported only when the app registry is ready, these names before that."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
