"""Lines for every request that asks for one, whatever the client sends and however slow the disk or pipe is."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import access_log
from gateway.access_log import MAX_LINE_BYTES, AccessLog

WALL = 1_790_000_000.1234


def write(log: AccessLog, **changes: Any) -> None:
    usual = {
        "wall": WALL, "status": 200, "reason": "", "method": "GET", "path": "/tasks/17", "host": "api.example.com",
        "route": "/tasks", "service": "tasks", "target": "10.0.0.5:80", "consumer": "key:demo", "plan": "gold",
        "client_ip": "192.0.2.7", "request_id": "r-1", "trace_id": "0af7", "received_bytes": 5, "sent_bytes": 10,
        "total_s": 0.0123456, "upstream_s": 0.011, "retries": 1,
    }  # fmt: skip
    log.write(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def lines(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def test_write__a_request__one_json_line_with_every_field(file: Path) -> None:
    log = AccessLog(str(file))
    write(log, path="/tasks/17?token=secret")
    log.close(30.0)
    assert lines(file) == [
        {
            "time": "2026-09-21T14:13:20.123Z", "status": 200, "reason": "", "method": "GET", "path": "/tasks/17",
            "host": "api.example.com", "route": "/tasks", "service": "tasks", "target": "10.0.0.5:80",
            "consumer": "key:demo", "plan": "gold", "client_ip": "192.0.2.7", "request_id": "r-1", "trace_id": "0af7",
            "bytes_in": 5, "bytes_out": 10, "duration_ms": 12.345, "upstream_ms": 11.0, "retries": 1, "pid": os.getpid(),
        }
    ]  # fmt: skip


def test_write__no_file__standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog()
    write(log)
    write(log, wall=WALL + 1)
    log.close(30.0)
    found = [orjson.loads(line)["time"] for line in capfd.readouterr().out.splitlines()]
    assert found == ["2026-09-21T14:13:20.123Z", "2026-09-21T14:13:21.123Z"]


@pytest.mark.parametrize(
    "nasty",
    ['x\r\n{"status":200}', "\x1b[31m\x00\x7f", "\x9b31m\u2028\u202e", "日本\ud800", '"\\', "é" * 5000],
)
def test_write__control_characters_and_endless_names__one_printable_line(file: Path, nasty: str) -> None:
    log = AccessLog(str(file))
    names = ("path", "host", "consumer", "client_ip", "request_id", "trace_id", "method", "reason")
    write(log, **dict.fromkeys(names, nasty))
    log.close(30.0)
    data = file.read_bytes()
    assert data.count(b"\n") == 1
    assert data.endswith(b"}\n")
    assert all(32 <= byte < 127 for byte in data[:-1])
    assert len(data) <= MAX_LINE_BYTES
    (found,) = lines(file)
    kept = nasty.replace("\ud800", "?")
    assert found["consumer"] == kept or (len(nasty) > 1000 and found["consumer"][:20] == kept[:20])


def test_write__sampled__refusals_and_server_errors_all_the_same(file: Path) -> None:
    rolls = iter([0.05, 0.1, 0.99, 0.0])
    log = AccessLog(str(file), sample=0.1, dice=lambda: next(rolls))
    for number in range(4):
        write(log, request_id=str(number))
    write(log, status=502, request_id="error")
    write(log, status=404, reason="no_route", request_id="refused")
    log.close(30.0)
    assert [line["request_id"] for line in lines(file)] == ["0", "3", "error", "refused"]


def test_write__file_rotated_or_removed__the_next_lines_go_to_the_new_one(file: Path) -> None:
    log = AccessLog(str(file))
    write(log, request_id="first")
    log.flush()
    file.rename(file.with_suffix(".1"))
    write(log, request_id="second")
    log.flush()
    file.unlink()
    write(log, request_id="third")
    log.close(30.0)
    assert [line["request_id"] for line in lines(file.with_suffix(".1"))] == ["first"]
    assert [line["request_id"] for line in lines(file)] == ["third"]
    assert file.stat().st_mode & 0o777 == 0o640


def test_write__without_flush__written_after_a_while(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "FLUSH_S", 0.02)
    log = AccessLog(str(file))
    write(log)
    end = time.monotonic() + 30
    while not file.stat().st_size and time.monotonic() < end:
        time.sleep(0.01)
    assert len(lines(file)) == 1
    log.close(30.0)


def test_write__disk_full__counted_and_nothing_raised() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    log = AccessLog("/dev/full")
    for _ in range(3):
        write(log)
    log.close(30.0)
    assert log.dropped == 3


def test_open__file_that_cannot_be__an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        AccessLog(str(tmp_path / "missing" / "access.log"))
    os.mkfifo(tmp_path / "unread")
    with pytest.raises(OSError, match="unread"):
        AccessLog(str(tmp_path / "unread"))


# --- a pipe


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A named pipe, and the number of its open reading end."""
    name = str(tmp_path / "pipe")
    os.mkfifo(name)
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    yield name, reader
    os.close(reader)


def drained(reader: int) -> bytes:
    found = b""
    try:
        while piece := os.read(reader, 65536):
            found += piece
    except BlockingIOError:
        pass
    return found


def test_write__pipe_that_nobody_reads__requests_go_on_and_lines_are_counted(pipe: tuple[str, int]) -> None:
    name, reader = pipe
    log = AccessLog(name, max_lines=100)
    for _ in range(20):  # 64 KB fit into the pipe, then 100 lines into the queue
        for _ in range(50):
            write(log)
        time.sleep(0.002)
    assert log.dropped > 600
    began = time.monotonic()
    log.close(0.1)
    assert 0.1 <= time.monotonic() - began < 20.0
    told = drained(reader).splitlines()
    assert 64_000 / MAX_LINE_BYTES < len(told) < 400
    assert all(orjson.loads(line)["status"] == 200 for line in told)
    assert len(told) + log.dropped == 1000


def test_write__two_workers_on_one_pipe__no_line_inside_another(pipe: tuple[str, int]) -> None:
    name, reader = pipe
    logs = [AccessLog(name), AccessLog(name)]
    found, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            found.append(drained(reader))
        found.append(drained(reader))

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(1000):
        write(logs[number % 2], path="/" + "x" * (number % 900))
    for log in logs:
        log.close(30.0)
    stop.set()
    thread.join()
    told = b"".join(found).splitlines()
    assert len(told) == 1000 - sum(log.dropped for log in logs) == 1000
    assert all(orjson.loads(line)["status"] == 200 for line in told)
