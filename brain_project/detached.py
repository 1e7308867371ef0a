"""`up --detach`: another `up` in a session of its own, which outlives the terminal; its lines go to `logs/up.log`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from foundation.commands import Failed

from . import platform_state, welcome


def start(data_dir: Path) -> tuple[int, str]:
    """Its pid and its page of URLs, once it is ready. Raises Failed with what it said last when it ends instead."""
    pid = platform_state.running_pid(data_dir)
    if pid is not None:
        hint = "Use `./brain status`, or stop it with `./brain down`."
        raise Failed(f"already running: pid {pid}", hint=hint)
    log = data_dir / "logs" / "up.log"
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    arguments = [argument for argument in sys.argv if argument not in ("--detach", "--json")]
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    while process.poll() is None:
        _, ready, page = log.read_text(errors="replace").partition(welcome.READY)
        if page.count("\n\n\n"):  # it ends so, and up.json was written before it
            return process.pid, ready + page.split("\n\n\n")[0]
        time.sleep(0.1)
    said = log.read_text(errors="replace").strip()
    raise Failed(said.splitlines()[-1] if said else "up ended at once", hint=f"The whole log: {log}")
