"""A target's URL, read: `http://host:port`, `https://host:port` or `unix:/path/of/socket`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """scheme: http, https or unix. name: as shown to clients. path: of a unix socket."""

    scheme: str
    name: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def host_header(self) -> bytes:
        return b"localhost" if self.scheme == "unix" else self.name.encode()


def check_socket(path: str, directories: Sequence[str]) -> None:
    """Raises ValueError for a socket outside of these directories: others on the machine are not for the gateway
    (a container engine's would hand over the host). Symbolic links are followed."""
    real = os.path.realpath(path)
    if not any(
        os.path.commonpath((real, os.path.realpath(one))) == os.path.realpath(one) for one in directories
    ):
        raise ValueError(f"{path} is in none of the directories of BRAIN['GATEWAY']['UNIX_SOCKET_DIRS']")


def read(url: str) -> Origin:
    """Raises ValueError with what is wrong."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/") or "\0" in path or len(path) > 100:
            raise ValueError("a unix socket is unix:/path, absolute and of at most 100 characters")
        return Origin("unix", f"unix:{path}", path=path)
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("a target is http://host:port, https://host:port or unix:/path")
    if parts.path or parts.query or parts.fragment or set("?#@") & set(url):
        raise ValueError("a target has no path, query or user: the route's own path is passed on")
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise ValueError(f"{parts.netloc!r} has no good port") from error
    if not parts.hostname:
        raise ValueError("a target names a host")
    return Origin(parts.scheme, parts.netloc, parts.hostname, port)
