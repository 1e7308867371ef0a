"""What `up` says when it cannot start: one line with the cause, one with the fix, exit code 1, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.servers import free_port


def up(data_dir: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BRAIN_")}
    return warm.run(
        [
            sys.executable,
            "manage.py",
            "up",
            "--port",
            str(free_port()),
            "--edge-port",
            str(free_port()),
            *arguments,
        ],
        env={**kept, "BRAIN_DATA_DIR": str(data_dir), **variables},
        capture_output=True,
        text=True,
        timeout=180,
    )


def assert_refused(done: subprocess.CompletedProcess[str], cause: str, fix: str) -> None:
    assert done.returncode == 1, done
    assert cause in done.stderr
    assert fix in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) <= 2


def test_up__port_is_busy__names_it_and_another(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert_refused(up(tmp_path, "--port", str(port)), f"port {port} is in use", f"--port {port + 10}")


def test_up__database_does_not_answer__names_the_variable_and_hides_the_password(tmp_path):
    done = up(tmp_path, DATABASE_URL=f"postgres://brain:hunter2@127.0.0.1:{free_port()}/brain")
    assert_refused(done, "DATABASE_URL does not answer", "Check host, port, user and password")
    assert "hunter2" not in done.stderr + done.stdout


@pytest.mark.parametrize("url", ["nonsense", "oracle://host/name", "postgres://host"])
def test_up__database_url_makes_no_sense__names_the_variable(tmp_path, url):
    assert_refused(up(tmp_path, DATABASE_URL=url), "DATABASE_URL", "error: ")


def test_up__redis_does_not_answer__names_the_variable_and_the_way_out(tmp_path):
    done = up(tmp_path, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert_refused(done, "REDIS_URL (redis://127.0.0.1:", "unset REDIS_URL to use the embedded Valkey")


def test_up__broker_does_not_answer__names_the_variable_and_the_way_out(tmp_path):
    done = up(tmp_path, BROKER_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}//")
    assert_refused(done, "BROKER_URL (amqp://guest:***@127.0.0.1:", "unset BROKER_URL to use Redis")


def test_up__data_directory_cannot_be_made__names_it_and_the_variable(tmp_path):
    (tmp_path / "file").write_text("")
    done = up(tmp_path / "file" / "data")
    assert_refused(done, "cannot be used", "set BRAIN_DATA_DIR")


def test_up__append_only_file_is_corrupt__names_it_and_how_to_move_it_away(tmp_path):
    files = tmp_path / "valkey" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    (files / "appendonly.aof.1.incr.aof").write_bytes(b"*3\r\ngarbage\r\n" * 20)
    assert_refused(up(tmp_path), "cannot read its append-only file", f"mv {files} {files}.broken")


def test_up__foreign_database_with_pending_migrations__is_left_alone(tmp_path):
    done = up(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path / 'theirs.sqlite3'}")
    assert_refused(done, "migrations are not applied", "./brain migrate")
    assert "no migration, no admin user, no demo data" in done.stdout


def test_up__same_port_twice__is_wrong_usage(tmp_path):
    port = str(free_port())
    done = up(tmp_path, "--port", port, "--edge-port", port)
    assert done.returncode == 2
    assert "are the same" in done.stderr
