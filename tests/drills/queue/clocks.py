"""Wrong clocks: workers and callers an hour ahead or behind the database's, and a host whose clock jumps (clock.c)."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .drill import drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_HOUR_S = 3600
_DELAY_S = 4.0
_CALLER_DELAY_S = 12.0  # longer than a caller takes to start


def no_compiler() -> str:
    return "" if shutil.which("cc") else "a C compiler is not installed (apt install gcc libc6-dev)"


class Clock:
    """The wall clock of the processes that get its environment; `set` changes it while they run."""

    def __init__(self, home: Path, name: str, offset_s: int) -> None:
        self._file = home / f"clock-{name}"
        self.set(offset_s)
        library = home / "clock.so"
        if not library.exists():
            source = Path(__file__).with_name("clock.c")
            subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self.env = {"LD_PRELOAD": str(library), "DRILL_CLOCK": str(self._file)}

    def set(self, offset_s: int) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", offset_s))


@drill("clock-worker", missing=no_compiler)
def clock_worker(rig: Rig) -> Outcome:
    """One worker an hour ahead, one an hour behind; each is killed in turn. Leases go by the database's clock."""
    rounds = 1 if rig.quick else 5
    clocks = [Clock(rig.home, "ahead", _HOUR_S), Clock(rig.home, "behind", -_HOUR_S)]
    rig.enqueue(200)
    fleet = [rig.worker(env=clock.env) for clock in clocks]
    done = [0, 0]
    for _ in range(rounds):
        for at, clock in enumerate(clocks):
            rig.busy(fleet[at])
            rig.progress(20, rig.top_up)
            done[at] += rig.evidence.run_by(fleet[at].pid)
            rig.blow(fleet[at].kill, fleet[at])
            fleet[at] = rig.worker(env=clock.env)
    early = _early(rig)
    rig.finish()
    rig.claim(min(done) > 0, f"both work ({done} jobs)")
    rig.claim(not early(), "no delayed job is run early")
    return rig.outcome(f"workers an hour ahead and behind, {rounds} kills of each", within_s=30)


def _early(rig: Rig) -> Callable[[], int]:
    """Enqueue delayed jobs; the answer counts those that were run before their time."""
    began = time.monotonic()
    ids = set(rig.accept(rig.evidence.mixed(40, (0.0, 0.01), delay=_DELAY_S)))

    def early() -> int:
        return sum(job in ids and at < began + _DELAY_S for job, at in rig.evidence.finished())

    return early


@drill("clock-caller", missing=no_compiler)
def clock_caller(rig: Rig) -> Outcome:
    """Callers an hour ahead and behind enqueue, and the broker forgets the messages: still found within seconds.

    What they delay is run after its delay: not an hour late, and not at once.
    """
    clocks = [Clock(rig.home, "ahead", _HOUR_S), Clock(rig.home, "behind", -_HOUR_S)]
    for clock in clocks:
        _call(rig, clock, 50)
    began = time.monotonic()
    delayed = {id for clock in clocks for id in _call(rig, clock, 20, delay_s=_CALLER_DELAY_S)}
    rig.claim(len(rig.accepted) == 140, "both callers have enqueued")
    with rig.broker.client as client:
        client.flushall()
    rig.worker()
    rig.blow(lambda: None, held=set(rig.accepted))
    rig.finish(60)
    early = [id for id, at in rig.evidence.finished() if id in delayed and at < began + _CALLER_DELAY_S]
    rig.claim(not early, "no delayed job is run early")
    return rig.outcome(
        "140 jobs of callers an hour ahead and behind, 40 of them delayed; FLUSHALL", within_s=30
    )


def _call(rig: Rig, clock: Clock, count: int, *, delay_s: float = 0) -> list[str]:
    """Enqueue from a process with this clock; the ids."""
    said = subprocess.run(
        [sys.executable, "-m", f"{__package__}.caller", str(rig.evidence.file), str(count), str(delay_s)],
        env=rig.environment | clock.env,
        cwd=rig.root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    ids = said.stdout.split()
    rig.accept(ids)
    return ids


@drill("clock-jump", databases=("sqlite",), missing=no_compiler)
def clock_jump(rig: Rig) -> Outcome:
    """The host's clock jumps an hour ahead and back while two workers run: with SQLite it is the ledger's as well."""
    clock = Clock(rig.home, "host", 0)
    rig.worker(env=clock.env), rig.worker("prefork", 2, env=clock.env)
    for offset in (_HOUR_S, 0):
        rig.enqueue(200)
        rig.progress(20, rig.top_up)
        clock.set(offset)
        rig.mended()
        rig.progress(20, rig.top_up)
    rig.finish()
    return rig.outcome("a host's clock jumps an hour ahead and back", within_s=30)
