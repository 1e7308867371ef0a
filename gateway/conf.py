"""BRAIN["GATEWAY"]: defaults and units. Read `conf()` where a value is used, never at import time."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.conf import Bound, setting


@dataclass(frozen=True, slots=True)
class GatewayConf:
    # --- waiting for the client
    IDLE_TIMEOUT_S: float = setting(75.0, low=0.05, high=3600)  # a connection without a request
    HEADER_TIMEOUT_S: float = setting(
        10.0, low=0.05, high=600
    )  # from a request's first byte to its last header
    BODY_TIMEOUT_S: float = setting(30.0, low=0.05, high=3600)  # between two pieces of a request body
    WRITE_TIMEOUT_S: float = setting(
        60.0, low=0.05, high=3600
    )  # for a client that does not read its response
    TUNNEL_IDLE_S: float = setting(0.0, low=0.0, high=604_800)  # a WebSocket without a byte; 0: no bound
    TUNNEL_PAST_EXPIRY_S: float = setting(
        0.0, low=0.0, high=604_800
    )  # that a WebSocket or event stream may outlive its key or token
    LINGER_S: float = setting(
        2.0, low=0.0, high=60
    )  # to read an answer that came before the request was all sent
    # --- waiting for an upstream; how long it may be silent is each route's own `timeout`
    UPSTREAM_IDLE_S: float = setting(
        4.0, low=0.0, high=3600
    )  # unused connections kept; below the upstream's own
    TIMEOUT_CHECK_S: float = setting(0.25, low=0.01, high=5)  # how often all of these are looked at
    SHUTDOWN_GRACE_S: float = setting(
        5.0, low=0.1, high=300
    )  # for requests under way when the edge is told to stop
    # --- sizes
    MAX_URL_BYTES: int = setting(8192, low=64, high=65536)
    MAX_HEADER_BYTES: int = setting(32768, low=256, high=1048576)  # of all headers together
    MAX_HEADERS: int = setting(100, low=4, high=1000)
    MAX_BODY_BYTES: int = setting(0, low=0, high=1 << 50)  # 0: no limit, bodies are streamed
    MAX_PIPELINED: int = setting(32, low=1, high=1000)  # requests waiting on one connection
    MAX_CONNECTIONS: int = setting(10_000, low=1, high=1_000_000)  # of clients, in each worker
    MAX_EDITED_BYTES: int = setting(
        1_048_576, low=1, high=1 << 30
    )  # of a JSON body that is changed on the way
    # --- where from and where to
    TRUSTED_PROXIES: tuple[str, ...] = setting(
        ()
    )  # CIDR blocks whose X-Forwarded-* and Forwarded are believed
    UNIX_SOCKET_DIRS: tuple[str, ...] = setting(())  # targets may be unix sockets in these directories
    # --- rules
    LIMITER_ON_STORE_DOWN: str = setting(
        "local", choices=("local", "allow", "deny")
    )  # a plan may say otherwise
    LIMITER_TIMEOUT_S: float = setting(0.25, low=0.01, high=10)  # for one answer of the store
    LIMITER_RETRY_S: float = setting(1.0, low=0.0, high=60)  # a store that failed is left alone for so long
    LIMITER_IPV6_PREFIX: int = setting(
        64, low=16, high=128
    )  # addresses that share so many bits are one caller
    JWT_LEEWAY_S: float = setting(30.0, low=0.0, high=300)  # between our clock and the issuers'
    TOKEN_RATE: str = setting("10/m")  # sign-ins for one user name from one address; django-ratelimit's form
    TOKEN_RATE_PER_IP: str = setting("60/m")  # sign-ins from one address
    REFRESH_LIFETIME_S: int = setting(86_400, low=60, high=31_536_000)  # of refresh tokens
    PLUGINS: tuple[str, ...] = setting(())  # dotted paths of the classes that a transformation may name
    # --- configuration
    SNAPSHOT_POLL_S: float = setting(1.0, low=0.05, high=60)  # how soon a change that was not told is found
    SNAPSHOT_FILE: str = setting("")  # a copy to start from without a database; empty: none
    REVISIONS_KEPT: int = setting(100, low=10, high=10_000)  # changes that can be looked at and rolled back
    RESOLVE_S: float = setting(30.0, low=1, high=3600)  # how often the targets' names are looked up again
    LAST_USED_S: float = setting(30.0, low=0.1, high=3600)  # how often the keys' last use is written down
    # --- figures and logs
    METRICS_PUBLISH_S: float = setting(1.0, low=0.05, high=60)  # how old another worker's figures may be
    METRICS_MAX_SERIES: int = setting(10_000, low=100, high=1_000_000)  # in each worker; the rest is "other"
    TRAFFIC_FLUSH_S: float = setting(5.0, low=0.1, high=60)  # how old the admin's traffic figures may be
    ACCESS_LOG: bool = setting(True)  # one JSON line a request
    ACCESS_LOG_FILE: str = setting("")  # "": standard output
    ACCESS_LOG_SAMPLE: float = setting(1.0, low=0.0, high=1.0)  # 1: all; refusals and errors always


conf = Bound("GATEWAY", GatewayConf)
