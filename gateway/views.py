"""The DRF door: the same pipeline for requests that reach Django itself (`manage.py runserver`), as the last URL
pattern.

WSGI hands over a decoded path, so the path is matched and passed on in one canonical spelling of it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Container, Iterator
from http.cookies import Morsel
from random import getrandbits, random
from typing import Any
from urllib.parse import quote

import structlog
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import Metric

from foundation import problems, request_id

from . import blocking, forwarding, metrics, ongoing, pipeline, routing, standing, trace
from . import headers as heads
from .calls import Call, Pause, Refusal, Relay, Route, TakeTokens, Transform
from .conf import conf
from .drive import Running, drive
from .errors import BadRequest, PluginFailed
from .headers import Headers
from .identities import Grounds
from .issuers import holder
from .limiter import Limiter
from .pool import Target
from .preambles import MAX_GATEWAYS
from .routing import Asked
from .snapshot import Snapshot
from .streams import Awaited, Pieces, Rest, Stream, Unsent
from .tally import Tally
from .transforming import Transformation, request_head

log = structlog.get_logger(__name__)

tally = Tally()  # this process's figures; the edge's are its own
_limiter = Limiter()
_limiter.on_failure = tally.store_failed
holder.living.events, holder.living.plugins.on_failure = tally, tally.plugin_failed
_rules = threading.Lock()  # the targets' counts are shared by all threads of this process
_ASCII = "".join(map(chr, range(0x20, 0x7F)))
_BODILESS = (204, 304)
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")  # all together
_QUERY = re.compile("[\x21-\x7e]*")
# What Django makes of a byte that is no UTF-8, and of nothing else but an encoded percent sign; and what ASGI servers do.
_BROKEN = re.compile("%[89A-F][0-9A-F]|\N{REPLACEMENT CHARACTER}")


def families() -> Iterator[Metric]:
    """The figures of this process's door, read when they are scraped."""
    snapshot, now = holder.snapshot, time.monotonic()
    with _rules:
        tally.retire(standing.names(snapshot), now)
        mine = metrics.figures(
            tally, standing.of(snapshot, now), snapshot.version, snapshot_age_s=now - holder.known_at,
            is_store_up=_limiter.is_store_up, outages=snapshot.outages,
        )  # fmt: skip
    yield from metrics.families([mine])


