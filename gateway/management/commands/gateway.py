"""`manage.py gateway`: serves the edge; with a subcommand, the configuration from the command line."""

from __future__ import annotations

import gc
import getpass
import socket
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from foundation import lifeline
from foundation.commands import USAGE, BrainCommand, Failed
from gateway import supervisor
from gateway.management.cut_verbs import CutVerbs
from gateway.management.document_verbs import DocumentVerbs
from gateway.management.history_verbs import HistoryVerbs
from gateway.management.key_verbs import KeyVerbs
from gateway.management.route_verbs import RouteVerbs
from gateway.tls import Certificate

_TLS = ("tls-cert", "tls-key")


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
        parser.add_argument(
            "--tls-cert", type=Path, metavar="FILE", help="speak TLS with this certificate chain (PEM)"
        )
        parser.add_argument(
            "--tls-key", type=Path, metavar="FILE", help="its key (PEM); without it, in --tls-cert's file"
        )
        for verbs in (DocumentVerbs, HistoryVerbs, RouteVerbs, KeyVerbs, CutVerbs):
            verbs(self, trace).define()

    def bare(self, **options: Any) -> int | None:
        if options["workers"] < 1:
            raise Failed("--workers is at least 1", code=USAGE)
        certificate = _certificate(options["tls_cert"], options["tls_key"])
        if options["fd"] is not None:
            lifeline.follow()
            listener = socket.socket(fileno=options["fd"])
        else:
            listener = supervisor.listen(options["host"], options["port"])
        if options["workers"] > 1:
            files = [
                f"--{name}={options[name.replace('-', '_')]}"
                for name in _TLS
                if options[name.replace("-", "_")]
            ]
            gc.freeze()  # looking at it all once more, at the end, would take half a second of every stop
            return supervisor.Workers(listener, options["workers"], files).run()
        from gateway import worker  # uvicorn and uvloop are for serving only

        worker.run(worker.Worker(options["figures_dir"], certificate=certificate), listener)
        return None


def _certificate(cert: Path | None, key: Path | None) -> Certificate | None:
    """Raises Failed, also where workers would find it out by themselves, one after the other."""
    if cert is None:
        if key is not None:
            raise Failed("--tls-key goes with --tls-cert", code=USAGE)
        return None
    try:
        return Certificate(cert, key)
    except ValueError as error:
        hint = "Give the certificate chain and its key in PEM: --tls-cert FILE --tls-key FILE."
        raise Failed(str(error), hint=hint, code=USAGE) from error


def trace() -> dict[str, Any]:
    """Who acts, as audit.by says it."""
    return {"actor": getpass.getuser(), "source": "cli"}
