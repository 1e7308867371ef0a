"""A command on a real terminal (a pty): what it prints is read as it comes, Ctrl-C is typed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

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
        # Read all the time: a terminal that nobody reads blocks the command as soon as its buffer is full.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self._raw)

    def read_until(self, words: str, timeout_s: float) -> str:
        """Everything printed so far, once `words` is in it. Fails with the text when they do not come."""
        deadline = time.monotonic() + timeout_s
        while words not in self.text:
            is_over = not self._reader.is_alive()  # asked before the text: its last words may be these
            assert words in self.text or not is_over, f"ended without {words!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {words!r} in {timeout_s:.0f} s:\n{self.text}"
            time.sleep(0.05)
        return self.text

    def interrupt(self) -> None:
        os.write(self._master, b"\x03")

    def wait(self, timeout_s: float) -> int:
        """The exit code, once everything that was printed has been read."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {timeout_s:.0f} s:\n{self.text}")
        self._reader.join(60)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(60)
        os.close(self._master)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the last process on the other end is gone
            while data := os.read(self._master, 65536):
                self._raw += data.decode(errors="replace")
