from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections, transaction

from queue_app.models import Queue
from queue_app.worker import thread_connections

pytestmark = pytest.mark.usefixtures("every_database")


def on_a_thread(act: Callable[[], Any]) -> Any:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(act())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return found[0]


def leave_open() -> Any:
    """A transaction with a row in it, and a cursor that has not been read to its end; the cursor."""
    transaction.Atomic(None, savepoint=False, durable=False).__enter__()
    Queue.objects.create(name="held")
    cursor = connection.connection.cursor()
    cursor.execute("SELECT 1 UNION SELECT 2")
    return cursor


def test_tidy__transaction_left_open_and_a_cursor_still_referenced__lets_go_of_everything() -> None:
    kept: list[Any] = []

    def act() -> bool:
        kept.append(leave_open())
        thread_connections.tidy()
        return Queue.objects.filter(name="held").exists()  # the thread can go on, on another connection

    assert on_a_thread(act) is False
    Queue.objects.create(name="other")  # SQLite: nobody has the write lock
    assert list(Queue.objects.values_list("name", flat=True)) == ["other"]
    assert len(kept) == 1


def test_tidy__good_connection__stays() -> None:
    def act() -> bool:
        Queue.objects.exists()
        before = connection.connection
        thread_connections.tidy()
        return connection.connection is before is not None

    connections.settings["default"]["CONN_MAX_AGE"], before = (
        60,
        connections.settings["default"]["CONN_MAX_AGE"],
    )
    try:
        assert on_a_thread(act)
    finally:
        connections.settings["default"]["CONN_MAX_AGE"] = before
