"""Fixtures of the database pages and the API: a database that is away, a backup that is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from orm_app import asking, health
from orm_app.backups import files
from orm_app.backups.manifest import RESTORED, Contents, Manifest, Table
from orm_app.conf import conf
from orm_app.databases import from_url


@dataclass(frozen=True, slots=True)
class Away:
    alias: str
    password: str

    def within_four_seconds(self, ask: Callable[[], Any]) -> Any:
        """What it answers. One of five: what a busy machine adds to one is not how long it waits for the database."""
        took: list[float] = []
        while not took or took[-1] >= 4:
            assert len(took) < 5, took
            asking._slow.clear()
            began = time.monotonic()
            answer = ask()
            took.append(time.monotonic() - began)
        return answer


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any) -> Iterator[Away]:
    """An alias whose PostgreSQL is not there; the password must not show."""
    found = Away("away", "hunter2")
    entry = from_url(f"postgres://brain:{found.password}@127.0.0.1:1/brain?connect_timeout=1&pool_timeout=1")
    connections.settings[found.alias] = connections.configure_settings({"default": entry})["default"]
    monkeypatch.setattr(health, "_PROBE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(asking, "_slow", {})
    with django_db_blocker.unblock():
        yield found
        while asking._running:  # a thread that is still waiting for it
            time.sleep(0.02)
        connections[found.alias].close_pool()
        del connections[found.alias], connections.settings[found.alias]


@pytest.fixture
def backup(tmp_path: Path) -> Iterator[Path]:
    """Of "default", alone in its BACKUP_DIR: bytes and a manifest, as `take` leaves them."""
    was = conf()
    conf.bind(replace(was, BACKUP_DIR=str(tmp_path)))
    path = tmp_path / "default-20260101T000000Z.sqlite3.gz"
    path.write_bytes(b"bytes")
    sha256, size = files.digest(path)
    manifest = Manifest(
        alias="default", engine="sqlite", database="db.sqlite3", account="", server_version="3.40.1", tool="sqlite",
        software={}, taken_at="2026-01-01T00:00:00+00:00", took_s=1.5, size_bytes=size, sha256=sha256,
        contents=Contents((Table("orm_app_user", 7, "0"),)), migrations=(), verified=RESTORED,
    )  # fmt: skip
    files.write_manifest(path, manifest)
    yield path
    conf.bind(was)
