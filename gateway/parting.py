"""A client's connection that cannot go on: what was asked before is answered, then it is told why, then it closes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from foundation import problems

from . import answers
from .conf import conf
from .errors import BadRequest

if TYPE_CHECKING:
    from .edge import Edge
    from .exchange import Exchange

log = structlog.get_logger(__name__)


class Full(Exception):
    """More pipelined requests than we keep: the ones we have are answered, then the connection closes."""


def refuse(edge: Edge, cause: BaseException | None) -> None:
    """What came is no request. cause: of the parser's error, None where it found one by itself."""
    last = edge.waiting[-1] if edge.waiting else edge.exchange
    if cause is not None and not isinstance(cause, Full | BadRequest):
        log.error("edge_failed", exc_info=cause)
        fail(edge, ours(), instead_of=edge.reading or edge.exchange)
    elif isinstance(cause, Full):
        edge.deaf = True
        if last is not None:
            last.keep = False
        elif edge.exchange is None:
            edge.transport.close()
    elif last is not None and not last.keep and last.sent:
        edge.deaf = True  # it said `Connection: close` and then more: nobody expects an answer to that
    else:
        fail(edge, cause or BadRequest("request_malformed", "The request is malformed."))


def fail(edge: Edge, fault: BadRequest, *, instead_of: Exchange | None = None) -> None:
    """Nothing from here on can be trusted. What was asked before is still answered, then this, then the
    end.

    instead_of: the exchange that this answers; by default the one whose body is being read, if any.
    """
    edge.deaf = True
    edge.fault = fault
    spoilt, edge.reading = instead_of or edge.reading, None
    if spoilt is not None and spoilt is edge.exchange:
        if spoilt.over:  # answered already, its body was only being read away
            farewell(edge, read_to_the_end=False)
            return
        edge.exchange = None
        if spoilt.head_sent:
            spoilt.abort(fault.code)
            edge.transport.abort()
            return
        spoilt.abort(fault.code, fault.status)
    elif spoilt is not None and spoilt in edge.waiting:
        edge.waiting.remove(spoilt)
    if edge.exchange is None:
        say_fault(edge, spoilt)


def say_fault(edge: Edge, spoilt: Exchange | None = None) -> None:
    """spoilt: the request that it answers, if it was one."""
    fault = edge.fault
    if fault is None or edge.transport.is_closing():
        return
    id_ = (spoilt.request_id if spoilt is not None else edge.worker.next_id()).decode()
    body = answers.problem(fault.status, fault.code, fault.detail, id_)
    headers = (("X-Brain-Error", fault.code), ("X-Request-Id", id_))
    edge.transport.write(
        answers.head(fault.status, problems.CONTENT_TYPE, len(body), headers, keep=False) + body
    )
    if spoilt is not None and spoilt.status:
        edge.worker.tally.refused(fault.code)
    else:
        edge.worker.refused(fault, edge.peer.ip, id_)
    farewell(edge, read_to_the_end=False)


def farewell(edge: Edge, *, read_to_the_end: bool) -> None:
    """Close, once what was written has left."""
    edge.deaf = edge.lingering = True
    edge.waiting.clear()
    edge.deadline = time.monotonic() + conf().WRITE_TIMEOUT_S  # for the answer to leave
    if read_to_the_end or edge.transport.is_closing() or not edge.transport.can_write_eof():
        edge.transport.close()
        return
    # Closing with unread input would reset the connection, answer and all.
    edge.transport.write_eof()
    edge.release()
    edge.deadline = time.monotonic() + conf().LINGER_S


def ours() -> BadRequest:
    """The fault is this side's."""
    return BadRequest("gateway_failed", "The gateway failed.", 500)
