"""The server of a drill, the processes that work on it, and the outcome."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests import servers as private
from tests.drills.outcome import Broken, Outcome

from .servers import Server, server

ROOT = Path(__file__).resolve().parents[3]


class Rig:
    def __init__(self, name: str, home: Path, *, quick: bool) -> None:
        self.name, self.home, self.quick = name, home, quick
        self._stack = contextlib.ExitStack()
        self._claims: list[str] = []
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def server(self, kind: str) -> Server:
        return self._stack.enter_context(server(kind))

    def url(self, kind: str) -> tuple[str, Server | None]:
        """Of a fresh database; SQLite has no server."""
        if kind == "sqlite":
            return f"sqlite:///{self.home / 'drill.sqlite3'}", None
        one = self.server(kind)
        return one.url, one

    def fill(self, url: str, accounts: int = 20) -> None:
        self.finish(self.start("site", "fill", str(accounts), url=url), timeout_s=60)

    @contextlib.contextmanager
    def serving(self, url: str, interface: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """A Django site behind uvicorn ("asgi") or a threaded server ("wsgi"): its process and port."""
        port = private.free_port()
        process = self.start("site", interface, str(port), url=url)
        try:
            deadline = time.monotonic() + 30
            while not private.answers(port)():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Broken(f"the site did not start: {self._said(process)}")
                time.sleep(0.05)
            yield process, port
        finally:
            _end(process)

    def start(
        self, module: str, *arguments: str, url: str, stdin: int | None = None
    ) -> subprocess.Popen[bytes]:
        """`python -m tests.drills.database.MODULE`; what it prints on stdout is for `finish`."""
        self._started += 1
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("BRAIN_", "DATABASE_"))
        }
        command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
        log = self.home / f"{module}-{self._started}.log"
        with open(log, "wb") as err:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env | {"DATABASE_URL": url}, stdin=stdin, stdout=subprocess.PIPE, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        process.log = log  # type: ignore[attr-defined]
        self._stack.callback(_end, process)
        return process

    def finish(self, process: subprocess.Popen[bytes], timeout_s: float = 240.0) -> Any:
        """The JSON that it has printed, if any. Raises Broken."""
        try:
            out, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise Broken(f"a worker did not end within {timeout_s:.0f} s: {self._said(process)}") from None
        if process.returncode:
            raise Broken(f"a worker ended with {process.returncode}: {self._said(process)}")
        return json.loads(out.splitlines()[-1]) if out.strip() else None

    def work(self, *arguments: str, url: str, timeout_s: float = 240.0) -> Any:
        return self.finish(self.start("worker", *arguments, url=url), timeout_s)

    def claim(self, holds: object, otherwise: str) -> None:
        if not holds:
            self._claims.append(otherwise)

    def outcome(
        self,
        note: str,
        *,
        lost: int = 0,
        duplicated: int = 0,
        failed: int = 0,
        recovered_s: float | None = None,
    ) -> Outcome:
        """lost: rows that were acknowledged and are not there, or money; duplicated: work applied twice; failed: calls
        that raised where they had to succeed."""
        problems = [f"PROBLEM: {claim}" for claim in self._claims]
        passed = not (problems or lost or duplicated or failed)
        rounded = None if recovered_s is None else round(recovered_s, 2)
        return Outcome(self.name, lost, duplicated, failed, rounded, passed, "; ".join([note, *problems]))

    @staticmethod
    def _said(process: subprocess.Popen[bytes]) -> str:
        return str(process.log.read_text(errors="replace")[-1500:])  # type: ignore[attr-defined]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