@method_decorator(csrf_exempt, name="dispatch")
class ProxyView(View):
    """Every method; who may call is the pipeline's question, so Django's session and CSRF token play no part."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return _Visit(request, holder.refresh_if_due()).answer()
        except BadRequest as error:
            tally.refused(error.code)
            return problems.response(
                request,
                error.status,
                detail=error.detail,
                headers={"X-Brain-Error": error.code},
                code=error.code,
            )


class _Call(Call):
    __slots__ = ("others",)
    others: Callable[[], frozenset[str]]

    def takes(self) -> frozenset[str]:
        return self.others()


class _Visit:
    """One request through the pipeline, by blocking steps."""

    def __init__(self, request: HttpRequest, snapshot: Snapshot) -> None:
        """Raises BadRequest."""
        self.request, self.snapshot = request, snapshot
        self.id = request_id.current() or request_id.new()
        self.body_bytes = _size(request)
        self.uri, path = _target(request)
        self.fields: Headers = _fields(request)
        given = {name.lower(): value for name, value in self.fields}
        trusted = forwarding.networks(conf().TRUSTED_PROXIES)
        peer = request.META.get("REMOTE_ADDR", "unknown")
        self.client = forwarding.sender(peer, (request.scheme or "http").encode(), self.fields, trusted)
        self.host = self.client.host or given.get(b"host", b"")
        self.forwarded_for = forwarding.chain(peer, self.client, self.fields, trusted)
        if given.get(b"via", b"").count(b" brain") >= MAX_GATEWAYS:
            raise BadRequest("loop_detected", "The request goes round in a circle of gateways.", 508)
        self.via = b", ".join(filter(None, (given.get(b"via"), b"1.1 brain")))
        self.named = heads.listed((given.get(b"connection", b""),))
        self.traceparent = trace.carry_on(given.get(b"traceparent"), getrandbits)
        self.is_traced = trace.is_valid(given.get(b"traceparent"))
        self.response: blocking.Response | None = None
        self.upstream = ""
        self.changes: Transformation | None = None
        self.grounds: Grounds | None = None
        self.body: Any = request if self.body_bytes else None
        router, method = snapshot.router, request.method or ""
        self.hops, self.is_for_us = _hops(method, given.get(b"max-forwards"))
        asked = Asked(method, forwarding.bare_host(self.host), self.fields)
        route = router.known.get(path) or router.match(path, asked)
        self.path = path
        self.call = call = _Call()
        call.others = lambda: router.methods(path, asked)
        call.route, call.method, call.client_ip, call.recorder = route, method, self.client.ip, tally
        call.authorization, call.api_key = given.get(b"authorization"), given.get(snapshot.api_key_header)
        call.started = time.monotonic()
        call.bytes_in = self.body_bytes
        if route is not None:
            call.deadline = call.started + route.total_timeout_s
            call.key = heads.hash_key(route.service.hash_on, self.client.ip, self.fields)

    def answer(self) -> HttpResponseBase:
        if self.is_for_us and self.call.route is not None:
            return HttpResponse(status=204, headers={"Allow": ", ".join(sorted(self.call.takes()))})
        wall = time.time()  # noqa: TID251  (tokens and keys expire in wall time)
        running = pipeline.steps(
            self.call, self.snapshot.identities, _limiter.accounts, wall, time.monotonic, random
        )
        step = drive(running, self._perform, _rules)
        if isinstance(step, Refusal):
            return self._refused(step, running)
        try:
            return self._relay(running, step)
        except BaseException:  # nobody will read the response, and so nobody will end the call
            self._let_go(running)
            raise

    def _let_go(self, running: Running) -> None:
        if self.response is not None:
            self.response.close()
        with _rules:
            running.close()

    def _refused(self, refusal: Refusal, running: Running) -> HttpResponseBase:
        """A plugin that answers instead does so while nobody waits for the rules."""
        if refusal.is_open and self.changes is not None:
            refusal = self.changes.instead_of(refusal)
        with _rules:
            pipeline.refused(self.call, refusal.status, time.monotonic())
            running.close()
        self._log()
        return self._refusal(refusal)

    def _perform(self, step: TakeTokens | Transform | Pause | Target) -> Any:
        if isinstance(step, TakeTokens):
            return _limiter.take(step.account, step.cost)
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Transform):
            return self._transform()
        self.response = self._send(step)
        self.upstream = step.name
        self.call.opened = time.monotonic()
        return self.response.status

    def _transform(self) -> Refusal | None:
        call, route = self.call, self.call.route
        assert route is not None and route.transforms is not None  # noqa: S101, PT018  (the step says so)
        identity = call.identity
        passed = [*self._passed(), *self.call.credentials(self.snapshot.api_key_header)]
        self.changes = changes = Transformation(
            route.transforms,
            request_head(
                call.method, heads.stripped(self.uri, route.strip), passed, routing.parameters(route.path, self.path), call.client_ip, self.id,
                (identity.name, identity.subject) if identity is not None else ("", ""),
            ),
        )  # fmt: skip
        body = None
        if changes.wants_request_body and self.body_bytes:
            if self.body_bytes > conf().MAX_EDITED_BYTES:
                return Refusal(
                    413, "body_too_large", f"The body is larger than {conf().MAX_EDITED_BYTES} bytes."
                )
            body = self.request.read()
        reply, changed = changes.request(body)
        head = changes.head
        self.uri = head.path + b"?" + head.query if head.query else head.path
        if changed is not None:
            self.body, self.body_bytes = changed, len(changed)
        return reply

    def _send(self, target: Target) -> blocking.Response:
        call, route = self.call, self.call.route
        assert route is not None  # noqa: S101  (it has this target)
        is_whole = self.body is None or isinstance(self.body, bytes)
        return blocking.send(
            target, route, call.method, self._uri(route), self._headers(target), self.body, self.body_bytes,
            left_s=max(0.001, call.deadline - time.monotonic()), idle_s=conf().UPSTREAM_IDLE_S, replayable=is_whole,
        )  # fmt: skip

    def _uri(self, route: Route) -> bytes:
        """Edits begin with what is left of the path."""
        return self.uri if self.changes is not None else heads.stripped(self.uri, route.strip)

    def _headers(self, target: Target) -> Headers:
        call, route = self.call, self.call.route
        assert route is not None  # noqa: S101  (it has this target)
        passed = (
            self.changes.head.headers
            if self.changes is not None
            else [*self._passed(), *self.call.credentials(self.snapshot.api_key_header)]
        )
        keeps_host = route.keeps_host and self.host
        sent = [(b"Host", self.host if keeps_host else target.dial.host), *passed]
        sent += [
            (b"X-Forwarded-For", self.forwarded_for),
            (b"X-Forwarded-Proto", self.client.scheme),
            (b"X-Forwarded-Host", self.host),
            (b"X-Request-Id", self.id.encode()),
            (b"traceparent", self.traceparent),
            (b"Via", self.via),
        ]
        if call.identity is not None:
            sent += heads.consumer(call.identity)
        if self.body_bytes or call.method in ("POST", "PUT", "PATCH"):
            sent.append((b"Content-Length", b"%d" % self.body_bytes))
        return sent

    def _passed(self) -> Headers:
        names, named = self.snapshot.names, self.named
        kept = [pair for pair in self.fields if not names[pair[0]] and pair[0].lower() not in named]
        if self.is_traced:
            kept += [pair for pair in self.fields if names[pair[0]] == heads.TRACESTATE]
        if self.hops is not None:
            kept.append((b"Max-Forwards", self.hops))
        return kept

    def _relay(self, running: Running, relay: Relay) -> HttpResponseBase:
        response = self.response
        assert response is not None  # noqa: S101  (Relay follows a response)
        received = response.headers
        named = heads.listed(value for name, value in received if name.lower() == b"connection")
        passed = [pair for pair in received if self._may_pass(pair[0]) and pair[0].lower() not in named]
        if relay.status == 204:  # RFC 9110 section 8.6: it has no length
            passed = [pair for pair in passed if pair[0].lower() != b"content-length"]
        asked = (self._objection,) if self.call.identity is not None else ()
        status, stream = relay.status, Stream(self.call, response, running, _rules, self._log, *asked)
        if self.changes is not None:
            try:
                changed = self.changes.response(
                    status, [pair for pair in passed if pair[0].lower() != b"content-length"]
                )
            except PluginFailed as error:
                with _rules:
                    refusal = pipeline.spoilt(self.call, str(error), time.monotonic())
                response.close()
                return self._refused(refusal, running)
            length = [pair for pair in passed if pair[0].lower() == b"content-length"]
            status, stream.status = changed.status, changed.status
            passed = [*changed.headers, *length]
            if self.changes.wants_response_body and self.call.method != "HEAD" and status not in _BODILESS:
                try:
                    return self._edited(stream, status, changed.headers)
                except Unsent as error:
                    return self._refused(error.refusal, running)
        if self.call.method == "HEAD" or status in _BODILESS:
            stream.finish()
            return self._dressed(HttpResponse(), status, passed)
        return self._dressed(StreamingHttpResponse(self._streamed(stream)), status, passed)

    def _edited(self, stream: Stream, status: int, passed: Headers) -> HttpResponseBase:
        """What is too large to be changed goes on as it is."""
        pieces, size = [], 0
        stream.is_held = True
        for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size > conf().MAX_EDITED_BYTES:
                assert self.changes is not None  # noqa: S101  (it wanted the body)
                self.changes.too_large()
                stream.is_held = False
                whole = StreamingHttpResponse(self._streamed(Rest(pieces, stream)))
                return self._dressed(whole, status, passed)
        assert self.changes is not None  # noqa: S101  (it wanted the body)
        return self._dressed(HttpResponse(self.changes.response_body(b"".join(pieces))), status, passed)

    def _objection(self) -> str:
        """Why this caller may have no more of the response."""
        snapshot = holder.refresh_if_due()
        if "wsgi.input" not in self.request.META:
            close_old_connections()  # of a thread of streams.py's, where no request's end does it
        wall, past_s = time.time(), conf().TUNNEL_PAST_EXPIRY_S  # noqa: TID251  (tokens and keys expire in wall time)
        code, self.grounds = ongoing.objection(self.call, self.grounds, snapshot.identities, wall, past_s)
        return code if code == ongoing.REVOKED or self._is_event_stream() else ""

    def _is_event_stream(self) -> bool:
        headers = self.response.headers if self.response is not None else ()
        return any(n.lower() == b"content-type" and heads.is_event_stream(v) for n, v in headers)

    def _streamed(self, pieces: Pieces) -> Pieces | Awaited:
        return pieces if "wsgi.input" in self.request.META else Awaited(pieces)

    def _may_pass(self, name: bytes) -> bool:
        kind = heads.OF_RESPONSES[name]
        return not kind or kind == heads.LENGTH or (kind == heads.LIMIT and self.call.account is None)

    def _dressed(self, made: HttpResponseBase, status: int, passed: Headers) -> HttpResponseBase:
        made.status_code = status  # Django makes no response with one above 599, but some targets have them
        del made["Content-Type"]
        for name, value in passed:
            _add(made, name.decode("latin-1"), value.decode("latin-1"))
        made["X-Request-Id"], made["X-Upstream"] = self.id, self.upstream
        for name_, value_ in self.call.account.header_pairs() if self.call.account is not None else ():
            made[name_] = value_
        made.__dict__["xframe_options_exempt"] = True  # the upstream's page, the upstream's headers
        return made

    def _refusal(self, refusal: Refusal) -> HttpResponseBase:
        headers = {"X-Brain-Error": refusal.code, **dict(refusal.headers)}
        if refusal.body is None:
            return problems.response(
                self.request, refusal.status, detail=refusal.detail, headers=headers, code=refusal.code
            )
        made = HttpResponse(refusal.body, status=refusal.status, content_type=refusal.content_type or None)
        for name, value in headers.items():
            made[name] = value
        return made

    def _log(self) -> None:
        if conf().ACCESS_LOG:
            call = self.call
            log.info(
                "request",
                method=call.method,
                path=self.request.path_info,
                route=call.route.name if call.route is not None else None,
                status=call.status,
                reason=call.code or None,
                upstream=self.upstream or None,
                consumer=call.identity.name if call.identity is not None else None,
                duration_ms=round((time.monotonic() - call.started) * 1000, 1),
            )


def _fields(request: HttpRequest) -> Headers:
    """The headers, as far as they can be written out again: some servers hand over what no message may hold, and a target may
    take a bare CR for the end of the line. Raises BadRequest."""
    if _CONTROL.search("".join(request.headers.values())) or not _NAMES.fullmatch("".join(request.headers)):
        raise BadRequest("request_malformed", "A header holds characters that none may hold.")
    return [(n.encode("latin-1"), v.encode("latin-1", "replace")) for n, v in request.headers.items()]


def _hops(method: str, given: bytes | None) -> tuple[bytes | None, bool]:
    """What is left of Max-Forwards (RFC 9110 section 7.6.2), which counts for OPTIONS alone, and whether nobody but us is to
    see the request."""
    if given is None or method != "OPTIONS" or not given.isdigit():
        return given, False
    hops = int(given[:9])
    return b"%d" % (hops - 1), hops == 0


def _size(request: HttpRequest) -> int:
    """Raises BadRequest."""
    coding = request.META.get("HTTP_TRANSFER_ENCODING", "")
    if coding:
        if "chunked" not in coding.lower():
            raise BadRequest("coding_unsupported", "The only transfer coding is 'chunked'.")
        # WSGI has no way to say where such a body ends, and under ASGI Django does not say how long it was.
        raise BadRequest(
            "length_required", "Send a Content-Length: chunked bodies do not get through here.", 411
        )
    size = request.META.get("CONTENT_LENGTH") or "0"
    if not size.isdecimal():
        raise BadRequest("request_malformed", "The Content-Length is not a number.")
    most = conf().MAX_BODY_BYTES
    if most and int(size) > most:
        raise BadRequest("body_too_large", f"The body is larger than {most} bytes.", 413)
    return int(size)


def _target(request: HttpRequest) -> tuple[bytes, bytes]:
    """(request target, normal path). Raises BadRequest."""
    query = request.META.get("QUERY_STRING", "")
    path = quote(request.path_info, safe="/:@!$&'()*+,;=~")
    if not _QUERY.fullmatch(query):
        raise BadRequest("request_malformed", "The query holds characters that no request target may hold.")
    try:
        if _BROKEN.search(request.path_info):
            raise routing.BadPath("bytes that are no UTF-8, or a percent sign before two hexadecimal digits")
        return (f"{path}?{query}" if query else path).encode("latin-1"), routing.normalise(path.encode())
    except routing.BadPath as error:
        raise BadRequest("path_ambiguous", f"The path is ambiguous: {error}.") from error


class _Cookie(Morsel[str]):
    """A target's Set-Cookie as it came: read and written anew, it would lose whatever Python's module does not know."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = quote(line, safe=_ASCII, encoding="latin-1")  # Django writes cookies in ASCII

    def OutputString(self, attrs: Container[str] | None = None) -> str:
        return self._line


def _add(response: HttpResponseBase, name: str, value: str) -> None:
    """Django keeps one value a name: cookies go to its own jar, other repeated headers are joined (RFC 9110 5.2)."""
    if name.lower() == "set-cookie":
        response.cookies[str(len(response.cookies))] = _Cookie(value)
    elif response.has_header(name):
        response[name] = f"{response[name]}, {value}"
    else:
        response[name] = value
