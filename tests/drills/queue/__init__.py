"""The queue's drills: each breaks one thing on purpose while jobs run, on servers and workers of its own.

    families (kills, poison, stops, brokers, databases, …) → rig (servers, workers) → verdict (what became of every id)

A drill is a process of its own: its Django has a database and a broker that nobody else has. README.md says how to run
and read them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.drills.outcome import Broken, Outcome

from .drill import DRILLS, Drill

FAMILIES = (
    "kills",
    "poison",
    "stops",
    "brokers",
    "failover",
    "databases",
    "clocks",
    "schedules",
    "moments",
    "limits",
    "fleets",
    "pauses",
    "flows",
    "versions",
)
_STOP_S = 60.0  # for a drill to put its servers away after Ctrl-C


def load() -> dict[str, Drill]:
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)
    return DRILLS


def chosen(only: str | None) -> list[Drill]:
    """Those that `only` names, separated by commas: a whole name or its first words. Raises Broken."""
    drills = list(load().values())
    if not only:
        return drills
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if not any(drill.answers_to(name) for drill in drills):
            raise Broken(f"no drill is called {name!r}; there are: {', '.join(DRILLS)}")
    return [drill for drill in drills if any(drill.answers_to(name) for name in wanted)]


def run(*, only: str | None = None, quick: bool = False) -> Iterator[Outcome]:
    """Hold the drills one after another."""
    for drill in chosen(only):
        reason = drill.missing()
        if reason:
            yield Outcome(drill.name, 0, 0, 0, None, passed=True, skipped=reason)
        else:
            print(f"{drill.name} …", file=sys.stderr, flush=True)
            began = time.monotonic()
            outcome = _held(drill, quick)
            word = "passed" if outcome.passed else "FAILED"
            print(f"{drill.name} {word} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            yield outcome


def _held(drill: Drill, quick: bool) -> Outcome:
    command = [sys.executable, "-m", __package__ or "", drill.name, *(["--quick"] if quick else [])]
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
