"""The ids of plain Celery tasks, which are the ids of their jobs' rows."""

from __future__ import annotations

from uuid import UUID

import pytest
from celery import current_app

from queue_app.broker import publishing


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of what would have gone to the broker."""
    ids: list[str] = []

    def note(self: object, producer: object, name: str, message: object, **options: object) -> None:
        ids.append(message[0]["id"])  # type: ignore[index]

    monkeypatch.setattr(publishing.Sender, "__call__", note)
    return ids


def test_send_task__no_id_given__sorts_by_time_and_a_given_one_is_kept(sent: list[str]) -> None:
    for _ in range(20):
        current_app.send_task("nobody.knows")
    assert sent == sorted(sent)
    assert {UUID(id).version for id in sent} == {7}
    current_app.send_task("nobody.knows", task_id="my-own")
    assert sent[-1] == "my-own"
