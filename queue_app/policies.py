"""The queues' rows as this process knows them, and which queues have limits: looked up for each job, so from memory."""

from __future__ import annotations

import time

from django.db import DatabaseError

from .conf import conf
from .models import Delivery, Queue
from .states import Turn

_known: tuple[float, dict[str, Queue]] = (float("-inf"), {})
_governed = frozenset[str]()  # of what is known
_with_few_turns = frozenset[str]()


def by_name(*, fresh: bool = False) -> dict[str, Queue]:
    """Every queue's row by name, at most QUEUE_REFRESH_S old; from the database when `fresh`.

    While the database is away the last answer stands: how a run failed must not depend on it.
    """
    global _known, _governed, _with_few_turns
    now = time.monotonic()
    if fresh or now - _known[0] > conf().QUEUE_REFRESH_S:
        try:
            _known = (now, {queue.name: queue for queue in Queue.objects.all()})
            _governed = frozenset(name for name, queue in _known[1].items() if has_limits(queue))
            _with_few_turns = frozenset(name for name in _governed if _is_limited(_known[1][name]))
        except DatabaseError:
            if fresh or not _known[1]:
                raise
    return _known[1]


def known() -> dict[str, Queue]:
    """Every queue's row as this process saw it last, without asking the database. A worker looks all the time."""
    return _known[1]


def governed() -> frozenset[str]:
    """The queues with limits as this process saw them last, without asking the database."""
    return _governed


def governed_now() -> frozenset[str]:
    """The same, at most QUEUE_REFRESH_S old: for processes that do not look all the time, as a site's or a command's."""
    by_name()
    return _governed


def with_few_turns() -> frozenset[str]:
    """Those of `governed` with a limit: a worker must not hold a turn that another could use, nor save starts up."""
    return _with_few_turns


def has_limits(queue: Queue) -> bool:
    """Whether its jobs wait for their turns: it is fair, or something limits it. Broker delivery knows neither."""
    return (queue.is_fair or _is_limited(queue)) and queue.delivery != Delivery.BROKER


def is_governed(name: str) -> bool:
    """As `has_limits`, of the queue of this name; False when it has no row."""
    queue = by_name().get(name)
    return queue is not None and has_limits(queue)


def first_turn(queue: Queue, *, is_due: bool) -> int:
    """Of a new job, as its column takes it."""
    if not has_limits(queue):
        return int(Turn.NONE)
    return int(Turn.WAITS if is_due else Turn.LATER)


def forget() -> None:
    """The next question goes to the database: a queue was made or changed here."""
    global _known
    _known = (float("-inf"), _known[1])


def _is_limited(queue: Queue) -> bool:
    limits = (queue.max_concurrency, queue.rate_count, queue.tenant_concurrency, queue.tenant_rate_count)
    return any(limit is not None for limit in limits)
