"""A command on a real terminal (a pty): what it prints is read as it comes, Ctrl-C is typed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    def __init__(self, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        # setsid and a controlling terminal: Ctrl-C then goes to the foreground process group, as in a shell.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], cwd=cwd, env={**env, "TERM": "xterm", "COLUMNS": "160"},
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self._raw = ""

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self._raw)

    def read_until(self, words: str, timeout_s: float) -> str:
        """Everything printed so far, once `words` is in it. Fails with the text when they do not come."""
        deadline = time.monotonic() + timeout_s
        while words not in self.text:
            assert self._read(0.2) or self.process.poll() is None, f"ended without {words!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {words!r} in {timeout_s:.0f} s:\n{self.text}"
        return self.text

    def interrupt(self) -> None:
        os.write(self._master, b"\x03")

    def wait(self, timeout_s: float) -> int:
        """The exit code; reads on meanwhile, since a full pty would block the command."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self._read(0.1)
            assert time.monotonic() < deadline, f"still running after {timeout_s:.0f} s:\n{self.text}"
        while self._read(0.05):
            pass
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._master], [], [], wait_s)[0]:
            return False
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            if data := os.read(self._master, 65536):
                self._raw += data.decode(errors="replace")
                return True
        return False
