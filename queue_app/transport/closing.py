"""How a channel is closed: no reply is left unread, what it holds goes back, and a dead server is not waited for."""

from __future__ import annotations

import logging
from typing import Any

from .scripts import PUBLISH

log = logging.getLogger(__name__)

_REPLY_S = 5.0  # at close, for the reply to a claim that was sent: the messages in it would wait for the visibility timeout


def settle(channel: Any) -> None:
    """Leave no reply unread: give back what it holds, or pass its token on."""
    connection, claim = channel._in_poll, channel._claim
    if not connection:
        return
    try:
        doubted = channel.connection is not None and channel.connection.doubted
        if not connection.can_read(timeout=_REPLY_S if claim and not doubted else 0):
            connection.disconnect()  # which also ends the server's wait for a token
            return
        reply = channel._read_reply()
        if claim is not None:
            channel.give_back(claim.messages(reply))
        elif reply:
            with channel.conn_or_acquire() as client:
                client.eval(PUBLISH, 1, reply[0])
    except channel.connection_errors as error:
        log.warning("claim_not_settled: %s", type(error).__name__)
    finally:
        channel._in_poll = channel._claim = None


def leave(channel: Any) -> None:
    """What a channel has to say before it is closed, to a server that listens."""
    doubted = channel.connection.doubted
    has_to_tell = _has_to_tell(channel)
    if doubted:
        _drop_connections(channel)
    if not doubted or (has_to_tell and channel.connection.answers(channel)):
        _give_all_back(channel)
    else:
        _abandon(channel, has_to_tell)


def _has_to_tell(channel: Any) -> bool:
    """A publisher has nothing; its next try must not wait until a dead server has been asked."""
    delivered = channel._qos is not None and channel._qos._delivered
    return bool(channel.acks or delivered or channel._claim or channel.auto_delete_queues)


def _give_all_back(channel: Any) -> None:
    settle(channel)
    try:
        channel.acks.flush()
        if channel._qos is not None:
            channel._qos.restore_unacked_once()
    except channel.connection_errors as error:
        log.warning("messages_not_given_back: %s", type(error).__name__)
        if channel._qos is not None:  # Kombu would try again below, and leave half of the channel open
            channel._qos._delivered.clear()


def _abandon(channel: Any, has_to_tell: bool) -> None:
    """Leave everything as the server has it: each word to it would wait for the socket's timeout once more."""
    if has_to_tell:
        log.warning("messages_not_given_back: the server does not answer")
    channel._in_poll = channel._claim = None
    channel.acks.reset()
    channel.auto_delete_queues.clear()  # Kombu would delete them
    if channel._qos is not None:
        channel._qos._delivered.clear()


def _drop_connections(channel: Any) -> None:
    """Those that may be half-open; the reply to a claim that is here already is read first."""
    channel._doubt()
    settle(channel)
    for name in ("client", "subclient"):
        holder = channel.__dict__.get(name)
        if holder is not None and holder.connection is not None:
            holder.connection.disconnect()
