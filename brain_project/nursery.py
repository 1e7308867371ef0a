"""Children as forks of `up`, which has loaded Django already: they share its memory and start without importing it again.

fork, before anything is connected → wait at the gate → run its command

The gate opens when migrations and demo data are done; when `up` ends instead, its children end at the gate. A child that
crashes later is started by the supervisor from a fresh interpreter, so the fork is never a second way to behave.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from foundation import lifeline

from .plan import Planned

# macOS kills a fork whose system libraries had started threads; there the supervisor starts everything.
CAN_FORK = sys.platform == "linux"


class Nursery:
    def __init__(self, cord: tuple[int, int], *, lock: int) -> None:
        """cord: the lifeline (read, write). lock: the descriptor of up.lock, which must not live on in a child."""
        self._cord, self._gate = cord, os.pipe()
        self._ours = [cord[1], self._gate[1], lock]
        self._waiting = 0

    def fork(self, child: Planned) -> None:
        """Start it as far as the gate."""
        child.output, theirs = os.pipe()
        self._ours.append(child.output)
        sys.stdout.flush()
        sys.stderr.flush()
        child.pid = os.fork()
        if child.pid == 0:
            self._live(child, theirs)
        os.close(theirs)
        self._waiting += 1

    def open_gate(self) -> None:
        os.write(self._gate[1], b"." * self._waiting)

    def _live(self, child: Planned, output: int) -> NoReturn:
        """In the fork: become the child, and end with it."""
        code = 1
        try:
            for descriptor in self._ours:
                os.close(descriptor)
            _settle(child.name, output)
            self._run(child)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001  (nothing may return into the code of `up`)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _run(self, child: Planned) -> None:
        """As the supervisor would run it, but in here."""
        environment = {**child.env, lifeline.VARIABLE: str(self._cord[0])}
        os.environ.update(environment)  # noqa: TID251
        os.set_inheritable(self._cord[0], True)
        # What a worker starts again that is recycled, or gets SIGHUP; by itself it would be the command line of `up`.
        sys.orig_argv = [sys.executable, "-m", "foundation.lifeline", *child.command]
        if not child.forks:
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606
        lifeline.follow()
        if os.read(self._gate[0], 1):
            lifeline.run(child.command)


def _settle(name: str, output: int) -> None:
    """A session of its own, which Ctrl-C passes by; nothing to read, a pipe to write to line by line; a name in `top`."""
    os.setsid()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(f"brain-{name}")
