"""How the queues stand, counted at once or by the leader; on each database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from queue_app import census, enqueue, enqueue_many, queues, stats
from queue_app.models import Job

pytestmark = pytest.mark.usefixtures("every_database")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process has counted slowly yet, and the cache holds nothing."""
    monkeypatch.setattr(census, "_slow_until", float("-inf"))
    keys = census._KEY, census._ASKED
    cache.delete_many(keys)
    yield
    cache.delete_many(keys)


def waiting() -> dict[str, tuple[int, float]]:
    return {depth.queue: (depth.waiting, depth.oldest_due_s) for depth in stats.depths() if depth.waiting}


def test_depths__host_with_a_wrong_clock__latency_is_by_the_databases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enqueue("email_queue", {})
    Job.objects.update(created_at=timezone.now() - timedelta(seconds=20))
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(hours=1))
    assert 15 < stats.oldest_due_s()["email_queue"] < 600
    jobs, waited_s = waiting()["email_queue"]
    assert (jobs, 15 < waited_s < 600) == (1, True)


def test_taken__counting_is_fast__each_look_counts() -> None:
    enqueue("email_queue", {})
    assert waiting()["email_queue"][0] == 1
    enqueue("email_queue", {})
    assert waiting()["email_queue"][0] == 2
    assert cache.get(census._KEY) is None


def test_taken__counting_was_slow__reads_what_the_leader_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "SLOW_S", 0.0)
    monkeypatch.setattr(census, "EVERY_S", 0.0)
    monkeypatch.setattr(census, "_SHARE", 0)
    keeper = census.Keeper()
    enqueue_many("email_queue", [{"n": n} for n in range(3)])
    assert waiting()["email_queue"][0] == 3
    enqueue("email_queue", {}, delay=60)
    count = census.count
    monkeypatch.setattr(census, "count", never)
    assert waiting()["email_queue"][0] == 3  # counted a moment ago
    monkeypatch.setattr(census, "count", count)
    keeper.look()
    monkeypatch.setattr(census, "count", never)
    jobs, waited_s = waiting()["email_queue"]
    assert (jobs, 0 <= waited_s < 60) == (4, True)


def test_look__nobody_has_asked__counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "count", never)
    census.Keeper().look()


def test_taken__slow_and_the_cache_is_away__counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "SLOW_S", 0.0)
    monkeypatch.setattr(census, "cache", Away())
    enqueue("email_queue", {})
    for _ in range(2):
        assert waiting()["email_queue"][0] == 1
    queues.create_queue("other")
    census.Keeper().look()


class Away:
    def get(self, *_: Any) -> Any:
        raise ConnectionError

    set = get


def never(*_: Any) -> Any:
    raise AssertionError("it counts")
