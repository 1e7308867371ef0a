"""A response's body on its way to the DRF door's client, piece by piece, under WSGI and under ASGI."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from asgiref.sync import sync_to_async

from . import ongoing, pipeline
from .blocking import Response
from .calls import Call, Refusal, UpstreamFailed
from .conf import conf
from .drive import Running

# A stream that waits for its target holds a thread, so they have some of their own.
_THREADS = ThreadPoolExecutor(512, thread_name_prefix="gateway-stream")


class Unsent(Exception):
    """The target broke off while nothing of its response had left. Whoever meets it ends the call."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class Stream:
    """The response's body. Its end, its failure and a client that went away each give back what the call took.

    A class, because closing a generator that was never started would run none of its code.
    """

    def __init__(
        self, call: Call, response: Response, running: Running, rules: AbstractContextManager[Any],
        ended: Callable[[], None], objection: Callable[[], str] = str,
    ) -> None:  # fmt: skip
        """rules: held while they run, as for `drive`. ended: called once, after them. objection: why the caller may have
        no more of it, "" while he may; asked before a piece is given, every SNAPSHOT_POLL_S at most."""
        self._call, self._response, self._running = call, response, running
        self._rules, self._ended, self._objection = rules, ended, objection
        self._next_look = time.monotonic() + conf().SNAPSHOT_POLL_S
        self._pieces = response.pieces()
        self._open = True
        self.status: int | None = None  # that the client is given in place of the target's
        self.is_held = False  # its reader keeps the pieces to himself until he has them all

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece: bytes = next(self._pieces)
        except StopIteration:
            self.finish()
            raise
        except (OSError, ValueError) as error:
            timed_out = isinstance(error, TimeoutError)
            failure = UpstreamFailed(self._reason(error), timed_out=timed_out, answered=self.is_held)
            if self.is_held:
                raise Unsent(self._refused(failure)) from error
            self._settle(lambda: self._running.throw(failure))
            self._response.close()
            # The server cuts the connection: all that can still tell the client that the rest is missing.
            raise ConnectionAbortedError("the upstream broke off") from error
        if time.monotonic() >= self._next_look:
            self._look()
        self._call.bytes_out += len(piece)
        return piece

    def _refused(self, failure: UpstreamFailed) -> Refusal:
        self._end_unsent()
        with self._rules:
            refusal = self._running.throw(failure)
        assert isinstance(refusal, Refusal)  # noqa: S101  (retry.py: what has been answered is not asked again)
        return refusal

    def _end_unsent(self) -> None:
        self._open, self._call.bytes_out = False, 0
        self._response.close()

    def _look(self) -> None:
        self._next_look = time.monotonic() + conf().SNAPSHOT_POLL_S
        code = self._objection()
        if code and self.is_held:
            self._end_unsent()
            with self._rules:
                self._refuse(code, 401)
            raise Unsent(Refusal(401, code, ongoing.TOLD))
        if code:
            self._settle(lambda: self._refuse(code, self._response.status))
            self._response.close()
            raise ConnectionAbortedError(code)  # cut, as above

    def _refuse(self, code: str, status: int) -> None:
        call = self._call
        call.code = code
        call.recorder.refused(code)
        pipeline.abandoned(call, time.monotonic(), status)

    def _reason(self, error: Exception) -> str:
        if not isinstance(error, TimeoutError):
            return "upstream_closed"
        return "total_timeout" if time.monotonic() >= self._response.deadline else "upstream_idle_timeout"

    def finish(self) -> None:
        if self._open:  # else the client has gone, and the connection with it
            self._settle(lambda: self._running.send(self.status))
            self._response.release()

    def close(self) -> None:
        if self._open:
            self._settle(self._running.close)
            self._response.close()

    def _settle(self, resume: Any) -> None:
        if not self._open:
            return
        self._open = False
        with self._rules:
            try:
                resume()
            except StopIteration:
                pass
            finally:
                self._running.close()
        self._ended()


class Rest:
    """The pieces that were read already, and what comes after them."""

    def __init__(self, pieces: list[bytes], stream: Stream) -> None:
        self._pieces, self._stream = iter(pieces), stream

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces, None) or next(self._stream)

    def close(self) -> None:
        self._stream.close()


class Awaited:
    """The same for an ASGI server: Django would read a plain iterator to its end before it sent the first piece."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        following = sync_to_async(lambda: next(self._pieces, None), thread_sensitive=False, executor=_THREADS)
        try:
            while (piece := await following()) is not None:
                yield piece
        finally:  # also when the client went away
            self._pieces.close()

    def close(self) -> None:
        self._pieces.close()


Pieces = Stream | Rest
