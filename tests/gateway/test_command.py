"""`manage.py gateway` as a process, and its subcommands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from foundation.commands import Failed
from gateway.models import Consumer, Route

from .client import Client
from .client import request as request_bytes
from .odd_upstream import running

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "gateway.yaml")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "gateway", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def data_dir(tmp_path: Path, valkey: str) -> dict[str, str]:
    """A platform of its own: a migrated SQLite file, the session's Valkey."""
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    environment = {"BRAIN_DATA_DIR": str(tmp_path), "DATABASE_URL": url, "REDIS_URL": valkey}
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(
        migrate, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True, timeout=120
    )
    return environment


def answers(port: int) -> bool:
    try:
        with Client(port) as client:
            found = client.send(request_bytes("/gateway/health", "Connection: close")).answer()
            return found is not None and found.status == 200
    except OSError:
        return False


def eventually(claim: Any, within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def edge(environment: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "manage.py", "gateway", "--port", str(port), *arguments],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert eventually(lambda: process.poll() is not None or answers(port)), "the edge does not answer"
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_gateway__whole_life__serves_imports_reloads_and_stops_with_a_hung_exchange(
    data_dir: dict[str, str],
) -> None:
    with running() as (odd,), edge(data_dir) as (process, port):
        with Client(port) as client:
            assert client.send(request_bytes("/svc/x")).answer().status == 404  # type: ignore[union-attr]
        text = f'routes: [{{path: /svc, target_url: "http://{odd.name}", auth_required: false, timeout: 60}}]'
        file = Path(data_dir["BRAIN_DATA_DIR"]) / "svc.yaml"
        file.write_text(text)
        assert run("import", str(file), **data_dir).returncode == 0

        def routed() -> bool:
            with Client(port) as client:
                found = client.send(request_bytes("/svc/x")).answer()
                return found is not None and found.status == 200

        assert eventually(routed)
        hung = Client(port).send(request_bytes("/svc/hang"))
        assert eventually(lambda: odd.requests >= 2)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=12)
        assert process.returncode == 0, said
        assert time.monotonic() - began < 9
        assert "edge_ready" in said
        hung.close()


def test_gateway__workers__figures_of_all_in_one_answer(data_dir: dict[str, str]) -> None:
    with edge(data_dir, "--workers", "2") as (process, port):
        for _ in range(20):
            with Client(port) as client:
                assert client.send(request_bytes("/missing", "Connection: close")).answer() is not None

        def counted() -> bool:
            with Client(port) as client:
                found = client.send(request_bytes("/gateway/metrics", "Connection: close")).answer()
            text = found.body.decode() if found else ""
            workers = text.count("brain_gateway_snapshot_version{")
            return workers == 2 and 'route="unrouted",status="4xx"} 20.0' in text

        assert eventually(counted)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=15)
        assert process.returncode == 0, said
    assert said.count("edge_stopped") == 2


def test_gateway__busy_port__one_line_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        with pytest.raises(Failed, match=f"port {port} on 127.0.0.1 is in use") as caught:
            call_command("gateway", "--port", port)
    assert "--port" in caught.value.hint
    assert caught.value.returncode == 1


@pytest.mark.django_db
def test_import__diff__validate__exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("gateway", "validate", EXAMPLE)
    with pytest.raises(SystemExit) as different:
        call_command("gateway", "diff", EXAMPLE)
    assert different.value.code == 3
    call_command("gateway", "import", EXAMPLE)
    call_command("gateway", "diff", EXAMPLE)
    assert Route.objects.count() == 2
    said = capsys.readouterr()
    assert "no difference" in said.out
    assert "refused in production" in said.err


@pytest.mark.django_db
def test_import__broken_file__names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("routes: [{pth: /x}]")
    with pytest.raises(Failed, match=r"routes\[0\]\.pth: unknown key; did you mean 'path'\?"):
        call_command("gateway", "import", str(file))
    with pytest.raises(Failed, match="cannot be read"):
        call_command("gateway", "validate", str(tmp_path / "missing.yaml"))


@pytest.mark.django_db
def test_export__routes__as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("gateway", "import", EXAMPLE)
    capsys.readouterr()
    call_command("gateway", "routes", "--json")
    rows = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in rows] == ["/api/v1/stats", "/api/v1/tasks"]
    call_command("gateway", "export")
    assert "path: /api/v1/tasks" in capsys.readouterr().out


@pytest.mark.django_db
def test_key_create__shown_once_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    Consumer.objects.create(name="c")
    call_command("gateway", "key", "create", "c", "--days", "1")
    said = capsys.readouterr()
    assert said.out.strip().startswith("brn_")
    assert "only time" in said.err
    with pytest.raises(Failed, match="there is no consumer 'x'"):
        call_command("gateway", "key", "create", "x")


@pytest.mark.service
@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_import__on_a_server_database__constraints_hold_and_the_diff_is_empty(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, valkey: str
) -> None:
    if server == "mariadb_url":
        pytest.importorskip("MySQLdb")
    url = request.getfixturevalue(server)
    environment = {"BRAIN_DATA_DIR": str(tmp_path), "DATABASE_URL": url, "REDIS_URL": valkey}
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(
        migrate, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True, timeout=120
    )
    assert run("import", EXAMPLE, **environment).returncode == 0
    assert run("diff", EXAMPLE, **environment).returncode == 0
    reserved = tmp_path / "reserved.yaml"
    reserved.write_text("routes: [{path: /admin/x, upstream: tasks_service}]")
    refused = run("import", str(reserved), **environment)
    assert (refused.returncode, "belongs to the platform" in refused.stderr) == (1, True)
