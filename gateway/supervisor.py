"""N edges on one listening socket: one that ends is started again, a signal ends them all."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from types import FrameType

import structlog

from foundation import lifeline
from foundation.commands import Failed

from .conf import conf

log = structlog.get_logger(__name__)

RESTART_PAUSE_S = 1.0  # before a worker that ended by itself is started again


def listen(host: str, port: int) -> socket.socket:
    """Raises Failed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Failed(
                f"port {port} on {host} is in use", hint="Stop what listens there, or give another --port."
            ) from error
        raise Failed(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="Give another --host or --port."
        ) from error
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


class Workers:
    """options: of the command line, for each worker too."""

    def __init__(self, listener: socket.socket, count: int, options: Sequence[str] = ()) -> None:
        self._listener, self._count, self._options = listener, count, options
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopping = threading.Event()
        # Held for as long as this process lives, however it ends: none of them outlives it, to keep the port from the next.
        self._cord = os.pipe()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        if self._options:  # they speak TLS, and look at their certificate then
            signal.signal(signal.SIGHUP, self._pass_on)
        with tempfile.TemporaryDirectory(prefix="brain-edge-") as figures:
            self._processes = [self._start(figures) for _ in range(self._count)]
            while not self._stopping.wait(RESTART_PAUSE_S):
                for i, process in enumerate(self._processes):
                    if process.poll() is not None and not self._stopping.is_set():
                        log.error("edge_worker_ended", pid=process.pid, code=process.returncode)
                        self._processes[i] = self._start(figures)
            return self._wait()

    def _start(self, figures: str) -> subprocess.Popen[bytes]:
        number = self._listener.fileno()
        command = [sys.executable, sys.argv[0], "gateway", "--fd", str(number), "--figures-dir", figures]
        command += self._options
        # Ignored until the worker listens to it: one that is still starting must not die of it.
        hang_up = signal.signal(signal.SIGHUP, signal.SIG_IGN) if self._options else None
        try:
            return subprocess.Popen(
                command,
                pass_fds=[number, self._cord[0]],
                env={**os.environ, lifeline.VARIABLE: str(self._cord[0])},  # noqa: TID251  (the workers' own)
            )
        finally:
            if hang_up is not None:
                signal.signal(signal.SIGHUP, hang_up)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        for process in self._processes:
            process.send_signal(number)

    def _wait(self) -> int:
        # While anybody holds the socket, the kernel goes on taking connections that nobody will answer.
        self._listener.close()
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + conf().SHUTDOWN_GRACE_S + 2.0
        for process in self._processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # One that was still starting ends by the signal itself.
        return 0 if all(process.returncode in (0, -signal.SIGTERM) for process in self._processes) else 1
