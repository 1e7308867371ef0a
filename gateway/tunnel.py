"""WebSocket and other upgrades (RFC 9110 section 7.8): after 101 the two connections are one pipe."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from . import pipeline
from .conf import conf
from .headers import Headers, listed

if TYPE_CHECKING:
    from .exchange import Exchange

_PROBES = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 20),
    (socket.TCP_KEEPCNT, 3),
)  # seconds, seconds, times
REQUEST_LINES = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


def is_asked_for(value: bytes, fields: Headers) -> bool:
    """Whether a request with this Upgrade header asks for a WebSocket. Other protocols are not passed on: `h2c` in
    particular would carry requests past every rule."""
    if value.strip().lower() != b"websocket":
        return False
    return b"upgrade" in listed(given for name, given in fields if name.lower() == b"connection")


def open(exchange: Exchange, rest: bytes) -> None:
    """rest: what the target has sent after its 101. The call is over when either side ends the pipe."""
    edge, up = exchange.edge, exchange.up
    assert up is not None  # noqa: S101  (it has just answered)
    up.receiver, up.tunnel = None, edge.transport
    edge.tunnel = up.transport
    for transport in (edge.transport, up.transport):
        _notice_silence(transport)
    edge.worker.tally.tunnel_opened()
    if rest:
        edge.transport.write(rest)
    edge.release()  # before anything is written that may hold it again
    early, edge.early = edge.early, b""
    exchange.bytes_in, up.carried = len(early), len(rest)
    if early:
        up.transport.write(early)


def close(exchange: Exchange) -> None:
    """Either side is gone. Harmless when it is closed already."""
    if exchange.over:
        return
    exchange.over = True
    exchange.edge.worker.tally.tunnel_closed()
    if exchange.up is not None:
        exchange.bytes_out = exchange.up.carried
        exchange.up.tunnel = None
        exchange.up.transport.close()
    pipeline.hung_up(exchange, time.monotonic())
    exchange.edge.worker.over(exchange)
    exchange.edge.transport.close()


def end(exchange: Exchange, code: str) -> None:
    """By our own decision. code: the reason, for the log."""
    edge = exchange.edge
    exchange.code = code
    close(exchange)
    for transport in (edge.transport, *([exchange.up.transport] if exchange.up is not None else [])):
        if transport.get_write_buffer_size():  # to be closed, it would wait for whoever does not read
            transport.abort()
    edge.lingering, edge.deadline = True, time.monotonic() + conf().LINGER_S


def _notice_silence(transport: asyncio.Transport) -> None:
    """A WebSocket may be quiet for hours, so no timeout of ours ends it: the kernel asks whether the peer is there, and
    gives up after two minutes."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # it has gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
