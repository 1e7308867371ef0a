"""One HTTP exchange with an address that somebody else chose: pinned to what the URL guard checked, redirects not
followed, ended in time."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

from .url_guard import Pinned


class Failed(Exception):
    """There was no answer. The message names no path, no header and no body."""


@contextmanager
def exchange(
    pinned: Pinned,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    timeout_s: float,
) -> Iterator[http.client.HTTPResponse]:
    """The answer, whose body is read, or not, inside of the `with`. Raises Failed. pinned: url_guard.check(url).

    timeout_s: to connect to each of its addresses, and again from then to the end of the `with`.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {**headers, "Host": parts.netloc, "Connection": "close"}
    try:
        with closing(_connected(pinned, timeout_s)) as connection, _cut_after(timeout_s, connection.sock):
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.request(method, target, body, sent)
            with connection.getresponse() as response:
                yield response
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"no answer: {type(error).__name__}") from error


def _connected(pinned: Pinned, timeout_s: float) -> http.client.HTTPConnection:
    """To the address that was checked, under the name that was asked for; without TLS's handshake yet."""
    connection = http.client.HTTPConnection(pinned.host, pinned.port, timeout=timeout_s)
    connection.sock = _reached(pinned, timeout_s)
    if pinned.scheme == "https":
        connection.sock = ssl.create_default_context().wrap_socket(
            connection.sock, server_hostname=pinned.host, do_handshake_on_connect=False
        )
    return connection


def _reached(pinned: Pinned, timeout_s: float) -> socket.socket:
    """The first of its addresses that answers, all of which were checked."""
    *others, last = pinned.addresses
    for address in others:
        with suppress(OSError):
            return socket.create_connection((address, pinned.port), timeout=timeout_s)
    return socket.create_connection((last, pinned.port), timeout=timeout_s)


@contextmanager
def _cut_after(timeout_s: float, sock: socket.socket) -> Iterator[None]:
    """A timeout of the socket's own begins anew with every byte that drips in."""
    ending = threading.Timer(timeout_s, _cut, [sock])
    ending.daemon = True
    ending.start()
    try:
        yield
    finally:
        ending.cancel()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's, which the reading thread is in
