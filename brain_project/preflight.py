"""What must be true before children start: each broken thing is one line that names the cause and the fix."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import Error as DatabaseError

from foundation.commands import Failed


def ports_are_free(host: str, ports: dict[str, int]) -> None:
    """ports: option name → number. Raises Failed for the first one that somebody else listens on."""
    for option, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            try:
                probe.bind((host, port))
            except OSError as error:
                raise Failed(
                    _port_problem(error, port),
                    hint=f"Stop that program, or choose another: {option} {port + 10}.",
                ) from error


def _port_problem(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by another program"
    return f"port {port} cannot be used: {error.strerror}"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def database_answers() -> None:
    direct = connection.copy()  # a pool would try again for seconds and then hide the reason
    direct.settings_dict["OPTIONS"].pop("pool", None)
    try:
        direct.ensure_connection()
        direct.close()
    except (DatabaseError, OSError) as error:
        source = "DATABASE_URL" if settings.DATABASE_URL else "the embedded database"
        reason = str(error).strip().splitlines()[-1]
        hint = "Check host, port, user and password, and that the server runs."
        if not settings.DATABASE_URL:
            hint = f"Check the permissions of {settings.BRAIN_DATA_DIR}, or set BRAIN_DATA_DIR."
        raise Failed(f"{source} does not answer: {reason}", hint=hint) from error


def pending_migrations() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def redis_answers() -> None:
    from cache_app import health

    found = health.check()
    if not found.ok:
        raise Failed(
            f"REDIS_URL ({without_password(settings.REDIS_URL)}) does not answer: {found.detail}",
            hint="Start that server."
            if settings.PRODUCTION
            else "Start that server, or unset REDIS_URL to use the embedded Valkey.",
        )


def broker_answers() -> None:
    from queue_app import health

    if "+socket://" in settings.BROKER_URL and settings.EMBEDDED_REDIS:
        return  # the embedded Valkey, which has just answered
    found = health.check()
    if not found.ok:
        raise Failed(
            f"BROKER_URL ({without_password(settings.BROKER_URL)}) does not answer: {found.detail}",
            hint="Start that broker, or unset BROKER_URL to use Redis.",
        )


def without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
