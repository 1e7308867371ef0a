"""How the URL of a Redis or Valkey server is written for this transport."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

# Scheme → class in connection.py. Not `brain+redis`: Kombu cuts a scheme at its `+` and leaves the rest of the first
# URL unread (no host, no password), but reads the alternates behind a `;` in full.
SCHEMES = {
    "brain-redis": "Transport",
    "brain-rediss": "TLSTransport",
    "brain-sentinel": "SentinelTransport",
}

_OURS = {
    "redis": "brain-redis",
    "valkey": "brain-redis",
    "rediss": "brain-rediss",
    "valkeys": "brain-rediss",
    "sentinel": "brain-sentinel",
}
_SOCKET = "brain-redis+socket"  # Kombu's own spelling of a unix socket: transport, plus, an inner URL
_SOCKETS = {"unix": _SOCKET, "redis+socket": _SOCKET}
_TLS_OPTIONS = {
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
}


def transport_url(url: str) -> str:
    """The broker URL for the server behind `url`, as redis-py, django-redis or Kombu would write it.

    Alternates behind `;` are kept. A URL of this transport, or of another broker (amqp, memory), is returned as it is.
    ValueError: an option that a broker URL cannot carry, Redis Cluster, or alternates of different kinds.
    """
    parts = [_one(part) for part in url.split(";")]
    if len({_scheme(part) for part in parts}) > 1:
        raise ValueError("the alternates of a broker URL must have one scheme")
    return ";".join(parts)


def _one(url: str) -> str:
    scheme = _scheme(url)
    if "cluster" in scheme:
        raise ValueError(
            f"{scheme}: Redis Cluster cannot be the broker; name one server, Sentinels or RabbitMQ here, see docs/transport.md"
        )
    if "+sentinel" in scheme:
        raise ValueError(
            f"{scheme}: a broker's Sentinels are written sentinel://host:26379/0;sentinel://host:26379/0, and the service"
            " is BRAIN_SENTINEL_MASTER (master_name), see docs/transport.md"
        )
    if scheme in _SOCKETS:
        return _socket_url(url)
    if scheme in _OURS:
        return _network_url(url, _OURS[scheme])
    return url


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _network_url(url: str, scheme: str) -> str:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    database = options.pop("db", None) or options.pop("virtual_host", None) or parts.path.strip("/") or "0"
    allowed = _TLS_OPTIONS if scheme == "brain-rediss" else frozenset[str]()
    _refuse(options.keys() - allowed, url)
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{parts.netloc}/{database}{query}"


def _socket_url(url: str) -> str:
    parts = urlsplit(f"//{url.partition('://')[2]}", scheme="unix")
    options = dict(parse_qsl(parts.query))
    database = options.pop("db", None) or options.pop("virtual_host", None) or "0"
    user = options.pop("username", None) or parts.username or ""
    password = options.pop("password", None) or parts.password or ""
    _refuse(set(options), url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    return f"{_SOCKET}://{login}{parts.path}?virtual_host={database}"


def _refuse(options: set[str], url: str) -> None:
    if options:
        names = ", ".join(sorted(options))
        raise ValueError(
            f"{_scheme(url)}: a broker URL cannot carry {names}; set BROKER_URL without it, and Celery's"
            " broker_transport_options instead"
        )
