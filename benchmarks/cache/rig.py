"""The sides of the benchmark: a process each, in the environment of its library, asked one thing at a time."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.environments import runtime
from benchmarks.processes import ROOT, Broken, environment

PEERS = Path(__file__).parent / "peers"
HOME_OF = {
    "django_redis": "django_redis",
    "django_redis_json": "django_redis",
    "django_core": "django_redis",
    "django_locmem": "django_redis",
    "cashews": "cashews",
    "aiocache": "aiocache",
    "theine": "memory",
    "cachetools": "memory",
}
_ANSWER_S = 180.0


class Side:
    """A library that waits for questions. Raises Broken when it dies or does not answer."""

    def __init__(self, name: str, url: str, folder: Path, *, prefix: str = "") -> None:
        """prefix: of its keys; its own, unless several processes are to meet."""
        home = HOME_OF.get(name)
        python = sys.executable if home is None else runtime(home, PEERS)
        self.name = name
        own = uuid.uuid4().hex[:6]
        prefix = prefix or f"{name}{own}"
        self._log = open(folder / f"{name}-{own}.log", "w+")  # noqa: SIM115  (closed with the side)
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.cache.worker", name, url, prefix],
            cwd=ROOT,
            env=environment(PYTHONDONTWRITEBYTECODE=1),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )
        self._answer()

    def ask(self, do: str, **question: Any) -> dict[str, Any]:
        self.begin(do, **question)
        return self.answer()

    def begin(self, do: str, **question: Any) -> None:
        """Without waiting, for questions that several sides have to answer at once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do} | question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise Broken(f"{self.name} has ended:\n{self._said()}") from error

    def answer(self) -> dict[str, Any]:
        return self._answer()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _ANSWER_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise Broken(f"{self.name} did not answer:\n{self._said()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def _said(self) -> str:
        self._log.flush()
        self._log.seek(0)
        return "\n".join(self._log.read().strip().splitlines()[-8:])


@contextlib.contextmanager
def sides(names: list[str], url: str, folder: Path) -> Iterator[dict[str, Side]]:
    with contextlib.ExitStack() as stack:
        found: dict[str, Side] = {}
        for name in names:
            found[name] = Side(name, url, folder)
            stack.callback(found[name].stop)
        yield found
