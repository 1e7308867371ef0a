"""The option file of MySQL's programs: how to reach a server, with the password, readable by us alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import clients


@contextlib.contextmanager
def file(connection: Any) -> Iterator[Path]:
    with clients.secret_file(text(connection.settings_dict)) as path:
        yield path


def text(settings: dict[str, Any]) -> str:
    options = settings.get("OPTIONS", {})
    host = str(options.get("host", settings.get("HOST")) or "")
    ssl = options.get("ssl") or {}
    given = {
        "user": options.get("user", settings.get("USER")),
        "password": options.get("password", options.get("passwd", settings.get("PASSWORD"))),
        "socket": options.get("unix_socket") or (host if host.startswith("/") else ""),
        "host": "" if host.startswith("/") else host,
        "port": options.get("port", settings.get("PORT")),
        "ssl-ca": ssl.get("ca"),
        "ssl-cert": ssl.get("cert"),
        "ssl-key": ssl.get("key"),
    }
    lines = [f"!include {options['read_default_file']}"] if options.get("read_default_file") else []
    return "\n".join(
        [*lines, "[client]", *(_line(name, value) for name, value in given.items() if value), ""]
    )


def _line(name: str, value: Any) -> str:
    """Backslashes are escapes there, and the outer quotes keep what a # or a space would end."""
    escaped = str(value).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f'{name}="{escaped}"'
