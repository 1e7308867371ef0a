"""One process's view of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import changes, config
from gateway.holder import Holder
from gateway.models import Consumer, Route, Target, Transform

from .documents import EXAMPLE, FULL, put


@pytest.mark.django_db
def test_holder__change__seen_and_targets_keep_their_state() -> None:
    put(EXAMPLE.read_text())
    holder = Holder()
    assert holder.refresh()
    first = holder.snapshot
    first.targets[0].inflight = 3
    assert not holder.refresh()
    config.set_targets(
        "tasks_service", ["http://localhost:8001", "http://localhost:8009"], actor="t", source="cli"
    )
    assert holder.refresh()
    assert first.version < holder.snapshot.version
    assert holder.snapshot.targets[0] is first.targets[0]
    assert [target.name for target in holder.snapshot.targets] == ["localhost:8001", "localhost:8009"]
    assert [target.retired for target in first.targets] == [False, True, True]


@pytest.mark.django_db
def test_holder__drained_target_comes_back__with_a_slow_start() -> None:
    put(EXAMPLE.read_text())
    holder = Holder()
    for state in ("draining", "active"):
        assert all(target.since == 0.0 for target in holder.snapshot.targets)
        Target.objects.update(state=state)
        changes.bump()
        assert holder.refresh()
    assert all(target.since > 0.0 and target.blocked for target in holder.snapshot.targets)


@pytest.mark.django_db
def test_holder__target_leaves__nothing_is_remembered_of_its_url() -> None:
    put(EXAMPLE.read_text())
    holder = Holder()
    holder.refresh()
    for port in range(8001, 8006):
        config.set_targets("tasks_service", [f"http://localhost:{port}"], actor="t", source="cli")
        holder.refresh()
    assert len(holder.living._addresses) <= len(holder.snapshot.targets)


@pytest.mark.django_db
def test_holder__broken_database__last_snapshot_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    put(EXAMPLE.read_text())
    holder = Holder()
    holder.refresh()
    kept = holder.snapshot

    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.holder.current_version", broken)
    assert not holder.refresh()
    assert holder.snapshot is kept


@pytest.mark.django_db
def test_holder__ranked_roles_and_disabled_rows() -> None:
    put(EXAMPLE.read_text())
    Route.objects.filter(path="/api/v1/tasks").update(roles=["operator"])
    Route.objects.filter(path="/api/v1/stats").update(enabled=False)
    Consumer.objects.update(enabled=False)
    holder = Holder()
    holder.refresh()
    (route,) = holder.snapshot.routes
    assert route.roles == {"operator", "admin"}
    assert not holder.snapshot.keys


@pytest.mark.django_db
def test_holder__value_that_the_copy_cannot_hold__served_without_a_copy(tmp_path: Path) -> None:
    put(FULL)
    Transform.objects.update(settings={"depth": [2**70]})  # of a version that took it
    holder = Holder(tmp_path / "copy.json")
    assert holder.refresh()
    assert not list(tmp_path.iterdir())
