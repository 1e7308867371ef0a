"""The transports behind our URL schemes: TCP and unix socket, TLS, Sentinel."""

from __future__ import annotations

from typing import Any

import redis
from kombu.transport import redis as base
from kombu.utils.imports import symbol_by_name

from . import server
from .acks import AckHook
from .channel import Channel
from .claims import Claimed
from .poller import Poller
from .sentinel import SentinelChannel


class TLSChannel(Channel):
    # Redis' own defaults: certificate and host name are checked. Stock Kombu checks nothing unless it is told to.
    connection_class: Any = redis.SSLConnection


class Transport(base.Transport):
    """One connection with its channels.

    transport options besides Kombu's: claim_batch, ack_interval, delivery_limit (see Channel) and ack_hooks, a list of AckHook or of
    their dotted names; a bootstep may as well append to `ack_hooks` of each new connection's transport.
    """

    Channel: type[Channel] = Channel
    cycle: Any

    def __init__(self, client: Any, **kwargs: Any) -> None:
        _check(client.transport_options)
        super().__init__(client, **kwargs)
        self.cycle = Poller()
        self.loop: Any = None
        self.doubted = False  # a command of one of its channels got no answer
        self._answered: bool | None = None
        self.held: dict[str, Claimed] = {}  # by tag; the channels share their consumers, so this too
        hooks = client.transport_options.get("ack_hooks", ())
        self.ack_hooks: list[AckHook] = [symbol_by_name(hook) for hook in hooks]

    def establish_connection(self) -> Transport:
        connection = super().establish_connection()
        try:
            with self._avail_channels[0].conn_or_acquire() as client:
                server.require_suitable(client)
        except BaseException:
            self.close_connection(connection)
            raise
        return self

    def answers(self, channel: Any) -> bool:
        """Whether channels that close may talk to the server. After a lost connection it is asked, once, on a new one."""
        if not self.doubted:
            return True
        if self._answered is None:
            try:
                with channel.conn_or_acquire() as client:
                    self._answered = bool(client.ping())
            except channel.connection_errors:
                self._answered = False
        return self._answered

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.loop = loop
        super().register_with_event_loop(connection, loop)
        timeout_s = connection.client.transport_options.get(
            "visibility_timeout", self.Channel.visibility_timeout
        )
        loop.call_repeatedly(timeout_s / 12, self.cycle.renew)


class TLSTransport(Transport):
    Channel = TLSChannel


class SentinelTransport(Transport):
    default_port: Any = 26379
    Channel = SentinelChannel


def _check(options: dict[str, Any]) -> None:
    """Raises ValueError for options that would lose messages or never send one."""
    if not options.get("ack_emulation", True):
        raise ValueError("ack_emulation=False loses a message with its worker; Kombu's own redis:// has it")
    for name in ("visibility_timeout", "claim_batch"):
        if options.get(name, 1) <= 0:
            raise ValueError(f"the transport option {name} must be more than 0")
    if type(options.get("delivery_limit", 0)) is not int:
        raise ValueError("the transport option delivery_limit must be a number; negative: there is no limit")
