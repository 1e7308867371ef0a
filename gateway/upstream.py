"""One keep-alive connection to a target: sends a request, parses the response and hands it to an exchange."""

from __future__ import annotations

import asyncio
import select
import time
from typing import Protocol, cast

import httptools

from . import headers as heads
from .headers import Headers
from .pool import Target
from .preambles import KNOWN_BYTES, REST, TRIES, ResponsePreamble

MAX_HEAD_BYTES = 65536  # of a response
BODILESS = (204, 304)


class Receiver(Protocol):
    """Who a response is for: an exchange. `sent`: its request has been passed on to the last byte."""

    method: str
    sent: bool
    wants_upgrade: bool

    def answered(self, preamble: ResponsePreamble) -> bool:
        """The response's head. Returns whether its end can be told without the end of the connection."""

    def wrote(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def finished(self, trailers: Headers | None) -> None: ...
    def lost(self, code: str) -> None: ...
    def upgraded(self, rest: bytes) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...


class Upstream(asyncio.Protocol):
    """In use while it has a receiver, else idle in its target's list, else closing. used: for the how manyeth request.

    tunnel: what arrives goes there as it is, once the target has agreed to another protocol. known: the head of the last
    answer, what it says, and how long that answer was in all, if it came in one piece: the next one may be like it.
    carried: bytes that came through the tunnel.
    """

    __slots__ = (
        "_complete", "_excess", "_framed", "_has_body", "_head_bytes", "_headers", "_keep", "_parser", "_paused", "_preamble", "_rest",
        "_status", "_tries", "alive", "carried", "idle_since", "known", "receiver", "target", "transport", "tunnel", "used",
    )  # fmt: skip

    def __init__(self, target: Target) -> None:
        self.target = target
        self.receiver: Receiver | None = None
        self.tunnel: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.alive = True
        self.used = self.carried = 0
        self._paused = False
        self.known: tuple[bytes, ResponsePreamble, int] | None = None
        self._preamble: ResponsePreamble | None = None
        self._tries, self._rest = TRIES, 0
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._head_bytes = self._status = 0
        self._framed = self._complete = self._excess = self._has_body = self._keep = False

    def begin(self, receiver: Receiver, data: bytes) -> None:
        """Take the connection into use and send the first bytes of a request."""
        self.receiver = receiver
        self.used += 1
        self._status = self._head_bytes = 0
        self._complete = False
        self.transport.write(data)

    def drop(self) -> None:
        """Give the connection up; whatever still arrives is nobody's."""
        self.receiver, self.alive = None, False
        self.transport.abort()

    @property
    def is_stale(self) -> bool:
        """It had served before, and nothing of a response to the present request has come."""
        return self.used > 1 and not self._head_bytes and not self._status

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer that is coming goes on for as long as somebody listens."""
        fields = self._preamble.fields if self._preamble is not None else ()
        return any(name.lower() == b"content-type" and heads.is_event_stream(value) for name, value in fields)

    def is_quiet(self) -> bool:
        """Nothing has come of the target, its end neither, that the event loop has not had the time to tell of."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def pause_reading(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:
            self._unasked(data)
            return
        is_first = not self._status and not self._head_bytes
        if is_first and self.known is not None and self._comes_again(receiver, data, *self.known):
            return
        had_head, self._has_body = self._status, False
        if not had_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            receiver.upgraded(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._complete:
                self.drop()
                receiver.flush()
                receiver.lost("upstream_malformed")
                return
            self._excess = True  # more than one answer: the first is good, the connection is not
        if had_head:  # what stands between and behind chunks is bounded as well
            self._head_bytes = 0 if self._has_body else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._complete and (had_head or not self._status):
            self.drop()
            receiver.lost("upstream_head_too_large")
            return
        receiver.flush()
        if self._complete and self.receiver is receiver:
            if self._rest:
                self._rest -= 1
            else:
                self.known = self._remembered(data) if is_first and receiver.method != "HEAD" else None
            self._finish(receiver)

    def _comes_again(
        self, receiver: Receiver, data: bytes, head: bytes, preamble: ResponsePreamble, size_bytes: int
    ) -> bool:
        """An answer that differs from the last one in its body alone needs no parser, which has seen the last one to its
        end."""
        if len(data) != size_bytes or not data.startswith(head) or receiver.method == "HEAD":
            return False
        self._status = preamble.status
        self._framed = self._keep = self._complete = True
        receiver.answered(preamble)
        if self.receiver is receiver:
            receiver.wrote(data[len(head) :])
            receiver.flush()
            self._finish(receiver)
        return True

    def _remembered(self, data: bytes) -> tuple[bytes, ResponsePreamble, int] | None:
        """What was parsed just now, if it was one whole answer and nothing else."""
        self._tries -= 1
        if not self._tries:
            self._tries, self._rest = TRIES, REST
            return None
        preamble = self._preamble
        if preamble is None or not preamble.length or not self._keep or self._excess:
            return None
        size_bytes = len(data)
        head = data[: size_bytes - preamble.length]
        if len(head) > KNOWN_BYTES or preamble.status in BODILESS or data.find(b"\r\n\r\n") != len(head) - 4:
            return None
        preamble.settle()
        return head, preamble, size_bytes

    def _unasked(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.carried += len(data)
            self.tunnel.write(data)
        else:
            self.drop()  # an answer that nobody asked for

    def _finish(self, receiver: Receiver) -> None:
        self.receiver = None
        if self._paused:
            self.resume_reading()  # the last piece may have filled the client's buffer
        trailers, self._headers = self._headers, []
        if receiver.method == "HEAD":
            self._renew_after_head()  # the parser waits for a body that an answer to HEAD never has
        if self._keep and receiver.sent and not self._excess and self.alive and not self.target.retired:
            self.idle_since = time.monotonic()
            self.target.idle.append(self)
        else:
            self.drop()
        receiver.finished(trailers or None)

    def _renew_after_head(self) -> None:
        keep, excess = self._keep, self._excess
        self._renew()
        self._keep, self._excess = keep, excess

    def connection_lost(self, error: Exception | None) -> None:
        self.alive = False
        if self.tunnel is not None:
            self.tunnel.close()
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        if error is None and self._status and not self._framed:  # the end of the connection ends this body
            receiver.finished(None)
        else:
            receiver.lost("upstream_closed")

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.hold()
        elif self.tunnel is not None:
            self.tunnel.pause_reading()

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.release()
        elif self.tunnel is not None and not self.tunnel.is_closing():
            self.tunnel.resume_reading()

    # --- httptools ---

    def on_message_begin(self) -> None:
        if (
            self._complete
        ):  # also when no more of it has come yet: the rest would be taken for the next answer
            self._excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))  # a trailer, once the head has gone

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, []
        parser, receiver = self._parser, self.receiver
        status = parser.get_status_code()
        if self._complete:
            self._excess = True
            return
        if status < 200 or receiver is None:
            self._interim(status, headers)
            return
        self._status, self._keep = status, parser.should_keep_alive()
        self._preamble = preamble = ResponsePreamble(status, headers)
        self._framed = receiver.answered(preamble)
        if receiver.method == "HEAD":
            self._complete = True

    def _interim(self, status: int, headers: Headers) -> None:
        """100 Continue is the edge's own business, and other interim answers end here."""
        if status == 101:
            if self.receiver is None or not self.receiver.wants_upgrade:
                raise ValueError("an upgrade that nobody asked for")
            preamble = ResponsePreamble(status, headers)
            if preamble.upgrade != b"websocket" or not self._parser.should_upgrade():
                raise ValueError("an upgrade to something else")
            self._status = status
            self.receiver.answered(preamble)

    def on_body(self, data: bytes) -> None:
        if self._complete:
            self._excess = True  # an answer to HEAD with a body
        elif self.receiver is not None:
            self._has_body = True
            self.receiver.wrote(data)

    def on_message_complete(self) -> None:
        if self._status >= 200:
            self._complete = True
