"""The service and the mail sink as they are started: their own processes, on free ports."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foundation import request_id

LISTENS = re.compile(r"(?P<name>\S+) listens on http://(?P<address>\S+) \(PID (?P<pid>\d+)\)")


def until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Process:
    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        with open(log, "wb") as out:
            self.popen = subprocess.Popen([sys.executable, "-m", *arguments], stdout=out, stderr=out)

    def said(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(15)


@contextlib.contextmanager
def running(log: Path, *arguments: str) -> Iterator[Process]:
    process = Process(log, *arguments)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait()


def instance_at(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/healthz", timeout=5) as answer:
        return answer.headers["X-Instance"]


@pytest.mark.slow
def test_instances__three_ports__answer_by_name_restart_and_leave_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "log", "examples.tasks_service", "--ports", "0,0,0") as service:

        def started() -> dict[str, re.Match[str]]:
            return {found["name"]: found for found in LISTENS.finditer(service.said())}

        until(lambda: len(started()) == 3)
        first = started()
        assert {instance_at(found["address"]) for found in first.values()} == {
            "tasks-1",
            "tasks-2",
            "tasks-3",
        }

        os.kill(int(first["tasks-2"]["pid"]), signal.SIGKILL)
        until(lambda: started()["tasks-2"]["pid"] != first["tasks-2"]["pid"])
        assert instance_at(first["tasks-2"]["address"]) == "tasks-2"

        pids = [int(found["pid"]) for found in started().values()]
        assert service.stop() == 0
        assert all(is_gone(pid) for pid in pids)


@pytest.mark.slow
def test_instances__parent_killed__the_children_end_too(tmp_path: Path) -> None:
    with running(tmp_path / "log", "examples.tasks_service", "--ports", "0,0") as service:
        until(lambda: len(LISTENS.findall(service.said())) == 2)
        pids = [int(found["pid"]) for found in LISTENS.finditer(service.said())]
        service.popen.kill()
        service.popen.wait()
        until(lambda: all(is_gone(pid) for pid in pids))


def test_instances__busy_port__is_one_line(tmp_path: Path) -> None:
    with running(tmp_path / "a", "examples.mail_sink", "--port", "0", "--dir", str(tmp_path / "m")) as sink:
        until(lambda: "listens on" in sink.said())
        with running(tmp_path / "b", "examples.tasks_service", "--ports", str(port_of(sink))) as service:
            assert service.popen.wait(15) == 1
        assert service.said().startswith("error: cannot listen on 127.0.0.1")
        assert service.said().count("\n") == 1


def port_of(sink: Process) -> int:
    return int(re.search(r"listens on \S+:(\d+)", sink.said())[1])


def test_mail_sink__messages__are_files_and_refused_ones_550_until_taken_off_the_list(tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    with running(tmp_path / "log", "examples.mail_sink", "--port", "0", "--dir", str(folder)) as sink:
        until(lambda: "listens on" in sink.said())
        with smtplib.SMTP("127.0.0.1", port_of(sink), timeout=5) as client:
            message = f"Subject: hi\r\n{request_id.HEADER}: abc\r\n\r\nbody\r\n"
            client.sendmail("brain@localhost", ["ada@example.com"], message)
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                client.sendmail("brain@localhost", ["Poison@example.com"], message)
            assert refused.value.recipients["Poison@example.com"][0] == 550
            (folder / "refused.txt").write_text("")
            client.sendmail("brain@localhost", ["poison@example.com"], message)
        stored = sorted(folder.glob("*.eml"))
        assert len(stored) == 2
        assert b"X-Request-Id: abc" in stored[0].read_bytes()
        assert stored[0].stat().st_mode & 0o777 == 0o600
        assert sink.stop() == 0
