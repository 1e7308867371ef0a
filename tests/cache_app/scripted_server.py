"""A server that speaks RESP just well enough to be dialled, and then does what a test wants: answer, or hang up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import hiredis

HANG_UP = b""
Behave = Callable[[list[bytes]], bytes]


@dataclass
class Scripted:
    """heard: every command but those of the handshake."""

    port: int
    heard: list[list[bytes]] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextlib.contextmanager
def scripted(behave: Behave) -> Iterator[Scripted]:
    """behave: a command → its reply in RESP, or HANG_UP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Scripted(listener.getsockname()[1])
        ended = threading.Event()
        thread = threading.Thread(target=_accept, args=(listener, server, behave, ended), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()  # else it may go on with the number of another file


def _accept(listener: socket.socket, server: Scripted, behave: Behave, ended: threading.Event) -> None:
    listener.settimeout(0.05)
    while not ended.is_set():
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            continue
        except OSError:
            return
        server.connections += 1
        threading.Thread(target=_serve, args=(peer, server, behave, ended), daemon=True).start()


def _serve(peer: socket.socket, server: Scripted, behave: Behave, ended: threading.Event) -> None:
    reader = hiredis.Reader()
    with peer:
        peer.settimeout(0.05)
        while not ended.is_set():
            try:
                data = peer.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            reader.feed(data)
            while (command := reader.gets()) is not False:
                if command[0] == b"CLIENT":
                    peer.sendall(b"+OK\r\n")
                    continue
                server.heard.append(command)
                reply = behave(command)
                if reply == HANG_UP:
                    return
                peer.sendall(reply)
