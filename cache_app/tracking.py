"""The connection on which Redis or Valkey says which keys have changed: it keeps a process's memory tier right.

    server → push "invalidate" → Line (a connection and its thread) → Tracker (all lines of a prefix) → Listener

A lease, not a flag, says whether memory may serve. Pushes and answers come in order on one connection, so the answer
to a PING that was sent at t proves that every change before t has been told; the lease ends 2 × ping_s after t. A line
that went silent, a stopped process and a thread that does not get to run end it by themselves: nobody has to notice.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from . import seldom
from .tracking_line import Connect, Line

log = structlog.get_logger(__name__)

LOOK_S = 0.001  # for how long a reader of memory believes that nothing has arrived since somebody looked
_trackers: weakref.WeakSet[Tracker] = weakref.WeakSet()


class Listener(Protocol):
    """Whose memory is kept right. Called by a line's thread."""

    def drop(self, keys: Sequence[str]) -> None:
        """These have changed, or are gone."""

    def flush(self) -> None:
        """Anything may have changed."""


class Tracker:
    """The lines of one key prefix, one per server that is read from; memory is right until `fresh_until`.

    connect: server's name → what makes a connection to it. prefix: of the keys; "" = all keys. ping_s: seconds.
    on_loss: called for each line that worked and was lost.
    """

    heartbeat: tuple[str, ...] = ("PING",)

    def __init__(
        self,
        connect: Mapping[str, Connect],
        prefix: str,
        listener: Listener,
        *,
        ping_s: float,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self.prefix, self.listener, self.ping_s = prefix, listener, ping_s
        self.lease_until = -math.inf  # monotonic, as is the next
        self.fresh_until = -math.inf  # until then a reader need not `look`; read without the lock on each hit
        self._connect, self._on_loss = dict(connect), on_loss
        self._lines: dict[str, Line] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        _trackers.add(self)

    @property
    def is_live(self) -> bool:
        return time.monotonic() < self.lease_until

    def look(self, now: float) -> bool:
        """Whether memory is right, for a reader that finds `fresh_until` over. now: monotonic.

        What has arrived is obeyed first, here if need be: Python gives a thread its turn every 5 ms at best, and a busy
        machine later than that.
        """
        if now >= self.lease_until:
            self.start()
            return False
        if not all(line.catches_up() for line in self._lines.copy().values()):
            return False
        with self._lock:
            self.fresh_until = min(now + LOOK_S, self.lease_until)
            return now < self.fresh_until

    def start(self) -> None:
        """See to it that the lines' threads run. Cheap, and to be called whenever memory was found not to be fresh."""
        if self._runs():
            return
        with self._lock:
            if not self._is_closed:
                # No new threads while the interpreter ends, or beyond the system's limit: then memory stays unused.
                with contextlib.suppress(RuntimeError):
                    self._start()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._end_lease()
            lines, self._lines = self._lines, {}
        for line in lines.values():
            line.close()
        self.listener.flush()

    def state(self) -> dict[str, bool]:
        """{server: whether its line is live}"""
        now = time.monotonic()
        return {name: now < line.lease_until for name, line in self._lines.copy().items()}

    # --- called by lines ---------------------------------------------------------------------------------------------
    def renewed(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._weigh()

    def lost(self, line: Line, error: Exception, *, was_live: bool) -> None:
        with self._lock:
            line.lease_until = -math.inf
            self._weigh()
        if not was_live:  # nothing has been kept since it was lost
            seldom.warn(log, "cache_tracker_down", server=line.name, error=str(error)[:200])
            return
        self.listener.flush()  # after the lease: a reader that still saw it finds what it finds, and keeps nothing
        self._on_loss()
        log.warning("cache_tracker_lost", server=line.name, error=type(error).__name__)

    def accepts(self, answer: Any) -> bool:
        """Whether the answer to the heartbeat says that the line may stay."""
        return answer in (b"PONG", "PONG")

    # --- parts -------------------------------------------------------------------------------------------------------
    def _runs(self) -> bool:
        lines = self._lines
        return len(lines) == len(self._connect) and all(line.runs for line in lines.values())

    def _start(self) -> None:
        for name, connect in self._connect.items():
            if name not in self._lines or not self._lines[name].runs:
                self._lines[name] = Line(self, name, connect)
                self._lines[name].start()

    def _weigh(self) -> None:
        """The shortest lease counts: what any server failed to tell is not known."""
        leases = [line.lease_until for line in self._lines.values()]
        self.lease_until = min(leases) if leases and len(leases) == len(self._connect) else -math.inf
        self.fresh_until = min(self.fresh_until, self.lease_until)

    def _end_lease(self) -> None:
        self.lease_until = self.fresh_until = -math.inf

    def _after_fork(self) -> None:
        """In the child: no thread runs here, and the sockets are the parent's."""
        self._lock = threading.Lock()  # its holder is not here
        lines, self._lines = self._lines, {}
        self._end_lease()
        for line in lines.values():
            line.let_go()


def _forked() -> None:
    for tracker in list(_trackers):
        tracker._after_fork()


os.register_at_fork(after_in_child=_forked)
