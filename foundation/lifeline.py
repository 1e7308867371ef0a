"""A child that never outlives its parent, on any POSIX system: `python -m foundation.lifeline MODULE [ARGS]`.

The parent keeps the write end of a pipe and hands the read end down by number in BRAIN_LIFELINE_FD. However the
parent ends, kill -9 included, the kernel closes its end; the child reads EOF and stops itself: SIGTERM, then SIGKILL
for one that does not listen. (PR_SET_PDEATHSIG would do on Linux alone, and fires when a mere thread ends.)
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence

VARIABLE = "BRAIN_LIFELINE_FD"
GRACE_S = 8.0  # for an orderly end; `up` promises to be gone within 10


def follow() -> None:
    """Tie this process to the pipe named in the environment, when there is one. Call it again after a fork."""
    number = os.environ.get(VARIABLE)  # noqa: TID251  (not a setting: it comes from the parent process)
    if number is None:
        return
    threading.Thread(target=_watch, args=(int(number),), name="lifeline", daemon=True).start()


def _watch(descriptor: int) -> None:
    try:
        while os.read(descriptor, 1):
            pass
    except OSError:
        return  # the descriptor was not passed on to this process
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def run(command: Sequence[str]) -> None:
    """Run a module in this process as `python -m MODULE ARGS` would."""
    sys.argv = list(command)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def main() -> None:
    follow()
    sys.path.insert(0, os.getcwd())
    run(sys.argv[1:])


if __name__ == "__main__":
    main()
