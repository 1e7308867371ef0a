"""How far the recorder may be behind before somebody should look."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from django.core.management import load_command_class
from django.db import OperationalError
from django.test import Client

from brain_project import health as site
from foundation.commands import DEGRADED
from queue_app import health, wakeup, workers
from queue_app.broker import stream
from queue_app.conf import conf
from queue_app.transport import transport_url
from tests import servers

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_stream(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stream, "KEY", f"{prefix}events")
    monkeypatch.setattr(site, "_seen", (float("-inf"), []))
    yield
    with stream.client() as (client, key):
        client.delete(key)


def add(age_s: float) -> None:
    with stream.client() as (client, key):
        client.xadd(key, {"e": "[]"}, id=f"{int((time.time() - age_s) * 1000)}-1")


def test_check_recorder__nothing_or_news__is_ok() -> None:
    assert health.check_recorder().state == "ok"
    add(age_s=5)
    found = health.check_recorder()
    assert (found.name, found.state) == ("recorder", "ok")
    assert re.search(r"\b\d+ s old", found.detail)


def test_check_recorder__lag_above_the_limit__is_degraded_and_the_site_stays_ready(client: Client) -> None:
    add(age_s=conf().RECORDER_LAG_S + 5)
    found = health.check_recorder()
    assert (found.ok, found.state) == (True, "degraded")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["recorder"]["state"]) == (200, "degraded")


def test_check_recorder__stream_cannot_be_read__is_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.valkey() as url:
        gone = transport_url(url)
    with monkeypatch.context() as patched:
        patched.setenv("CELERY_BROKER_URL", gone)
        patched.setattr(stream, "_broker", None)
        patched.setattr(stream, "_connection", wakeup.connection)
        found, broker = health.check_recorder(), health.check()
    assert (found.state, broker.state) == ("degraded", "down")
    assert "cannot be looked at" in found.detail


def test_check__tables_are_not_there_yet__the_broker_answers_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> int:
        raise OperationalError("no such table: queue_app_worker")

    monkeypatch.setattr(workers, "alive", missing)
    found = health.check()
    assert (found.ok, found.state) == (True, "ok")
    assert found.detail.endswith("answers; the workers' rows cannot be read")


def test_doctor__recorder_is_behind__names_it(capsys: pytest.CaptureFixture[str]) -> None:
    add(age_s=conf().RECORDER_LAG_S + 5)
    with pytest.raises(SystemExit) as ended:
        load_command_class("brain_project", "doctor").run_from_argv(["manage.py", "doctor", "--json"])
    assert ended.value.code == DEGRADED
    states = {
        part["dependency"]: part["state"] for part in json.loads(capsys.readouterr().out)["dependencies"]
    }
    assert states["recorder"] == "degraded"
