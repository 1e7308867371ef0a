"""A duty goes on whatever goes wrong, and says so without flooding the log."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from queue_app import duty
from queue_app.duty import Duty


def test_duty__fails_time_and_again__told_once_in_a_while_and_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duty, "connections", SimpleNamespace(close_all=lambda: None))
    is_away, now = True, 1000.0

    def action() -> float | None:
        if is_away:
            raise ConnectionError("refused")
        return None

    monkeypatch.setattr(duty, "time", SimpleNamespace(monotonic=lambda: now))
    looking = Duty("look", action, 0.5)
    with capture_logs() as logs:
        for _ in range(100):  # 50 s
            assert looking._do() == 0.5
            now += 0.5
        is_away = False
        looking._do()
        looking._do()
    assert [(line["event"], line["failures"]) for line in logs] == [
        ("duty_failed", 1), ("duty_failed", 61), ("duty_goes_on", 100),
    ]  # fmt: skip
