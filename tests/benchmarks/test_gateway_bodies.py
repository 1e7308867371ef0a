from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.gateway import body_upstream, memory, transfers
from benchmarks.processes import Broken

MB = 1024 * 1024


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve, args=(listener,))
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(
        socket.SHUT_RDWR
    )  # close() alone would leave it waiting, on a number that soon is another file's
    thread.join()
    listener.close()


def _serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        body_upstream.serve(listener)


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (transfers, body_upstream):
        monkeypatch.setattr(module, "BODY_BYTES", 16 * MB)
    monkeypatch.setattr(transfers, "UNREAD_S", 0.1)


def test_transfers__whole_bodies__pass_in_both_directions(upstream: int) -> None:
    transfers.down(upstream, "/x/down", "token")
    transfers.up(upstream, "/x/up", "token")


def test_down__another_answer__is_broken(upstream: int) -> None:
    with pytest.raises(Broken, match="Content-Length: 1"):
        transfers.down(upstream, "/x/short", "token")


def test_up_answered_early__body_that_nobody_reads__is_answered_and_does_not_all_leave(upstream: int) -> None:
    assert transfers.up_answered_early(upstream, "/x/early", "token") < 16 * MB


def test_idle__connections__have_been_answered_and_stay_open(upstream: int) -> None:
    opened = transfers.idle(upstream, "/x/small", "token", 3)
    assert [connection.fileno() > 0 for connection in opened] == [True] * 3
    for connection in opened:
        connection.close()


def test_growth_bytes__memory_that_is_given_back__still_counts() -> None:
    def work() -> None:
        bytearray(os.urandom(1) * (32 * MB))

    assert memory.growth_bytes(os.getpid(), work) > 24 * MB
    assert memory.growth_bytes(os.getpid(), lambda: None) < 8 * MB


def test_read_status__unknown_line__is_broken() -> None:
    assert memory.read_status("VmHWM:\t  2048 kB\nVmRSS:\t1024 kB\n", "VmRSS") == MB
    with pytest.raises(Broken, match="VmRSS"):
        memory.read_status("Name:\tx\n", "VmRSS")
