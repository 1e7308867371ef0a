"""Named pipes by which the processes of a host wake each other, and see that one is alive: FOLDER/<process>.turn.

A pipe can be opened for writing only while its process reads it: a process that was killed is found out at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import threading
import weakref

from .lock_waits import Waiters, process_name, started

_SUFFIX = ".turn"
_IDLE_MS = 10_000  # the thread ends after this time without waiters; the pipe stays
_mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()


class Mailbox:
    """This process's pipe in a folder. Its thread lives while somebody waits, and a little longer."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ends: tuple[int, ...] = ()
        self.reset()
        _mailboxes.add(self)

    def reset(self) -> None:
        """In a forked child: the pipe's ends must close here, or the parent would seem to live on."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                os.close(end)
        self._ends, self._path = (), ""
        self.waiters = Waiters()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        return bool(self._ends)

    def open(self, *, again: bool = False) -> None:
        """Be there for the others. again: somebody has removed the folder, and the pipe with it. Raises OSError."""
        with self._guard:
            if again or not self._ends:
                self._sweep()
                self._open()
                self._thread = None  # one that reads the old pipe ends by itself
        if len(self.waiters):
            self.listen()

    def listen(self) -> None:
        with self._guard:
            if self._thread is None and self._ends:
                self._thread = started(self._run, "cache-lock-turns")

    def tell(self, token: str) -> bool:
        """Wake the waiter with this token. False: its process is not there any more."""
        process = token.partition(":")[0]
        if process == process_name():
            return self.waiters.ring(token)
        return self._send(process, f"{token}\n".encode())

    def is_alive(self, token: str) -> bool:
        process = token.partition(":")[0]
        return process == process_name() or self._send(process, b"")

    def remove(self) -> None:
        """The process ends, and its pipe with it."""
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _open(self) -> None:
        """Under another name until it is read: a sweep would take it for a dead one's."""
        path = os.path.join(self._folder, process_name())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        reads = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        writes = os.open(
            path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )  # else poll() reports a hang-up for ever
        os.rename(path, path + _SUFFIX)
        self._ends, self._path = (reads, writes), path + _SUFFIX

    def _send(self, process: str, message: bytes) -> bool:
        try:
            end = os.open(
                os.path.join(self._folder, process + _SUFFIX), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return False
            raise
        try:
            os.write(end, message)
        except BlockingIOError:  # full: it is there, and does not read what it has
            return True
        except BrokenPipeError:  # it died just now
            return False
        finally:
            os.close(end)
        return True

    def _sweep(self) -> None:
        """Remove what killed processes have left."""
        for name in os.listdir(self._folder):
            process, dot, _ = name.partition(_SUFFIX)
            if dot and not self._send(process, b""):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._folder, name))

    def _run(self) -> None:
        reads, rest, asked = self._ends[0], b"", select.poll()
        asked.register(reads, select.POLLIN)
        while not self._ended(bool(asked.poll(_IDLE_MS))):
            with contextlib.suppress(BlockingIOError):
                *lines, rest = (rest + os.read(reads, 65536)).split(b"\n")
                for line in lines:
                    self.waiters.ring(line.decode())

    def _ended(self, was_told: bool) -> bool:
        with self._guard:
            if self._thread is not threading.current_thread():
                return True
            if was_told or len(self.waiters):
                return False
            self._thread = None
            return True


def _forked() -> None:
    for mailbox in list(_mailboxes):
        mailbox.reset()


def _leave() -> None:
    for mailbox in list(_mailboxes):
        mailbox.remove()


os.register_at_fork(after_in_child=_forked)
atexit.register(_leave)
