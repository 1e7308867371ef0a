"""The callers of a drill, what they wrote down, and the outcome."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.drills import servers
from tests.drills.outcome import Broken, Outcome

from .verdict import Seen, judge

ROOT = Path(__file__).resolve().parents[3]
REDIS, TIERED, FILE = (
    "cache_app.redis.BrainRedisCache",
    "cache_app.tiered.TieredCache",
    "cache_app.file.FileCache",
)
GRACE_S = 0.05  # how long after the writer's reply an old version may still be read, where nothing is broken


class Rig:
    def __init__(self, name: str, home: Path, *, quick: bool) -> None:
        self.name, self.home, self.quick = name, home, quick
        self._callers: list[subprocess.Popen[bytes]] = []
        self._stack = contextlib.ExitStack()
        self._claims: list[str] = []
        self._prefixes: dict[str, str] = {}  # of each caller, by its name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def valkey(self) -> servers.Valkey:
        return self._stack.enter_context(servers.valkey(self.home))

    def start(
        self,
        role: str,
        backend: str,
        location: str,
        *,
        prefix: str = "drill",
        root: Path = ROOT,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """root: of the code that the caller runs."""
        caches = {
            "default": {"BACKEND": backend, "LOCATION": location, "KEY_PREFIX": prefix, "OPTIONS": options}
        }
        name = f"{role}-{len(self._callers)}"
        self._prefixes[name] = prefix
        command = [sys.executable, "-m", "tests.drills.cache.caller", role]
        command += [str(self.home / f"{name}.seen"), json.dumps(caches)]
        with open(self.home / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log, start_new_session=True)
        self._callers.append(process)
        return process

    def seen_of(self, caller: subprocess.Popen[bytes]) -> Path:
        """What it has written down."""
        number = self._callers.index(caller)
        return next(self.home.glob(f"*-{number}.seen"))

    def stop(self) -> None:
        """All callers, in order; one that does not go is killed."""
        for process in self._callers:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self._callers:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.claim(False, "a caller did not stop when it was asked to")

    def alive(self) -> None:
        """Raises Broken when a caller has ended by itself."""
        for number, process in enumerate(self._callers):
            if process.poll() not in (None, -signal.SIGKILL):
                said = "".join(path.read_text()[-800:] for path in self.home.glob(f"*-{number}.log"))
                raise Broken(f"caller {number} ended with {process.returncode}: {said}")

    def lines(self, *roles: str) -> list[dict[str, Any]]:
        return [line for role in roles for path in self.home.glob(f"{role}-*.seen") for line in _lines(path)]

    def seen(self, grace_s: float = GRACE_S) -> Seen:
        return judge(self.lines("writer", "reader"), grace_s)

    def seen_apart(self, grace_s: float = GRACE_S) -> list[Seen]:
        """The same for each prefix by itself."""
        prefixes = dict.fromkeys(self._prefixes.values())
        return [judge(self._lines_of(prefix), grace_s) for prefix in prefixes]

    def _lines_of(self, prefix: str) -> list[dict[str, Any]]:
        names = [name for name, its in self._prefixes.items() if its == prefix]
        chosen = [name for name in names if name.startswith(("writer", "reader"))]
        return [line for name in chosen for line in _lines(self.home / f"{name}.seen")]

    def until_read(self, count: int = 200, timeout_s: float = 60.0) -> None:
        """Until readers have found so many values."""
        deadline = time.monotonic() + timeout_s
        while sum(line["do"] == "read" and line["v"] is not None for line in self.lines("reader")) < count:
            self.alive()
            if time.monotonic() > deadline:
                raise Broken("the readers found nothing")
            time.sleep(0.2)

    def recovered_s(
        self, since: float, roles: tuple[str, ...] = ("reader",), timeout_s: float = 20.0
    ) -> float:
        """From `since` until each of them answers again without an error."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            good = [
                self._first_good(path, since) for role in roles for path in self.home.glob(f"{role}-*.seen")
            ]
            if good and all(at is not None for at in good):
                return max(at - since for at in good if at is not None)
            time.sleep(0.1)
        self.claim(False, "not all callers came back")
        return timeout_s

    def claim(self, holds: bool, otherwise: str) -> None:
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
        """lost: values that were stale, wrong or gone; duplicated: loads or grants too many; failed: calls that raised."""
        problems = [f"PROBLEM: {claim}" for claim in self._claims]
        passed = not problems and not lost and not duplicated
        return Outcome(self.name, lost, duplicated, failed, recovered_s, passed, "; ".join([note, *problems]))

    @staticmethod
    def _first_good(path: Path, since: float) -> float | None:
        """When the calls began to succeed for good, after `since`."""
        first: float | None = None
        for line in _lines(path):
            if line["at"] < since:
                continue
            is_good = line["do"] != "error" and line.get("v", 0) is not None
            first = (line["at"] if first is None else first) if is_good else None
        return first


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path) as found:
        for line in found:
            if line.endswith("\n"):  # a caller that was killed may have left half of one
                yield json.loads(line)
