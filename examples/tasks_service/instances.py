"""Several instances of one ASGI application, each a process with a port of its own: bind, load once, fork, look after.

The application is loaded before the fork, so the instances share its memory (copy-on-write).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from foundation import lifeline

STOP_S = 6.0  # for the requests in flight; then SIGKILL
RESTART_PAUSE_S = 1.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT}

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Any, Send], Awaitable[None]]


def bind(host: str, ports: list[int]) -> list[socket.socket]:
    """Listening sockets; port 0 takes a free one. OSError when a port is busy."""
    sockets = []
    for port in ports:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
        sockets.append(listener)
    return sockets


def named(application: Application, name: str) -> Application:
    """The application with `X-Instance: name` in every answer."""
    header = (b"x-instance", name.encode())

    async def answering(scope: Message, receive: Any, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await application(scope, receive, marked)

    return answering


class Instances:
    """The parent: restarts an instance that ends by itself, passes SIGTERM and SIGINT on, takes all down with it."""

    def __init__(self, application: Application, sockets: list[socket.socket], prefix: str) -> None:
        self.sockets, self.prefix = sockets, prefix
        self.configs = [_config(named(application, self._name(index))) for index in range(len(sockets))]
        self.pids: dict[int, int] = {}  # pid → index
        self.stopping = False
        self._follow, self._hold = os.pipe()  # the children read its end-of-file when this process is gone

    def run(self) -> None:
        """Returns when all instances have ended after a signal."""
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        gc.collect()
        gc.freeze()  # what is loaded now is never moved between generations: its pages stay shared
        for index in range(len(self.sockets)):
            self._fork(index)
        while self.pids and not self.stopping:
            self._ended(*os.waitpid(-1, 0))
        self._await_all(time.monotonic() + STOP_S)

    def _fork(self, index: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # the child must not run this process's handlers
        pid = os.fork()
        if pid == 0:
            self._serve(index)
        self.pids[pid] = index
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _ended(self, pid: int, status: int) -> None:
        index = self.pids.pop(pid)
        if self.stopping:
            return
        print(
            f"{self._name(index)} ended ({os.waitstatus_to_exitcode(status)}): starting it again",
            flush=True,
        )
        time.sleep(RESTART_PAUSE_S)
        if not self.stopping:
            self._fork(index)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)

    def _await_all(self, deadline: float) -> None:
        while self.pids:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            self.pids.pop(pid, None)
            if pid == 0 and time.monotonic() > deadline:
                for straggler in self.pids:
                    os.kill(straggler, signal.SIGKILL)
            if pid == 0:
                time.sleep(0.02)

    def _serve(self, index: int) -> None:
        """In the child; never returns."""
        try:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._hold)
            os.environ[lifeline.VARIABLE] = str(self._follow)  # noqa: TID251  (this process's own, not a setting)
            lifeline.follow()
            for other, listener in enumerate(self.sockets):
                if other != index:
                    listener.close()
            self._uvicorn(index)
        except BaseException as error:  # noqa: BLE001  (it must not return into the parent's code)
            print(f"{self._name(index)}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)

    def _uvicorn(self, index: int) -> None:
        host, port = self.sockets[index].getsockname()[:2]
        print(f"{self._name(index)} listens on http://{host}:{port} (PID {os.getpid()})", flush=True)
        uvicorn.Server(self.configs[index]).run(sockets=[self.sockets[index]])

    def _name(self, index: int) -> str:
        return f"{self.prefix}-{index + 1}"


def _config(application: Application) -> uvicorn.Config:
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(STOP_S) - 1,
    )
    config.load()  # imports the event loop and the parser here, before the fork
    return config
