from __future__ import annotations

import os
from concurrent.futures import Future

import pytest

from orm_app import asking


def test_fork__a_question_was_on_its_way__the_child_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(asking._running, ("default", "status"), Future())
    with asking._lock:
        child = os.fork()
        if child == 0:
            os._exit(2 if asking._running else 0 if asking._lock.acquire(timeout=60) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asking._running
