"""Lines of many processes on one terminal, and each process's own log file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import BinaryIO

LARGEST_LOG_BYTES = 10 << 20  # a larger log is set aside as .log.1 at the next start
_COLOURS = {"up": 37, "web": 36, "edge": 34, "worker": 32, "tasks": 35, "mail": 33}


class Console:
    """Writes a coloured, aligned prefix before every line.

    quiet: stdout belongs to one JSON document, so the lines go to stderr.
    """

    def __init__(self, log_dir: Path, *, colour: bool, quiet: bool = False) -> None:
        self.log_dir, self.colour, self.quiet = log_dir, colour, quiet
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files: dict[str, BinaryIO] = {}

    def path(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def say(self, name: str, line: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        prefix = f"{stamp} {name:<6} |"
        if self.colour:
            prefix = f"\x1b[{_COLOURS.get(name, 37)}m{prefix}\x1b[0m"
        print(prefix, line, flush=True, file=sys.stderr if self.quiet else sys.stdout)

    def keep(self, name: str, line: bytes) -> None:
        if name not in self._files:
            path = self.path(name)
            if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
            self._files[name] = open(path, "ab", buffering=0)  # noqa: SIM115  (see close)
        self._files[name].write(line)

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()
