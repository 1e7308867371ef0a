"""Holds the drills of one family of ours one after another, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from .outcome import Broken, Outcome

_STOP_S = 60.0  # for a drill to put its servers away after Ctrl-C


class Drill(Protocol):
    """missing: why it cannot be held here, or nothing. limit_s: after which it gives up."""

    @property
    def name(self) -> str: ...
    def missing(self) -> str: ...
    def limit_s(self, quick: bool) -> float: ...


D = TypeVar("D", bound=Drill)


def answers_to(drill: Drill, name: str) -> bool:
    return drill.name == name or drill.name.startswith(f"{name}-")


def chosen(drills: Mapping[str, D], only: str | None) -> list[D]:
    """Those that `only` names, separated by commas: a whole name or its first words. Raises Broken."""
    if not only:
        return list(drills.values())
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if not any(answers_to(drill, name) for drill in drills.values()):
            raise Broken(f"no drill is called {name!r}; there are: {', '.join(drills)}")
    return [drill for drill in drills.values() if any(answers_to(drill, name) for name in wanted)]


def run(package: str, drills: Iterable[Drill], *, quick: bool) -> Iterator[Outcome]:
    """package: `python -m` of it holds one drill."""
    for drill in drills:
        reason = drill.missing()
        if reason:
            yield Outcome(drill.name, 0, 0, 0, None, passed=True, skipped=reason)
        else:
            print(f"{drill.name} …", file=sys.stderr, flush=True)
            began = time.monotonic()
            outcome = _held(package, drill, quick)
            word = "passed" if outcome.passed else "FAILED"
            print(f"{drill.name} {word} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            yield outcome


def _held(package: str, drill: Drill, quick: bool) -> Outcome:
    command = [sys.executable, "-m", package, drill.name, *(["--quick"] if quick else [])]
    # A session of its own: the terminal's Ctrl-C reaches it through us, once.
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            out, _ = process.communicate(timeout=drill.limit_s(quick) + _STOP_S)
        except subprocess.TimeoutExpired:
            _stop(process)
            return Outcome(drill.name, 0, 0, 0, None, passed=False, note="it did not end in time")
        except BaseException:
            _stop(process)
            raise
    try:
        return Outcome(**json.loads(out.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        note = f"it ended with exit code {process.returncode} and said nothing"
        return Outcome(drill.name, 0, 0, 0, None, passed=False, note=note)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does: it puts its servers and workers away."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    process.kill()
