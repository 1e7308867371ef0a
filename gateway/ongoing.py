"""What goes on after its caller was let in: WebSockets, event streams, long bodies. It ends when the caller would not be let
in any more.

Found by looking at the connections, as their timeouts are: a request that is over by then has never cost anything for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from . import auth, tunnel
from .conf import conf
from .errors import BadRequest

if TYPE_CHECKING:
    from .edge import Edge
    from .exchange import Exchange
    from .identities import Grounds, Identities

log = structlog.get_logger(__name__)

REVOKED, EXPIRED = "credentials_revoked", "credentials_expired"


def look(edges: Iterable[Edge], identities: Identities, wall: float) -> None:
    """identities: those of now. wall: seconds since the epoch."""
    past_s = conf().TUNNEL_PAST_EXPIRY_S
    for edge in list(edges):
        exchange = edge.exchange
        # What was sent whole and waits for its answer has been admitted, and the target is at work: it gets its answer.
        if (
            exchange is None
            or exchange.identity is None
            or exchange.over
            or (exchange.sent and not exchange.head_sent)
        ):
            continue
        try:
            code = _objection(exchange, identities, wall, past_s)
            if code:
                _end(exchange, code)
        except Exception:  # one connection's trouble does not end the others
            log.exception("end_failed")
            edge.transport.abort()


def _objection(exchange: Exchange, identities: Identities, wall: float, past_s: float) -> str:
    known: Grounds | None = getattr(exchange, "grounds", None)
    grounds = known
    if known is None:
        grounds = identities.grounds(exchange.authorization, exchange.api_key, wall)
    elif known.by is not identities:
        grounds = identities.look_again(known, exchange.authorization, wall)
    if grounds is None:
        until = _known_end(exchange, known)
        return REVOKED if wall < until else _expired(exchange, wall - until, past_s)
    if grounds is not known:
        exchange.grounds = grounds
        route = exchange.route
        if route is not None and not auth.authorised(route.roles, route.scopes, grounds.identity):
            return REVOKED
    return "" if wall < grounds.until else _expired(exchange, wall - grounds.until, past_s)


def _known_end(exchange: Exchange, known: Grounds | None) -> float:
    """A key that expired is gone from the next snapshot, as one that was revoked is."""
    if known is not None:
        return known.until
    return exchange.identity.expires_at if exchange.identity is not None else 0.0


def _expired(exchange: Exchange, for_s: float, past_s: float) -> str:
    """A file that was asked for in time may be fetched to its end; what has no end of its own ends with its key or token."""
    up = exchange.up
    is_endless = exchange.edge.tunnel is not None or (up is not None and up.is_event_stream)
    return EXPIRED if is_endless and for_s >= past_s else ""


def _end(exchange: Exchange, code: str) -> None:
    edge = exchange.edge
    if edge.tunnel is not None:
        edge.worker.tally.refused(code)
        tunnel.end(exchange, code)
    elif exchange.head_sent:  # only a cut connection tells the client that the rest is missing
        edge.worker.tally.refused(code)
        exchange.abort(code, exchange.head_sent)
        edge.transport.abort()
    else:
        fault = BadRequest(code, "The API key or token is not accepted any more.", 401)
        edge.fail(fault, instead_of=exchange)
