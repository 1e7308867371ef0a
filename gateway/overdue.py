"""Who keeps a client's connection waiting, and for how long he may: the worker looks at each of them now and then."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from . import parting
from .errors import BadRequest

if TYPE_CHECKING:
    from .edge import Edge
    from .exchange import Exchange


def is_overdue(edge: Edge, now: float) -> bool:
    """Whether whoever is waited for now has been waited for too long. now: monotonic."""
    exchange, limits = edge.exchange, edge.limits
    if edge.lingering:
        return now >= edge.deadline
    if (edge.held or edge.tunnel is not None) and _has_hung_up(edge):
        return True
    if edge.stalled:
        unsent = edge.transport.get_write_buffer_size()
        if unsent != edge.last_seen:  # it does read, if slowly
            edge.last_seen, edge.moved_at = unsent, now
        return now - edge.moved_at > limits.WRITE_TIMEOUT_S
    if exchange is None:
        if edge.head_started:
            return now - edge.head_started > limits.HEADER_TIMEOUT_S
        return now - edge.moved_at > limits.IDLE_TIMEOUT_S
    if edge.tunnel is not None:
        return limits.TUNNEL_IDLE_S > 0 and now - _tunnel_moved_at(edge, exchange, now) > limits.TUNNEL_IDLE_S
    is_ours = exchange.sent or (edge.held and not exchange.over)
    return (
        now - edge.moved_at > (exchange.wait_s if is_ours else limits.BODY_TIMEOUT_S)
        or now >= exchange.deadline
    )


def end(edge: Edge) -> None:
    """One that is overdue, with an answer where one is still due."""
    exchange = edge.exchange
    if edge.lingering or edge.stalled or edge.transport.is_closing() or _has_hung_up(edge):
        edge.transport.abort()
    elif exchange is None:
        if edge.head_started:
            late = BadRequest("header_timeout", "The request's headers did not arrive in time.", 408)
            parting.fail(edge, late)
        else:
            edge.transport.close()
    elif exchange.over:
        edge.transport.close()
    elif edge.tunnel is not None:
        exchange.code = "tunnel_idle"
        edge.transport.close()
    elif exchange.sent or edge.held or time.monotonic() >= exchange.deadline:
        exchange.timed_out(time.monotonic())
    else:
        parting.fail(edge, BadRequest("body_timeout", "The request's body did not arrive in time.", 408))


def _tunnel_moved_at(edge: Edge, exchange: Exchange, now: float) -> float:
    """Looked at now and then, so that no frame costs more for it."""
    carried = exchange.bytes_in + (exchange.up.carried if exchange.up is not None else 0)
    if carried != edge.last_seen:
        edge.last_seen, edge.moved_at = carried, now
    return edge.moved_at


def _has_hung_up(edge: Edge) -> bool:
    """Whether the client is gone while nothing is read of it, and so nobody has heard of it."""
    transport = edge.transport
    if transport.is_reading() or transport.is_closing():
        return False
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))
