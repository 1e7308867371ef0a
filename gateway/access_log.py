"""The access log: one JSON line a request, written by a thread of its own, so that no request waits for a disk or pipe.

    write (any thread) → a bounded queue of lines → the writer's thread → the file, or standard output

When the file or pipe is slower than the requests, lines are dropped and counted. A line is printable ASCII and never
longer than MAX_LINE_BYTES, whatever a client sends: nothing in it can begin a line of its own or steer a terminal.
"""

from __future__ import annotations

import errno
import json
import math
import os
import random
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog

log = structlog.get_logger(__name__)

FLUSH_S = 1.0  # how long a line waits for others at most
PIECE_BYTES = 65_536  # of one write to a file
MAX_LINE_BYTES = 4096  # what Linux writes to a pipe in one piece: lines of several workers do not mix
MAX_LINES = 20_000  # waiting to be written, 8 MB as they usually are
_WAKE_LINES = 160  # about PIECE_BYTES
_FULL_S = 0.005  # between two tries at a pipe that is full
_WARN_S = 30.0
_LATE_S = (
    1.0  # for the writer to see that its time is over: what it has been given up for may still be written
)
_NEWLINE = orjson.OPT_APPEND_NEWLINE


class AccessLog:
    """file: "" for standard output; one that was moved or removed, as logrotate does, is opened anew within FLUSH_S.
    Raises OSError when it cannot be opened. sample: the part of the requests that is logged, 0 to 1; refusals and
    statuses from 500 are logged always. dice: 0 <= x < 1."""

    def __init__(
        self,
        file: str = "",
        *,
        sample: float = 1.0,
        max_lines: int = MAX_LINES,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._sink = _Sink(file)
        self._sample, self._dice, self._max_lines = sample, dice, max_lines
        self._wake_lines = min(_WAKE_LINES, max_lines // 2)
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._draining = threading.Lock()
        self._thread: threading.Thread | None = None
        self._second, self._stamp, self._pid = -1, "", os.getpid()
        self._full = self._lost = 0  # each is written by one side only
        self._ends_at = math.inf  # monotonic; set by close

    @property
    def dropped(self) -> int:
        """Lines that were to be logged and are not."""
        return self._full + self._lost

    def write(
        self,
        wall: float,
        status: int,
        reason: str,
        method: str,
        path: str,
        host: str,
        route: str,
        service: str,
        target: str,
        consumer: str,
        plan: str,
        client_ip: str,
        request_id: str,
        trace_id: str,
        received_bytes: int,
        sent_bytes: int,
        total_s: float,
        upstream_s: float,
        retries: int,
    ) -> None:
        """Never blocks and never raises. wall: when it was over, in seconds since the epoch. reason: the code of a refusal,
        "" for an upstream's answer. What there is none of is "". A query after the path is left out."""
        if status < 500 and not reason and self._sample < 1.0 and self._dice() >= self._sample:
            return
        lines = self._lines
        if len(lines) >= self._max_lines:
            self._full += 1
            return
        second = int(wall)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        if "?" in path:
            path = path.partition("?")[0]
        fields = {
            "time": f"{self._stamp}.{int((wall - second) * 1000):03d}Z",
            "status": status,
            "reason": reason,
            "method": method,
            "path": path,
            "host": host,
            "route": route,
            "service": service,
            "target": target,
            "consumer": consumer,
            "plan": plan,
            "client_ip": client_ip,
            "request_id": request_id,
            "trace_id": trace_id,
            "bytes_in": received_bytes,
            "bytes_out": sent_bytes,
            "duration_ms": int(total_s * 1e6) / 1e3,
            "upstream_ms": int(upstream_s * 1e6) / 1e3,
            "retries": retries,
            "pid": self._pid,
        }
        try:
            line = orjson.dumps(fields, option=_NEWLINE)
        except TypeError:  # half a surrogate pair, from a token's JSON
            line = _careful(fields)
        if len(line) > MAX_LINE_BYTES or not line.isascii() or b"\x7f" in line:
            line = _careful(fields)
        lines.append(line)
        if self._thread is None or (len(lines) >= self._wake_lines and not self._wake.is_set()):
            self._rouse()

    def flush(self) -> None:
        """Write what is waiting. Blocks as long as the file or pipe does: not for an event loop."""
        with self._draining:
            self._drain()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is waiting, and stop. What could not be written within timeout_s is dropped."""
        self._ends_at = time.monotonic() + timeout_s
        if self._thread is not None:
            self._wake.set()
            self._thread.join(timeout_s + _LATE_S)
            if self._thread.is_alive():  # in a write to a disk that does not come back
                self._lost += len(self._lines)
                return
        self.flush()
        self._sink.close()

    # --- the writer ---

    def _rouse(self) -> None:
        if self._thread is None or not self._thread.is_alive():  # the first line, also that of a forked child
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while self._ends_at == math.inf:
            self._wake.wait(FLUSH_S)
            self._wake.clear()
            with self._draining:
                self._drain()

    def _drain(self) -> None:
        left = len(self._lines)
        if left:
            self._sink.follow()
        while left > 0:
            piece = self._piece()
            left -= len(piece)
            if not self._sink.write(b"".join(piece), lambda: self._ends_at):
                self._lost += len(piece)

    def _piece(self) -> list[bytes]:
        found, size = [], 0
        while self._lines and size + len(self._lines[0]) <= self._sink.piece_bytes:
            line = self._lines.popleft()
            found.append(line)
            size += len(line)
        return found


class _Sink:
    """Where the lines go. piece_bytes: the most that one write keeps together."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._number = _opened(file) if file else 1
        self._torn = False
        self._warned_at = -_WARN_S
        self._look()

    def _look(self) -> None:
        found = os.fstat(self._number)
        self._is = (found.st_dev, found.st_ino)
        self.piece_bytes = PIECE_BYTES if stat.S_ISREG(found.st_mode) else MAX_LINE_BYTES

    def follow(self) -> None:
        """To the file that now has the name."""
        if not self._file:
            return
        try:
            found = os.stat(self._file)
            if (found.st_dev, found.st_ino) == self._is:
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn(error)
            return
        try:
            fresh = _opened(self._file)
        except OSError as error:  # on with the old one: its lines are not lost
            self._warn(error)
            return
        os.close(self._number)
        self._number, self._torn = fresh, False
        self._look()

    def write(self, data: bytes, ends_at: Callable[[], float]) -> bool:
        """Whether all of it was written. ends_at: until when it may wait for a full pipe; asked while it does."""
        try:
            # A disk that was full has the beginning of a line, which must not become part of this one.
            self._put(b"\n" + data if self._torn else data, ends_at)
        except OSError as error:
            self._warn(error)
            return False
        self._torn = False
        return True

    def _put(self, data: bytes, ends_at: Callable[[], float]) -> None:
        while data:
            try:
                sent = os.write(self._number, data)
            except BlockingIOError:  # a pipe that is full
                left_s = ends_at() - time.monotonic()
                if left_s <= 0:
                    raise
                # poll() would not do: some systems call a pipe writable that has no room for the whole piece.
                time.sleep(min(left_s, _FULL_S))
                continue
            data = data[sent:]
            self._torn = bool(data)

    def _warn(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_S:
            self._warned_at = now
            code = errno.errorcode.get(error.errno or 0, "")
            log.warning("access_log_failed", file=self._file or "standard output", error=code or str(error))

    def close(self) -> None:
        if self._file:
            os.close(self._number)


def _opened(file: str) -> int:
    # O_NONBLOCK: a named pipe that nobody reads is an error at the start, not an edge that hangs.
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)


def _careful(fields: Mapping[str, Any]) -> bytes:
    """Everything but printable ASCII escaped, and long values cut."""
    for most in (1024, 256, 64, 16):
        cut = {name: _cut(value, most) if isinstance(value, str) else value for name, value in fields.items()}
        line = json.dumps(cut, separators=(",", ":")).replace("\x7f", "\\u007f")
        if len(line) < MAX_LINE_BYTES:
            break
    return line.encode() + b"\n"


def _cut(text: str, most: int) -> str:
    shown = text if len(text) <= most else f"{text[:most]}..."
    return shown.encode(
        "utf-8", "replace"
    ).decode()  # half a surrogate pair is no text to whoever reads the log
