"""One request and its response, between a client connection (edge.py) and an upstream connection (upstream.py)."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from random import random
from typing import TYPE_CHECKING

from foundation import problems

from . import answers, dial, parting, pipeline, routing, stale, tunnel
from . import headers as heads
from .auth import of_one_key
from .calls import HeaderPairs, Pause, Refusal, Step, TakeTokens, UpstreamFailed
from .errors import BadRequest, PluginFailed
from .headers import Headers
from .pool import Target
from .preambles import RequestPreamble, ResponsePreamble
from .request import Request, chunk
from .retry import IDEMPOTENT
from .transforming import Transformation, request_head
from .upstream import BODILESS, Upstream

if TYPE_CHECKING:
    from .bucket import Taken
    from .edge import Edge
    from .limiter import Waiter
    from .worker import LocalAnswer


DRAIN_BYTES = (
    65536  # a body up to this size is read to its end after an early answer, a larger one is cut off
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ASIDE_BYTES = 65536  # of a request's body from which on it is changed by a thread
_EDITORS = ThreadPoolExecutor(2, thread_name_prefix="gateway-edits")


class Exchange(Request):
    """`head_sent`: status of the response whose head has left, 0 before."""

    __slots__ = (
        "_copied", "_copy", "_edited", "_out", "_upstream_line", "_waiter", "chunks_out", "head_sent", "upstream_name",
    )  # fmt: skip
    _copied: Headers
    _out: list[bytes]
    _upstream_line: bytes

    def __init__(
        self,
        edge: Edge,
        method: str,
        uri: bytes,
        preamble: RequestPreamble,
        authorization: bytes | None = None,
    ) -> None:
        """Raises BadRequest."""
        Request.__init__(self, edge, method, uri, preamble, authorization)
        self.head_sent = 0
        self.chunks_out = False
        self.upstream_name = ""
        self._waiter: Waiter | None = None
        self._edited: list[bytes] | None = None  # of a response's body that is to be changed
        self._copy: list[bytes] | None = None  # of a response's body that is kept for worse times

    # --- following the rules ---

    def start(self) -> None:
        worker = self.edge.worker
        if self.route is None:
            local = worker.local_answer(self.path)
            if local is not None:
                self.edge.spawn(self._answer_locally(local))
                return
        if self.is_for_us and self.route is not None:
            self.respond(204, b"", "", (("Allow", ", ".join(sorted(self.takes()))),))
            return
        wall = time.time()  # noqa: TID251  (tokens and keys expire in wall time)
        step = pipeline.decide(self, worker.snapshot.identities, worker.limiter.accounts, wall)
        if self.identity is not None and self.identity.key_digest:
            worker.used_keys.add(self.identity.key_digest)
        self.follow(step)

    def follow(self, step: Step) -> None:
        if type(step) is Target:
            idle = step.idle
            oldest = self.started - self.edge.limits.UPSTREAM_IDLE_S
            while idle:
                up = idle.pop()
                if (
                    up.alive
                    and up.idle_since > oldest
                    and not up.transport.is_closing()
                    and (self.method in IDEMPOTENT or up.is_quiet())  # others cannot be sent again
                ):
                    self._attach(up)
                    return
                up.drop()
            self.edge.spawn(self._connect(step))
        elif isinstance(step, Refusal):
            self.refuse(step)
        elif isinstance(step, TakeTokens):
            self._waiter = self.edge.worker.limiter.ask(step.account, step.cost, self._told)
        elif isinstance(step, Pause):
            self.edge.spawn(self._pause(step))
        else:
            self._transform()

    def _transform(self) -> None:
        """Change the request; first its body is read whole, if it is to be changed."""
        route, identity = self.route, self.identity
        assert route is not None and route.transforms is not None  # noqa: S101, PT018  (the step says so)
        passed = self.preamble.passed() + self.credentials(self.edge.worker.snapshot.api_key_header)
        self.changes = changes = Transformation(
            route.transforms,
            request_head(
                self.method, heads.stripped(self.target_uri, route.strip), passed, routing.parameters(route.path, self.path), self.client_ip,
                self.request_id.decode(), (identity.name, identity.subject) if identity is not None else ("", ""),
            ),
        )  # fmt: skip
        if not changes.wants_request_body or (self.sent and not self.bytes_in):
            self._transformed(None)
            return
        if max(self.length, self.bytes_in) > self.edge.limits.MAX_EDITED_BYTES:
            detail = f"The body is larger than {self.edge.limits.MAX_EDITED_BYTES} bytes."
            reply = Refusal(413, "body_too_large", detail)
            self.follow(pipeline.transformed(self, reply, time.monotonic()))
            return
        self.collected = self.pending or []
        self.pending = []
        if self.sent:  # all of it came while the limits were asked, and so did its end
            self._collected()
            return
        if self.expects:
            self.edge.transport.write(_CONTINUE)
            self.expects = False
        self.edge.release()

    def _transformed(self, body: bytes | None) -> None:
        assert self.changes is not None  # noqa: S101  (it has just been made)
        self._edited_to(*self.changes.edit(body))

    async def _transformed_aside(self, body: bytes) -> None:
        """A megabyte of tiny elements takes a second: the others must not wait for it."""
        assert self.changes is not None  # noqa: S101
        found = await self.edge.loop.run_in_executor(_EDITORS, self.changes.edit, body)
        if not self.over:
            self._edited_to(*found)

    def _edited_to(self, reply: Refusal | None, changed: bytes | None) -> None:
        changes = self.changes
        assert changes is not None  # noqa: S101
        reply = reply or changes.plug()
        head = changes.head
        self.target_uri = head.path + b"?" + head.query if head.query else head.path
        self.lines = [heads.lines(head.headers)]
        if changed is not None:
            self.pending, self.length, self.chunked = [changed], len(changed), False
        self.follow(pipeline.transformed(self, reply, time.monotonic()))

    def collected_whole(self, body: bytes) -> None:
        if len(body) < ASIDE_BYTES:
            self._transformed(body)
        else:
            self.edge.spawn(self._transformed_aside(body))

    def _told(self, taken: Taken) -> None:
        self._waiter = None
        if not self.over:
            self.follow(pipeline.admitted(self, taken, time.monotonic()))

    async def _pause(self, step: Pause) -> None:
        await asyncio.sleep(step.seconds)
        if not self.over:
            self.follow(pipeline.resumed(self, time.monotonic()))

    async def _connect(self, target: Target) -> None:
        assert self.route is not None  # noqa: S101  (it led to the target)
        left_s = min(self.route.connect_timeout_s, max(0.001, self.deadline - time.monotonic()))
        try:
            up = await dial.connect(self.edge.loop, lambda: Upstream(target), target.dial, left_s)
        except OSError as error:  # TimeoutError and ssl.SSLError are such
            if not self.over and self.target is target:
                self._fail(_connect_failure(error))
            return
        if self.over or self.target is not target:
            up.drop()
        else:
            self._attach(up)

    def _attach(self, up: Upstream) -> None:
        self.up, edge, target = up, self.edge, up.target
        self.upstream_name, self._upstream_line = target.name, target.dial.upstream_line
        pending, self.pending = self.pending, None
        if self.expects and not self.sent:
            edge.transport.write(_CONTINUE)
            self.expects = False
        if edge.stalled:
            up.pause_reading()
        data = self.head_for(target)
        if pending or self.kept or (self.chunked and self.sent):
            data += self.body_so_far(pending or ())
        if edge.held:
            edge.release()  # before it is written, which may hold again
        up.begin(self, data)
        edge.moved_at = self.began

    def _fail(self, failure: UpstreamFailed) -> None:
        self.up = None
        self.pending = self.pending or []
        self.opened = 0.0
        self.follow(pipeline.failed(self, failure, random, time.monotonic()))

    # --- from the client ---

    def abort(self, code: str = "client_gone", status: int = pipeline.CLIENT_GONE) -> None:
        """The client is gone, or what it sends makes no sense and is answered by the edge: give everything back."""
        if self.over:
            return
        self.over, self.code = True, code
        if self._waiter is not None:
            self._waiter.cancel()
        if self.up is not None:
            self.up.drop()
        pipeline.abandoned(self, time.monotonic(), status)
        self.edge.worker.over(self)

    def timed_out(self, now: float) -> None:
        """The target has been silent for too long, or the whole time is over."""
        if self.up is not None:
            self.up.drop()
        is_total = now >= self.deadline
        had_begun = self.take_back()
        if self.head_sent:
            self._break_off("total_timeout" if is_total else "upstream_idle_timeout")
        elif is_total:
            self.up = None
            self.refuse(pipeline.timed_out(self, now))
        elif self.target is not None:
            code = "upstream_idle_timeout" if had_begun else "response_timeout"
            self._fail(UpstreamFailed(code, timed_out=True, answered=had_begun))
        else:  # the limiter, a pause or a local answer did not come back
            parting.fail(
                self.edge,
                BadRequest("gateway_timeout", "The gateway did not get to this in time.", 504),
                instead_of=self,
            )

    # --- from the upstream ---

    def answered(self, preamble: ResponsePreamble) -> bool:
        self.opened = time.monotonic()
        has_end = False  # of its own; an edited body gets a new length
        if self.changes is not None and preamble.status != 101:
            has_end = preamble.length is not None or preamble.is_chunked
            try:
                preamble = self._change_response(preamble)
            except PluginFailed as error:
                self._spoilt(str(error))
                return True
        self.head_sent = status = preamble.status
        account = self.account
        self._out = out = [
            *preamble.lines, b"X-Request-Id: ", self.request_id, b"\r\n", self._upstream_line,
            account.header_lines() if account is not None else preamble.limits,
        ]  # fmt: skip
        bodiless = self.method == "HEAD" or status in BODILESS or status == 101
        if self.changes is not None and not bodiless and self.changes.wants_response_body:
            self._edited = []
        elif preamble.length is None and not bodiless:
            # A body without a length goes on in chunks, or up to the end of the connection for HTTP/1.0.
            self.chunks_out = self.http11
            if self.chunks_out:
                out.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self.keep = False
        if not self.sent:
            self._close_early()
        out.append(b"\r\n" if self.keep or status == 101 else b"Connection: close\r\n\r\n")
        route = self.route
        assert route is not None  # noqa: S101  (it led to the target)
        if route.stale_s and self._may_be_stale() and stale.may_be_kept(status, preamble.fields):
            self._copy, self._copied = [], preamble.fields
        self.wait_s = route.idle_timeout_s
        return preamble.length is not None or preamble.is_chunked or bodiless or has_end

    def _change_response(self, preamble: ResponsePreamble) -> ResponsePreamble:
        """Framing is the gateway's business: edits and plugins do not see it."""
        assert self.changes is not None  # noqa: S101  (the caller has looked)
        names = heads.OF_RESPONSES
        shown = [pair for pair in preamble.fields if not names[pair[0]]]
        response = self.changes.response(preamble.status, shown)
        has_new_length = self.changes.wants_response_body
        hidden = [
            (name, value)
            for name, value in preamble.fields
            if names[name] and not (has_new_length and names[name] == heads.LENGTH)
        ]
        return ResponsePreamble(response.status, [*response.headers, *hidden])

    def _spoilt(self, detail: str) -> None:
        """The target did its part, but what came of it cannot be shown."""
        if self.up is not None:
            self.up.drop()
        self.refuse(pipeline.spoilt(self, detail, time.monotonic()))

    def _edit(self, data: bytes) -> None:
        """What is too large to be held goes on as it is."""
        if self._edited is None:
            return
        self._edited.append(data)
        if self.bytes_out > self.edge.limits.MAX_EDITED_BYTES:
            pieces, self._edited, self._copy = self._edited, None, None
            if self.changes is not None:
                self.changes.too_large()
            self.chunks_out = self.http11
            self.keep = self.keep and self.http11
            self._out.insert(
                -1, b"Transfer-Encoding: chunked\r\n" if self.http11 else b"Connection: close\r\n"
            )
            for piece in pieces:
                self._out.append(chunk(piece) if self.chunks_out else piece)

    def _send_edited(self) -> None:
        assert self.changes is not None and self._edited is not None  # noqa: S101, PT018  (the caller has looked)
        body = self.changes.response_body(b"".join(self._edited))
        self._edited = None
        if self._copy is not None:
            self._copy = [body]
        self._out.insert(-1, b"Content-Length: %d\r\n" % len(body))
        self._out.append(body)
        self.bytes_out = len(body)
        self.flush()

    def wrote(self, data: bytes) -> None:
        self.bytes_out += len(data)
        if self._edited is not None:
            self._edit(data)
            return
        if self._copy is not None:
            self._copy.append(data)
            if self.bytes_out > stale.MAX_BODY_BYTES:
                self._copy = None
        if self.chunks_out:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def flush(self) -> None:
        """Whatever comes before the head is whole, interim answers too, does not count as an answer: the target would
        keep its client waiting for as long as it likes."""
        if not self.head_sent or self.over:
            return
        if self._out and self._edited is None:
            self.edge.transport.write(b"".join(self._out))
            self._out.clear()
        self.edge.moved_at = self.edge.worker.now

    def finished(self, trailers: Headers | None) -> None:
        if self._edited is not None:
            self._send_edited()
        self.over = True
        if self.chunks_out:
            self.edge.transport.write(self._lastchunk(trailers))
        if self._copy is not None:
            self._keep_answer()
        changes = self.changes
        pipeline.answered(self, self.head_sent, time.monotonic(), changes.said if changes is not None else 0)
        edge = self.edge
        edge.worker.over(self)
        edge.next()

    def _lastchunk(self, trailers: Headers | None) -> bytes:
        """RFC 9110 section 6.5.1: trailers are for clients that said they take them."""
        if not trailers or not self.takes_trailers:
            return b"0\r\n\r\n"
        return b"0\r\n%b\r\n" % heads.trailers(trailers, heads.OF_RESPONSES)

    def lost(self, code: str) -> None:
        up = self.up
        if self.take_back():
            self._fail(UpstreamFailed(code, answered=True))
            return
        if self.head_sent:
            self._break_off(code)
            return
        is_stale = up is not None and up.is_stale
        whole = self.sent and (not self.bytes_in or self.kept is not None)
        self._fail(UpstreamFailed(code, stale=is_stale, replayable=whole))

    def take_back(self) -> bool:
        """Whether a response had begun of which none has left: then it is as if there were none."""
        if self._edited is None:
            return False
        self._edited, self._copy, self.head_sent, self.bytes_out = None, None, 0, 0
        return True

    def upgraded(self, rest: bytes) -> None:
        """The target agreed to the other protocol: from here on bytes are passed on as they are."""
        self.flush()
        tunnel.open(self, rest)

    def _break_off(self, code: str) -> None:
        """The head is out: only a cut connection tells the client that the rest is missing."""
        self.over = True
        pipeline.broken(self, self.head_sent, code, time.monotonic())
        self.edge.worker.over(self)
        self.edge.transport.abort()

    def hold(self) -> None:
        self.edge.hold()

    def release(self) -> None:
        self.edge.release()

    # --- answers of our own ---

    def _keep_answer(self) -> None:
        names = heads.OF_RESPONSES
        kept = [(name, value) for name, value in self._copied if not names[name]]
        answer = stale.Answer(kept, b"".join(self._copy or ()), time.monotonic())
        self.edge.worker.stale.keep(self._stale_key(), answer)

    def _stale_key(self) -> stale.Key:
        assert self.route is not None  # noqa: S101  (the caller has looked)
        identity, caller = self.identity, ""
        if identity is not None:  # a target may see the key, and answer each in its own way
            caller = (
                of_one_key(identity.subject, identity.key_digest) if identity.key_digest else identity.subject
            )
        host = self.preamble.client.host or self.preamble.host
        return stale.key(self.route.name, caller, host, self.target_uri, self.fields)

    def _may_be_stale(self) -> bool:
        """GET alone: anything else would seem to have been done. And without a body, which the answer may depend on."""
        return self.method == "GET" and not self.preamble.length and not self.preamble.chunked

    def older_answer(self, code: str, now: float) -> Refusal | None:
        assert self.route is not None  # noqa: S101  (the caller has looked)
        if not self._may_be_stale():
            return None
        found = self.edge.worker.stale.find(self._stale_key(), self.route.stale_s, now)
        if found is None:
            return None
        self.bytes_out = len(found.body)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in found.headers]
        headers.append(("Age", str(int(now - found.kept_at))))
        return Refusal(200, code, "", tuple(headers), body=found.body)

    def refuse(self, refusal: Refusal) -> None:
        if refusal.is_open:
            if self.changes is not None:
                refusal = self.changes.instead_of(refusal)
            pipeline.refused(self, refusal.status, time.monotonic())
        headers = (("X-Brain-Error", refusal.code), *refusal.headers)
        if refusal.body is not None:
            self.respond(refusal.status, refusal.body, refusal.content_type, headers)
        else:
            body = answers.problem(refusal.status, refusal.code, refusal.detail, self.request_id.decode())
            self.respond(refusal.status, body, problems.CONTENT_TYPE, headers)

    def respond(self, status: int, body: bytes, content_type: str, headers: HeaderPairs = ()) -> None:
        if not self.sent:
            self._close_early()
        headers += (("X-Request-Id", self.request_id.decode()),)
        shown = b"" if self.method == "HEAD" else body
        head = answers.head(status, content_type, len(body), headers, keep=self.keep)
        self.over, self.head_sent, self.status = True, status, status
        self.edge.transport.write(head + shown)
        self.edge.worker.over(self)
        self.edge.release()
        self.edge.next()

    async def _answer_locally(self, local: LocalAnswer) -> None:
        if self.method not in ("GET", "HEAD"):
            self.refuse(
                Refusal(405, "method_not_allowed", "This takes GET, HEAD.", (("Allow", "GET, HEAD"),))
            )
            return
        status, body, content_type = await local()
        if not self.over:
            self.respond(status, body, content_type)

    def _close_early(self) -> None:
        """The answer comes before the end of the request: is the rest worth reading?"""
        if self.chunked or self.expects or self.length > DRAIN_BYTES:
            self.keep = False


def _connect_failure(error: OSError) -> UpstreamFailed:
    if isinstance(error, TimeoutError):
        return UpstreamFailed("connect_timeout", written=False)
    is_tls = type(error).__module__ == "ssl"
    return UpstreamFailed("tls_failed" if is_tls else "connect_failed", written=False)
