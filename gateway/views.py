"""The DRF door: the same pipeline for requests that reach Django itself (`manage.py runserver`), as the last
URL pattern.

WSGI hands over a decoded path, so the path is matched and passed on in one canonical spelling of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import structlog
import urllib3
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import Metric
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, TimeoutError

from foundation import problems, request_id

from . import metrics, pipeline, routing, transform
from .auth import Credentials
from .conf import conf
from .drive import Running, drive
from .issuers import holder
from .limiter import Limiter
from .pipeline import Call, Refusal, Relay, TakeTokens, Target, UpstreamFailed
from .snapshot import Snapshot
from .transform import Arrival, Headers

log = structlog.get_logger(__name__)

CHUNK_BYTES = 65536
tally = metrics.Tally()  # this process's figures; the edge's are its own
_limiter = Limiter()
_rules = threading.Lock()  # the targets' counts are shared by all threads of this process
_pool = urllib3.PoolManager(num_pools=64, maxsize=16, block=False)


def families() -> Iterator[Metric]:
    """The figures of this process's door, read when they are scraped."""
    snapshot = holder.snapshot
    yield from metrics.families([metrics.figures(tally, snapshot.targets, snapshot.version)])


@method_decorator(csrf_exempt, name="dispatch")
class ProxyView(View):
    """Every method; who may call is the pipeline's question, so Django's session and CSRF token play no
    part."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if (
            "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
            and "wsgi.input" in request.META
        ):
            # WSGI has no way to say where such a body ends, and servers differ in what they make of it.
            return problems.response(request, 411, detail="Send a Content-Length: WSGI hides a chunked body.")
        try:
            path = routing.normalise(quote(request.path_info, safe="/%:@!$&'()*+,=~").encode())
        except routing.BadPath as error:
            return problems.response(request, 400, detail=f"The path is ambiguous: {error}.")
        size = request.META.get("CONTENT_LENGTH") or "0"
        limit = conf().MAX_BODY_BYTES
        if not size.isdecimal() or (limit and int(size) > limit):
            return problems.response(
                request, 413 if size.isdecimal() else 400, detail="The body's size is not accepted."
            )
        return _Visit(request, path, holder.refresh_if_due()).answer()


class _Visit:
    """One request through the pipeline, by blocking steps."""

    def __init__(self, request: HttpRequest, path: bytes, snapshot: Snapshot) -> None:
        self.request, self.snapshot = request, snapshot
        self.id = request_id.current() or request_id.new()
        self.headers = [
            (n.encode("latin-1"), v.encode("latin-1", "replace")) for n, v in request.headers.items()
        ]
        self.body_bytes = int(request.META.get("CONTENT_LENGTH") or 0)
        self.response: urllib3.BaseHTTPResponse | None = None
        self.upstream = ""
        given = {name.lower(): value for name, value in self.headers}
        credentials = Credentials(given.get(b"authorization"), given.get(snapshot.api_key_header))
        self.call = Call(
            route=snapshot.router.match(path),
            method=request.method or "",
            credentials=credentials,
            client_ip=request.META.get("REMOTE_ADDR", "unknown"),
            started=time.monotonic(),
            recorder=tally,
        )

    def answer(self) -> HttpResponseBase:
        wall = time.time()  # noqa: TID251  (tokens and keys expire in wall time)
        running = pipeline.steps(self.call, self.snapshot, wall, time.monotonic)
        step = drive(running, self._perform, _rules)
        if isinstance(step, Refusal):
            with _rules:
                running.close()
            self._log()
            return problems.response(
                self.request, step.status, detail=step.detail, headers=dict(step.headers)
            )
        return self._relay(running, step)

    def _perform(self, step: TakeTokens | Target) -> Any:
        if isinstance(step, TakeTokens):
            return _limiter.take(step)
        self.response = self._send(step)
        self.upstream = step.name
        return self.response.status

    def _send(self, target: Target) -> urllib3.BaseHTTPResponse:
        route = self.call.route
        assert route is not None  # noqa: S101  (it has this target)
        request = self.request
        query = request.META.get("QUERY_STRING", "")
        path = quote(request.path_info, safe="/:@!$&'()*+,=~") + (f"?{query}" if query else "")
        try:
            return _pool.urlopen(
                request.method or "",
                f"http://{_bracketed(target.ip)}:{target.port}{path}",
                body=request if self.body_bytes else None,
                headers=self._upstream_headers(target),
                timeout=urllib3.Timeout(connect=conf().CONNECT_TIMEOUT_S, read=route.timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except NewConnectionError as error:
            raise UpstreamFailed("connect", replayable=True) from error
        except ConnectTimeoutError as error:
            raise UpstreamFailed("connect", replayable=True, timed_out=True) from error
        except (HTTPError, OSError) as error:
            safe = not self.body_bytes and request.method in pipeline.IDEMPOTENT
            timed_out = isinstance(error, TimeoutError)
            raise UpstreamFailed(
                "no response", replayable=safe and not timed_out, timed_out=timed_out
            ) from error

    def _upstream_headers(self, target: Target) -> urllib3.HTTPHeaderDict:
        request, route = self.request, self.call.route
        host = request.META.get("HTTP_HOST", "").encode("latin-1")
        scheme = (request.scheme or "http").encode()
        sent = transform.to_upstream(
            [(name, value) for name, value in self.headers if name.lower() != b"content-length"],
            Arrival(self.call.client_ip.encode(), scheme, host, self.id.encode()),
            host=target.name.encode(),
            identity=self.call.identity,
            api_key_header=self.snapshot.api_key_header,
            hide_authorization=route is not None and route.auth_required,
        )
        if self.body_bytes or request.method in ("POST", "PUT", "PATCH"):
            sent.append((b"Content-Length", str(self.body_bytes).encode()))
        known = {name.lower() for name, _ in sent}
        for name in (b"accept-encoding", b"user-agent"):
            if name not in known:  # or urllib3 would add its own
                sent.append((name, urllib3.util.SKIP_HEADER.encode()))
        found = urllib3.HTTPHeaderDict()
        for name, value in sent:
            found.add(name.decode("latin-1"), value.decode("latin-1"))
        return found

    def _relay(self, running: Running, relay: Relay) -> HttpResponseBase:
        response = self.response
        assert response is not None  # noqa: S101  (Relay follows a response)
        stream = _Stream(self, response, running)
        made: HttpResponseBase = StreamingHttpResponse(stream, status=relay.status)
        if self.call.method == "HEAD" or relay.status in (204, 304):
            stream.finish()
            made = HttpResponse(status=relay.status)
        del made["Content-Type"]
        ours: Headers = [(b"X-Request-Id", self.id.encode()), (b"X-Upstream", self.upstream.encode())]
        ours += [(name.encode(), value.encode()) for name, value in pipeline.limit_headers(self.call)]
        received = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in response.headers.items()]
        for name, value in transform.to_client(received, ours):
            _add(made, name.decode("latin-1"), value.decode("latin-1"))
        made.__dict__["xframe_options_exempt"] = True  # the upstream's page, the upstream's headers
        return made

    def _log(self) -> None:
        if conf().ACCESS_LOG:
            call = self.call
            log.info(
                "request",
                method=call.method,
                path=self.request.path_info,
                route=call.route.path if call.route is not None else None,
                status=call.status,
                upstream=self.upstream or None,
                consumer=call.identity.name if call.identity is not None else None,
                duration_ms=round((time.monotonic() - call.started) * 1000, 1),
            )


class _Stream:
    """The response's body. Its end, its failure and a client that went away each give back what the call
    took.

    A class, because closing a generator that was never started would run none of its code.
    """

    def __init__(self, visit: _Visit, response: urllib3.BaseHTTPResponse, running: Running) -> None:
        self._visit, self._response, self._running = visit, response, running
        self._pieces = response.stream(CHUNK_BYTES, decode_content=False)
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            self.finish()
            raise
        except (HTTPError, OSError) as error:
            self._settle(lambda: self._running.throw(UpstreamFailed("broke off")))
            self._response.close()
            # The server cuts the connection: all that can still tell the client that the rest is missing.
            raise ConnectionAbortedError("the upstream broke off") from error

    def finish(self) -> None:
        self._settle(lambda: next(self._running))
        self._response.release_conn()

    def close(self) -> None:
        if self._open:
            self._settle(self._running.close)
            self._response.close()

    def _settle(self, resume: Any) -> None:
        if not self._open:
            return
        self._open = False
        with _rules:
            try:
                resume()
            except StopIteration:
                pass
            finally:
                self._running.close()
        self._visit._log()


def _add(response: HttpResponseBase, name: str, value: str) -> None:
    """Django keeps one value a name: cookies go to its own jar, other repeated headers are joined (RFC 9110
    5.2)."""
    if name.lower() == "set-cookie":
        response.cookies.load(value)
    elif response.has_header(name):
        response[name] = f"{response[name]}, {value}"
    else:
        response[name] = value


def _bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
