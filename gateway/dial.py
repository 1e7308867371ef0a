"""How a target is reached, and the reaching: TCP, TLS with the certificate verified, or a unix socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar

P = TypeVar("P", bound=asyncio.Protocol)


class Dial:
    """address: (ip, port) that the URL guard has checked, or the path of a unix socket. host: its Host header, name: as it
    is shown; host_line, upstream_line: the same as they go over the wire."""

    __slots__ = ("address", "host", "host_line", "server_name", "tls", "upstream_line")

    def __init__(
        self, address: tuple[str, int] | str, host: bytes = b"localhost", tls: ssl.SSLContext | None = None, server_name: str = "",
        *, name: str = "",
    ) -> None:  # fmt: skip
        self.address, self.host, self.tls, self.server_name = address, host, tls, server_name
        self.host_line = b"Host: %b\r\n" % host
        self.upstream_line = b"X-Upstream: %b\r\n" % (name.encode() or host)


def context(ca: str) -> ssl.SSLContext:
    """ca: PEM of the authorities to trust, empty: the system's. Raises ValueError for what is not PEM."""
    try:
        made = ssl.create_default_context(cadata=ca or None)
    except TypeError as error:  # CPython's word for a text that is not ASCII
        raise ValueError("not certificates in PEM: PEM is ASCII") from error
    except ssl.SSLError as error:
        told = str(error).partition(" (_ssl")[0]  # without the line of CPython's source
        raise ValueError(f"not certificates in PEM: {told}") from error
    made.set_alpn_protocols(["http/1.1"])
    return made


async def connect(loop: asyncio.AbstractEventLoop, make: Callable[[], P], dial: Dial, timeout_s: float) -> P:
    """Raises OSError (TimeoutError is one; so is ssl.SSLError)."""
    server_name = dial.server_name if dial.tls is not None else None
    async with asyncio.timeout(timeout_s):
        if isinstance(dial.address, str):
            _, protocol = await loop.create_unix_connection(make, dial.address)
        else:
            _, protocol = await loop.create_connection(
                make, *dial.address, ssl=dial.tls, server_hostname=server_name or None
            )
    return protocol
