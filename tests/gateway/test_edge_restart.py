"""An edge starts and keeps serving while the database and Redis are down."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
import uvloop
from django.db import OperationalError

from gateway import tokens, worker
from gateway.holder import Holder
from gateway.limiter import Limiter

from .client import Answer, Client, request
from .conftest import Still
from .documents import FULL, put
from .odd_upstream import running
from .test_command import edge, eventually, run

KEY = "a-key-of-more-than-twenty-characters"
SECRET = "0123456789abcdef0123456789abcdef"
AWAY = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/gone", "REDIS_URL": "redis://127.0.0.1:1/0"}


def document(target: str) -> str:
    return f"""
authentication: {{jwt_secret: "{SECRET}", api_keys: {{robot: {{key: "{KEY}", roles: [operator]}}}}}}
routes: [{{path: /svc, target_url: "http://{target}", roles: [operator], rate_limit: {{requests_per_minute: 1000}}}}]
"""


def ask(port: int, path: str, *headers: str, key: str | None = KEY) -> Answer:
    with Client(port) as client:
        found = client.send(request(path, "Connection: close", *headers, key=key)).answer()
    assert found is not None
    return found


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def test_edge__database_and_redis_down__starts_from_its_copy_and_serves(
    data_dir: dict[str, str], tmp_path: Path
) -> None:
    copy = Path(data_dir["BRAIN_DATA_DIR"]) / "gateway-snapshot.json"
    with running() as (odd,):
        file = tmp_path / "gateway.yaml"
        file.write_text(document(odd.name))
        assert run("apply", str(file), **data_dir).returncode == 0
        with edge(data_dir) as (process, port):
            assert ask(port, "/svc/x").status == 200
            stop(process)
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert KEY not in copy.read_text()
        assert SECRET not in copy.read_text()
        with edge(data_dir | AWAY) as (process, port):
            for _ in range(3):
                assert ask(port, "/svc/x").status == 200
            assert (ask(port, "/svc/x", key=None).status, ask(port, "/svc/x", key="another").status) == (
                401,
                401,
            )
            assert ask(port, "/svc/x", f"Authorization: Bearer {token()}", key=None).status == 200
            health = ask(port, "/gateway/health").json()
            assert (health["snapshot_version"], health["routes"]) == (1, 1)
            said = stop(process)
    assert "snapshot_from_disk" in said
    assert (KEY in said, SECRET in said) == (False, False)


def token() -> str:
    end = datetime.now(UTC) + timedelta(minutes=5)
    claims = {"sub": "7", "exp": end.timestamp(), "roles": ["operator"], "iss": "brain"}
    return tokens.sign(claims, "HS256", SECRET.encode())


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"version": 1, "entries": 7, "revoked": []}',
        '{"version": 3}',
        '{"version": 1, "entries": [["route", "x", {}]], "revoked": []}',
    ],
)
def test_edge__no_copy_that_can_be_used__not_ready_but_alive(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.holder.current_version", broken)
    file = tmp_path / "copy.json"
    if text is not None:
        file.write_text(text)
    holder = Holder(file)
    assert not holder.refresh()
    assert holder.snapshot.version == -1


@pytest.mark.django_db
def test_holder__copy__written_at_each_version_and_the_same_when_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(FULL)
    file = tmp_path / "copy.json"
    first = Holder(file)
    first.refresh()
    assert orjson.loads(file.read_bytes())["version"] == first.snapshot.version

    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.holder.current_version", broken)
    second = Holder(file)
    assert second.refresh()
    assert second.snapshot.version == first.snapshot.version
    assert [route.name for route in second.snapshot.routes] == [route.name for route in first.snapshot.routes]
    assert second.snapshot.keys == first.snapshot.keys
    assert eventually(lambda: not second.refresh())


def test_edge__told_to_stop_while_it_reads_its_first_snapshot__ends(
    gateway_conf: Callable[..., None], prefix: str
) -> None:
    class Interrupted(Still):
        def refresh(self) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return False

    one = worker.Worker(holder=Interrupted(), limiter=Limiter(prefix=prefix))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(asyncio.wait_for(worker.until_told(one, listener), 30))
