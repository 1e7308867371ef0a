"""A broker or a database that is away, as the code under test meets it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from celery import current_app
from django.db import connections, transaction

from queue_app import policies, publication, wakeup
from queue_app.broker.publishing import Sender

from .broker import TELL_AND_SEND
from .replacing import replaced, statements_through

_SAID: dict[str, tuple[Any, ...]] = {
    "sqlite": ("disk I/O error",),
    "postgresql": ("server closed the connection unexpectedly",),
    "mysql": (2006, "Server has gone away"),
}


@contextmanager
def broker_down() -> Iterator[None]:
    """Whoever publishes is refused the connection, by the system itself: `enqueue` keeps its rows, for `publish_due` to
    publish later; Celery's `.delay()` and a queue with broker delivery raise, once Celery's own retries are over.
    """
    with ExitStack() as stack:
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # and does not listen
        app, url = current_app._get_current_object(), _url(closed.getsockname()[1])
        reach = app.connection_for_write

        def connect(given: Any = None, **options: Any) -> Any:
            return reach(url, **options)

        pools = [(app, "_pool", None), (app.amqp, "_producer_pool", None)]
        shared = [(wakeup, "_broker", None), (wakeup, "_down_until", 0.0)]
        for owner, name, value in [*pools, *shared, (app, "connection_for_write", connect)]:
            stack.enter_context(replaced(owner, name, value))
        stack.enter_context(wakeup.taken_by(None))  # inside a no_broker as well
        stack.enter_context(replaced(Sender, "_tell_and_send", TELL_AND_SEND))
        yield


def publish_due() -> int:
    """Publish what is due and was not published, as a worker does every RECONCILE_S. How many wake-ups; 0 when refused."""
    found = publication.due(policies.governed())
    return len(found) if found and wakeup.publish(found) else 0


@dataclass
class Outage:
    refused: int = 0  # statements


@contextmanager
def database_down(alias: str = "default", *, after: int = 0) -> Iterator[Outage]:
    """Every statement after the first so many raises OperationalError, caused by one of the driver's own.

    A rollback passes, and the transaction of a TestCase is there again when the block has ended, without what the block has
    written where that was to be rolled back. Raises ConnectionDoesNotExist for an unknown alias, ValueError.
    """
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise ValueError(f"after = {after!r} is not a whole number of statements")
    connection, outage, left = connections[alias], Outage(), [after]
    had_errors = connection.errors_occurred

    def refuse(
        execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if left[0] > 0 or str(sql).lstrip().upper().startswith("ROLLBACK"):
            left[0] -= 1
            return execute(sql, params, many, context)
        outage.refused += 1
        used = context["connection"]
        with used.wrap_database_errors:
            raise used.Database.OperationalError(*_SAID.get(used.vendor, ("the database is away",)))

    block = transaction.atomic(using=alias) if connection.in_atomic_block else None
    if block is not None:
        block.__enter__()
    try:
        with statements_through(refuse, alias):
            yield outage
    finally:
        connection.errors_occurred = had_errors
        if block is not None:
            block.__exit__(None, None, None)


def _url(port: int) -> str:
    """Of the kind that the site's broker is."""
    scheme = str(current_app.conf.broker_url).partition("://")[0].partition("+")[0]
    if scheme.startswith("amqp"):
        return f"{scheme}://127.0.0.1:{port}//"
    return f"brain-redis://127.0.0.1:{port}/0"
