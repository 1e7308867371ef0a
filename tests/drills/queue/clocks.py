"""Wrong clocks: workers and callers an hour ahead or behind the database's, by libfaketime (`apt install faketime`)."""

from __future__ import annotations

import glob
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


def _library() -> str:
    return next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")


def no_faketime() -> str:
    return "" if _library() else "libfaketime is not installed (apt install faketime)"


def wrong(offset_s: int) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong; its monotonic one is not."""
    return {"LD_PRELOAD": _library(), "FAKETIME": f"{offset_s:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@drill("clock-worker", missing=no_faketime)
def clock_worker(rig: Rig) -> Outcome:
    """One worker an hour ahead, one an hour behind; each is killed in turn. Leases go by the database's clock."""
    rounds = 1 if rig.quick else 5
    rig.enqueue(200)
    fleet = {offset: rig.worker(env=wrong(offset)) for offset in (_HOUR_S, -_HOUR_S)}
    done = dict.fromkeys(fleet, 0)
    for _ in range(rounds):
        for offset, worker in list(fleet.items()):
            rig.busy(worker)
            rig.progress(20)
            done[offset] += rig.evidence.run_by(worker.pid)
            rig.blow(worker.kill, worker)
            fleet[offset] = rig.worker(env=wrong(offset))
    early = _early(rig)
    rig.finish()
    rig.claim(min(done.values()) > 0, f"both work ({done} jobs)")
    rig.claim(not early(), "no delayed job is run early")
    return rig.outcome(f"workers an hour ahead and behind, {rounds} kills of each", within_s=30)


def _early(rig: Rig) -> Callable[[], int]:
    """Enqueue delayed jobs; the answer counts those that were run before their time."""
    began = time.monotonic()
    ids = set(rig.accept(rig.evidence.mixed(40, (0.0, 0.01), delay_s=_DELAY_S)))

    def early() -> int:
        return sum(job in ids and at < began + _DELAY_S for job, at in rig.evidence.finished())

    return early


@drill("clock-caller", missing=no_faketime)
def clock_caller(rig: Rig) -> Outcome:
    """Callers an hour ahead and behind enqueue, and the broker forgets the messages: still found within seconds."""
    for offset in (_HOUR_S, -_HOUR_S):
        command = [sys.executable, "-m", f"{__package__}.caller", str(rig.evidence.file), "50"]
        said = subprocess.run(
            command,
            env=rig.environment | wrong(offset),
            cwd=rig.root,
            capture_output=True,
            text=True,
            timeout=60,
        )
        rig.accept(said.stdout.split())
    rig.claim(len(rig.accepted) == 100, "both callers have enqueued")
    with rig.broker.client as client:
        client.flushall()
    rig.worker()
    rig.blow(lambda: None, held=set(rig.accepted))
    rig.finish(60)
    return rig.outcome("100 jobs of callers an hour ahead and behind; FLUSHALL", within_s=30)


@drill("clock-jump", databases=("sqlite",), missing=no_faketime)
def clock_jump(rig: Rig) -> Outcome:
    """The host's clock jumps an hour ahead and back while two workers run: with SQLite it is the ledger's as well."""
    clock = Path(rig.home, "clock")
    clock.write_text("+0\n")
    env = wrong(0) | {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    del env["FAKETIME"]
    rig.worker(env=env), rig.worker("prefork", 2, env=env)
    for offset in (_HOUR_S, 0):
        rig.enqueue(200)
        rig.progress(20)
        clock.write_text(f"{offset:+d}\n")
        rig.mended()
        rig.progress(20)
    rig.finish()
    return rig.outcome("a host's clock jumps an hour ahead and back", within_s=30)
