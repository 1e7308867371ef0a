"""A command's stdout: one that takes no more is told of once, where it is written to, and not again when the process ends."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any, TextIO

READER_LEFT = 128 + signal.SIGPIPE  # what a shell reports for a program that SIGPIPE has ended


class Lost(Exception):
    """What was said did not get there. Not an OSError: a verb that handles those means its own files."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.has_reader_left = isinstance(error, BrokenPipeError)


class Checked:
    """A stream that raises Lost. None: the process was started without one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream is None:
            raise Lost(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        try:
            return self._stream.write(text)
        except OSError as error:
            raise Lost(error) from error

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            raise Lost(error) from error


def forget() -> None:
    """What is still in its buffer goes nowhere, else the interpreter would complain of it at its end."""
    if sys.stdout is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
