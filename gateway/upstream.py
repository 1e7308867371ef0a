"""One keep-alive connection to a target: sends a request, parses the response and hands it to an exchange."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

import httptools

from .pipeline import Target
from .transform import Headers

MAX_HEAD_BYTES = 65536  # of a response
BODILESS = (204, 304)


class Receiver(Protocol):
    """Who a response is for: an exchange. `sent`: its request has been passed on to the last byte."""

    method: str
    sent: bool

    def opened(self, status: int, reason: bytes, headers: Headers, *, has_length: bool) -> None: ...
    def wrote(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def finished(self) -> None: ...
    def lost(self, reason: str) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...


class Upstream(asyncio.Protocol):
    """In use while it has a receiver, else idle in its target's list, else closing."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.receiver: Receiver | None = None
        self.idle_since = 0.0
        self.alive = True
        self._paused = False
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._reason = b""
        self._head_bytes = 0
        self._status = 0
        self._framed = self._complete = self._excess = self._keep = False

    def begin(self, receiver: Receiver, data: bytes) -> None:
        """Take the connection into use and send the first bytes of a request."""
        self.receiver = receiver
        self._status, self._head_bytes, self._complete = 0, 0, False
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def drop(self) -> None:
        """Give the connection up; whatever still arrives is nobody's."""
        self.receiver, self.alive = None, False
        self.transport.abort()

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
        if receiver is None:  # an answer nobody asked for
            self.drop()
            return
        if not self._status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self.drop()
                receiver.flush()
                receiver.lost("malformed response")
                return
            self._excess = True  # more than one answer: the first is good, the connection is not
        if not self._status and self._head_bytes > MAX_HEAD_BYTES:
            self.drop()
            receiver.lost("response head too large")
            return
        receiver.flush()
        if self._complete and self.receiver is receiver:
            self._finish(receiver)

    def _finish(self, receiver: Receiver) -> None:
        self.receiver = None
        self.resume_reading()  # the last piece may have filled the client's buffer
        if receiver.method == "HEAD":
            self._renew()  # the parser waits for a body that an answer to HEAD never has
        if self._reusable() and receiver.sent:
            self.idle_since = time.monotonic()
            self.target.idle.append(self)
        else:
            self.drop()
        receiver.finished()

    def _reusable(self) -> bool:
        return self._keep and not self._excess and self.alive and not self.target.retired

    def connection_lost(self, error: Exception | None) -> None:
        self.alive = False
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        if error is None and self._status and not self._framed:  # the end of the connection ends this body
            receiver.finished()
        else:
            receiver.lost("connection closed")

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.hold()

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.release()

    # --- httptools ---

    def on_status(self, part: bytes) -> None:
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # else a trailer: not passed on
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, []
        reason, self._reason = self._reason, b""
        status = self._parser.get_status_code()
        if self._complete:
            self._excess = True
            return
        if status == 101:
            raise ValueError("an upgrade that nobody asked for")
        if status < 200 or self.receiver is None:
            return  # an interim answer; 100 Continue is the edge's own business
        coding = [value for name, value in headers if name.lower() == b"transfer-encoding"]
        if coding and [value.strip().lower() for value in coding] != [b"chunked"]:
            raise ValueError("a transfer coding that could not be passed on")
        has_length = any(name.lower() == b"content-length" for name, _ in headers)
        bodiless = self.receiver.method == "HEAD" or status in BODILESS
        self._status, self._keep = status, self._parser.should_keep_alive()
        self._framed = has_length or bool(coding) or bodiless
        self.receiver.opened(status, reason, headers, has_length=has_length)
        if self.receiver.method == "HEAD":
            self._complete = True

    def on_body(self, data: bytes) -> None:
        if not self._complete and self.receiver is not None:
            self.receiver.wrote(data)

    def on_message_complete(self) -> None:
        if self._status and not self._complete:
            self._complete = True
