"""Connections to targets for blocking callers: one urllib3 pool a target, to the address that the guard has checked."""

from __future__ import annotations

import socket
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    SSLError,
    TimeoutError,
)

from .dial import Dial
from .headers import Headers
from .pipeline import Route, UpstreamFailed
from .pool import Target

CONNECTIONS = 32  # kept for each target; more than these are made and closed again


class _UnixConnection(HTTPConnection):
    def __init__(self, *args: Any, path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(self.timeout)
        try:
            made.connect(self._path)
        except OSError as error:
            made.close()
            raise NewConnectionError(self, f"cannot connect: {error.strerror}") from error
        return made


class _UnixPool(HTTPConnectionPool):
    ConnectionCls = _UnixConnection


def pool_of(target: Target) -> HTTPConnectionPool:
    """Kept where the edge keeps its open connections. Two threads may both make one; the later one stays."""
    if target.idle:
        kept: HTTPConnectionPool = target.idle[0]
        return kept
    made = _pool(target.dial)
    target.idle[:] = [made]
    return made


def _pool(dial: Dial) -> HTTPConnectionPool:
    if isinstance(dial.address, str):
        return _UnixPool("localhost", maxsize=CONNECTIONS, path=dial.address)
    host, port = dial.address
    if dial.tls is None:
        return HTTPConnectionPool(host, port, maxsize=CONNECTIONS)
    name = dial.server_name
    return HTTPSConnectionPool(
        host, port, maxsize=CONNECTIONS, ssl_context=dial.tls, server_hostname=name, assert_hostname=name
    )


def send(
    target: Target,
    route: Route,
    method: str,
    uri: bytes,
    headers: Headers,
    body: Any,
    *,
    left_s: float,
    replayable: bool,
) -> urllib3.BaseHTTPResponse:
    """body: None, bytes or a file. left_s: seconds until the whole call has to be over. Raises UpstreamFailed."""
    has_body = body is not None
    try:
        return pool_of(target).urlopen(
            method,
            uri.decode("latin-1"),
            body=body,
            headers=_as_urllib3(headers),
            timeout=urllib3.Timeout(
                connect=min(route.connect_timeout_s, left_s), read=min(route.response_timeout_s, left_s)
            ),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
    except NewConnectionError as error:
        raise UpstreamFailed("connect_failed", written=False, replayable=replayable) from error
    except ConnectTimeoutError as error:
        raise UpstreamFailed("connect_timeout", written=False, replayable=replayable) from error
    except SSLError as error:
        raise UpstreamFailed("tls_failed", written=False, replayable=replayable) from error
    except TimeoutError as error:
        raise UpstreamFailed("response_timeout", timed_out=True) from error
    except (HTTPError, OSError) as error:
        raise UpstreamFailed("upstream_closed", bodiless=not has_body, replayable=replayable) from error


def _as_urllib3(headers: Headers) -> urllib3.HTTPHeaderDict:
    found = urllib3.HTTPHeaderDict()
    for name, value in headers:
        found.add(name.decode("latin-1"), value.decode("latin-1"))
    for needless in ("accept-encoding", "user-agent"):
        if needless not in found:  # or urllib3 would add its own
            found.add(needless, urllib3.util.SKIP_HEADER)
    return found
