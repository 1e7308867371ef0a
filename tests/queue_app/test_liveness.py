"""When a worker holds itself for stalled, with the engine and the ledger as they would be."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from foundation.health import Health
from queue_app import health, publication
from queue_app.conf import conf
from queue_app.worker.liveness import Liveness

LONG_AGO_S = 1000.0


@pytest.fixture
def engine() -> Any:
    """One that is fine, and has had nothing to do for a long time."""
    then = time.monotonic() - LONG_AGO_S
    return SimpleNamespace(
        is_closed=False, is_alive=True, is_behind=False, held=set(), turned_at=then, received_at=then
    )


@pytest.fixture
def liveness(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """It has last asked the ledger long ago; the broker answers, and jobs have waited for long."""
    monkeypatch.setattr(health, "check", lambda: Health("broker", True, ""))
    monkeypatch.setattr(publication, "stale_queues", lambda older_than_s: ["mail"])
    ended: list[str] = []
    found: Any = Liveness(engine, consumed=lambda: ["mail"], end=ended.append)
    found.ended = ended
    return found


def looks(liveness: Any, *, after_s: float = LONG_AGO_S) -> list[str]:
    """Two looks, `after_s` apart; why it would have ended."""
    liveness._asked_at -= LONG_AGO_S
    liveness.look()
    liveness._asked_at -= LONG_AGO_S
    liveness._fine_at = {name: at - after_s for name, at in liveness._fine_at.items()}
    liveness.look()
    return liveness.ended


def test_look__thread_is_dead__ends(liveness: Any, engine: Any) -> None:
    engine.is_alive = False
    assert set(looks(liveness)) >= {"the ledger's thread has died"}


def test_look__work_lies_there_and_no_turn__ends_but_not_at_once(liveness: Any, engine: Any) -> None:
    engine.is_behind, engine.held = True, {1}
    assert looks(liveness, after_s=conf().STALLED_S / 2) == []
    assert looks(liveness) == ["the ledger's thread hangs"]


def test_look__jobs_wait_and_no_message_comes__ends(liveness: Any) -> None:
    assert looks(liveness) == ["jobs wait in its queues and no message arrives"]


@pytest.mark.parametrize("reason", ["busy", "other queues", "broker is down", "message came", "closed"])
def test_look__jobs_wait_for_a_good_reason__goes_on(
    liveness: Any, engine: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "busy":
        engine.held = {1}
    elif reason == "other queues":
        monkeypatch.setattr(publication, "stale_queues", lambda older_than_s: ["video"])
    elif reason == "broker is down":
        monkeypatch.setattr(health, "check", lambda: Health("broker", False, ""))
    elif reason == "message came":
        engine.received_at = time.monotonic()
    else:
        engine.is_closed, engine.is_alive = True, False
    assert looks(liveness) == []
