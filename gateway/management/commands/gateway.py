"""`manage.py gateway`: serves the edge; with a subcommand, the configuration from the command line."""

from __future__ import annotations

import errno
import getpass
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from django.core.management.base import CommandParser
from django.utils import timezone

from foundation.commands import DEGRADED, BrainCommand, Failed
from gateway import changes, config
from gateway.conf import conf
from gateway.document import Document
from gateway.errors import InvalidDocument
from gateway.models import Consumer, Route

log = structlog.get_logger(__name__)

RESTART_PAUSE_S = 1.0  # before a worker that ended by itself is started again


class Command(BrainCommand):
    help = "Serve the gateway's edge, or look at and change its configuration."

    def define(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8080, help="port to listen on (default 8080)")
        parser.add_argument(
            "--workers", type=int, default=1, help="processes that share the port (default 1)"
        )
        parser.add_argument("--fd", type=int, help="serve on this inherited listening socket instead")
        parser.add_argument(
            "--figures-dir", type=Path, help="where workers share their figures (set by --workers)"
        )
        self._file(self.verb("import", self.import_, "Apply a YAML document.")).add_argument(
            "--prune", action="store_true", help="delete what the document does not name"
        )
        self.verb("export", self.export, "Print the configuration as YAML, without secrets.")
        self._file(
            self.verb("diff", self.diff, "What import would change; exit code 3 when it would.")
        ).add_argument("--prune", action="store_true", help="as import --prune would")
        self._file(self.verb("validate", self.validate, "Check a YAML document without applying it."))
        self.verb("routes", self.routes, "The routes as a table.")
        key = self.verb("key", self.key, "Make an API key for a consumer and show it once.")
        key.add_argument("action", choices=["create"])
        key.add_argument("consumer")
        key.add_argument("--days", type=int, help="days until it expires (default: never)")

    def _file(self, parser: ArgumentParser) -> ArgumentParser:
        parser.add_argument("file", help="a YAML file, - for standard input")
        return parser

    # --- serving ---

    def bare(self, **options: Any) -> int | None:
        if options["workers"] < 1:
            raise Failed("--workers is at least 1", code=2)
        if options["fd"] is not None:
            listener = socket.socket(fileno=options["fd"])
        else:
            listener = _listen(options["host"], options["port"])
        if options["workers"] > 1:
            return _Workers(listener, options["workers"]).run()
        from gateway import worker  # uvicorn and uvloop are for serving only

        worker.run(worker.Worker(options["figures_dir"]), listener)
        return None

    # --- configuration ---

    def import_(self, **options: Any) -> None:
        document = self._document(options["file"])
        try:
            changed = config.apply(document, actor=getpass.getuser(), source="cli", prune=options["prune"])
        except InvalidDocument as error:
            raise Failed(f"{options['file']}: {error}", hint="Nothing was changed.") from error
        self._changes(changed, "nothing to change")

    def diff(self, **options: Any) -> int | None:
        changed = config.diff(self._document(options["file"]), prune=options["prune"])
        self._changes(changed, "no difference")
        return DEGRADED if changed else None

    def validate(self, **options: Any) -> None:
        document = self._document(options["file"])
        self.line(f"{options['file']} is valid: {len(document.entries)} entries")
        self.document({"valid": True, "warnings": list(document.warnings)})

    def export(self, **options: Any) -> None:
        text = config.export()
        self.line(text.rstrip())
        self.document({"yaml": text})

    def routes(self, **options: Any) -> None:
        rows = [
            (
                route.path,
                " ".join(route.methods) or "all",
                route.service.name,
                ", ".join(target.url for target in route.service.targets.all()),
                route.plan.name if route.plan else None,
                "yes" if route.auth_required else "no",
                " ".join(route.roles) or None,
                route.timeout_s,
            )
            for route in Route.objects.select_related("service", "plan").prefetch_related("service__targets")
        ]
        columns = ("path", "methods", "service", "targets", "plan", "auth", "roles", "timeout_s")
        self.table(columns, rows)

    def key(self, **options: Any) -> None:
        consumer = Consumer.objects.filter(name=options["consumer"]).first()
        if consumer is None:
            known = ", ".join(Consumer.objects.values_list("name", flat=True)[:10]) or "none yet"
            hint = f"Known consumers: {known}. Make one in the admin, or in a document that you import."
            raise Failed(f"there is no consumer {options['consumer']!r}", hint=hint)
        days = options["days"]
        expires_at = timezone.now() + timedelta(days=days) if days else None
        row, text = changes.issue_key(consumer, actor=getpass.getuser(), source="cli", expires_at=expires_at)
        self.line(text)
        self.stderr.write("This is the only time that the key is shown.", lambda text: text)
        self.document(
            {"key": text, "consumer": consumer.name, "prefix": row.prefix, "expires_at": row.expires_at}
        )

    def _document(self, file: str) -> Document:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text()
            document = config.load(text)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Failed(f"{file} cannot be read: {reason}", hint="Give the path to a YAML file.") from error
        except InvalidDocument as error:
            hint = "See docs/gateway.md for the keys and examples/gateway.yaml for a document."
            raise Failed(f"{file}: {error}", hint=hint) from error
        for warning in document.warnings:
            self.stderr.write(f"warning: {warning} (refused in production)", lambda text: text)
        return document

    def _changes(self, changed: list[config.Change], nothing: str) -> None:
        if not changed and not self.is_json:
            self.line(nothing)
            return
        self.table(
            ("verb", "kind", "name", "fields"),
            [(c.verb, c.kind, c.name, ", ".join(c.after or c.before or {})) for c in changed],
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Failed(
                f"port {port} on {host} is in use", hint="Stop what listens there, or give another --port."
            ) from error
        raise Failed(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="Give another --host or --port."
        ) from error
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


class _Workers:
    """N edges on one listening socket. One that ends is started again; a signal ends them all."""

    def __init__(self, listener: socket.socket, count: int) -> None:
        self._listener, self._count = listener, count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopping = threading.Event()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        with tempfile.TemporaryDirectory(prefix="brain-edge-") as figures:
            self._processes = [self._start(figures) for _ in range(self._count)]
            while not self._stopping.wait(RESTART_PAUSE_S):
                for i, process in enumerate(self._processes):
                    if process.poll() is not None and not self._stopping.is_set():
                        log.error("edge_worker_ended", pid=process.pid, code=process.returncode)
                        self._processes[i] = self._start(figures)
            return self._wait()

    def _start(self, figures: str) -> subprocess.Popen[bytes]:
        number = self._listener.fileno()
        command = [sys.executable, sys.argv[0], "gateway", "--fd", str(number), "--figures-dir", figures]
        return subprocess.Popen(command, pass_fds=[number, *_lifeline()])

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _wait(self) -> int:
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + conf().SHUTDOWN_GRACE_S + 2.0
        for process in self._processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # One that was still starting ends by the signal itself.
        return 0 if all(process.returncode in (0, -signal.SIGTERM) for process in self._processes) else 1


def _lifeline() -> list[int]:
    """The supervisor's pipe goes on to the workers, so that none outlives a supervisor that was killed."""
    from foundation import lifeline

    number = os.environ.get(lifeline.VARIABLE)  # noqa: TID251  (the parent process set it)
    return [int(number)] if number and number.isdecimal() else []
