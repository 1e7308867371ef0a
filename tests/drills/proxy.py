"""A TCP proxy that can let its connections go silent: open on both sides, and nothing passes any more (half-open TCP)."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Relays from a port of its own to `target` on this host, each connection on a thread."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._silent: set[threading.Thread] = set()
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()

    def silence(self) -> int:
        """Of the connections there are now; new ones are relayed. How many fell silent."""
        live = {thread for thread in self._threads if thread.is_alive()} - self._silent
        self._silent |= live
        return len(live)

    def serve(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._relay, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _relay(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            other = {client: server, server: client}
            while not self._closed.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.1)
                if threading.current_thread() in self._silent:
                    self._closed.wait()  # neither reads, writes nor closes
                    return
                for end in readable:
                    data = end.recv(65_536)
                    if not data:
                        return
                    other[end].sendall(data)


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    relay = Proxy(target)
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join(60)
