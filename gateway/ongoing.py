"""What goes on after its caller was let in: WebSockets, event streams, long bodies. It ends when the caller would not be let
in any more.

On the edge it is found by looking at the connections, as their timeouts are: a request that is over by then has never
cost anything for it. The DRF door looks when a piece of the body comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from . import auth, parting, tunnel
from .conf import conf
from .errors import BadRequest

if TYPE_CHECKING:
    from .calls import Call, Route
    from .edge import Edge
    from .exchange import Exchange
    from .identities import Grounds, Identities

log = structlog.get_logger(__name__)

REVOKED, EXPIRED = "credentials_revoked", "credentials_expired"
TOLD = "The API key or token is not accepted any more."


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
            known = getattr(exchange, "grounds", None)
            code, grounds = objection(exchange, known, identities, wall, past_s)
            if code == REVOKED or (code == EXPIRED and _is_endless(exchange)):
                _end(exchange, code)
            elif grounds is not None and grounds is not known:
                exchange.grounds = grounds
        except Exception:  # one connection's trouble does not end the others
            log.exception("end_failed")
            edge.transport.abort()


def objection(
    call: Call, known: Grounds | None, identities: Identities, wall: float, past_s: float
) -> tuple[str, Grounds | None]:
    """REVOKED, EXPIRED or "", and what the caller is let in by now. known: what it was at the last look. past_s: how long
    it may have expired."""
    grounds = known
    if known is None:
        grounds = identities.grounds(call.authorization, call.api_key, wall)
    elif known.by is not identities:
        grounds = identities.look_again(known, call.authorization, wall)
    if grounds is None:
        # A key that has expired is gone from the next snapshot, as one that was revoked is.
        until = known.until if known is not None else call.identity.expires_at if call.identity else 0.0
        return (REVOKED if wall < until else _expired(until, wall, past_s)), None
    if grounds is not known and not _may(call.route, grounds):
        return REVOKED, grounds
    return _expired(grounds.until, wall, past_s), grounds


def _may(route: Route | None, grounds: Grounds) -> bool:
    return route is None or auth.authorised(route.roles, route.scopes, grounds.identity)


def _expired(until: float, wall: float, past_s: float) -> str:
    return EXPIRED if wall >= until + past_s else ""


def _is_endless(exchange: Exchange) -> bool:
    """A file that was asked for in time may be fetched to its end; what has none of its own ends with its key or token."""
    up = exchange.up
    return exchange.edge.tunnel is not None or (up is not None and up.is_event_stream)


def _end(exchange: Exchange, code: str) -> None:
    edge = exchange.edge
    if edge.tunnel is not None:
        edge.worker.tally.refused(code)
        tunnel.end(exchange, code)
    elif exchange.head_sent and not exchange.take_back():
        # Only a cut connection tells the client that the rest is missing.
        edge.worker.tally.refused(code)
        exchange.abort(code, exchange.head_sent)
        edge.transport.abort()
    else:
        fault = BadRequest(code, TOLD, 401)
        parting.fail(edge, fault, instead_of=exchange)
