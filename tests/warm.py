"""Python processes that start quickly: forked from one that has imported what they all import (warm_parent.py).

`warm.Popen` and `warm.run` are subprocess's, for commands that begin with sys.executable: an interpreter that starts from
nothing spends a second of CPU on the libraries of the site, and the tests start hundreds. What cannot be had that way
(not Linux, an option of Python's own, another user, …) starts cold, and so does everything under
BRAIN_TEST_PROFILE=deep. ./brain up (tests/e2e) and the drills are never warm.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .depth import IS_DEEP

_PARENT = Path(__file__).with_name("warm_parent.py")
_PR_SET_CHILD_SUBREAPER = 36
# What warm_parent.py sees to; other variables of Python's own count before it has begun.
_SEEN_TO = {"PYTHONPATH", "PYTHONWARNINGS", "PYTHONUNBUFFERED"}
_GREEN = (
    "gevent",
    "eventlet",
)  # they replace parts of the standard library, before anything has imported them

_lock = threading.Lock()
_control: socket.socket | None = None


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Its process is this one's child, as with the original: pid, wait, kill and communicate mean the same."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: Any,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
        restore_signals: Any, gid: Any, gids: Any, uid: Any, umask: Any, start_new_session: Any, process_group: Any,
    ) -> None:  # fmt: skip
        environment = dict(os.environ if env is None else env)
        is_special = (
            preexec_fn or pass_fds or shell or executable or umask != -1 or process_group not in (None, -1)
        )
        if is_special or (gid, gids, uid) != (None,) * 3 or not _can_be_warm(args, environment):
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
                restore_signals, gid, gids, uid, umask, start_new_session, process_group,
            )  # fmt: skip
            return
        request = {
            "arguments": [os.fspath(argument) for argument in args[1:]],
            "directory": os.fspath(cwd or os.getcwd()),
            "environment": environment,
            "new_session": bool(start_new_session),
        }
        given = enumerate((p2cread, c2pwrite, errwrite))
        files = [number if file == -1 else file for number, file in given]
        self.pid = _forked(json.dumps(request).encode(), files)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def run(
    command: list[str],
    *,
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """subprocess.run, without `input`."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, err)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _can_be_warm(args: Any, environment: dict[str, str]) -> bool:
    if sys.platform != "linux" or IS_DEEP:
        return False
    if isinstance(args, str) or len(args) < 2 or args[0] != sys.executable:
        return False
    if any(green in str(argument) for argument in args[1:] for green in _GREEN):
        return False
    own = {name for name in environment.keys() | os.environ.keys() if name.startswith("PYTHON")}
    if any(environment.get(name) != os.environ.get(name) for name in own - _SEEN_TO):
        return False
    return args[1] in ("-m", "-c") or not str(args[1]).startswith("-")


def _forked(request: bytes, files: list[int]) -> int:
    """The pid of a new child of this process."""
    with _lock:
        parent = _parent()
        reaper = ctypes.CDLL(None)
        reaper.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(parent, [request], files)
            return int(parent.recv(20))
        finally:  # not for longer: other orphans are init's
            reaper.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _parent() -> socket.socket:
    global _control
    if _control is None:
        _control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        clean = {name: value for name, value in os.environ.items() if name not in _SEEN_TO}
        command = [sys.executable, str(_PARENT), str(theirs.fileno())]
        with theirs:
            parent = subprocess.Popen(
                command,
                env=clean,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(_end, parent)
    return _control


def _end(parent: subprocess.Popen[bytes]) -> None:
    """At once, and not by way of its socket: it has nothing to put in order, and xdist gives its workers ten seconds."""
    if _control is not None:
        _control.close()
    parent.kill()
    parent.wait()
