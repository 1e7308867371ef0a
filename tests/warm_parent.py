"""The process from which tests/warm.py's processes are forked. It has imported what every process of the site imports of
other people's, and nothing of ours: settings and apps are loaded by each for itself.

It reads one request a message from the socket whose number is its argument, and ends with that socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
import types
import warnings
from typing import Any

# Found by what a worker, an edge and a migrate import; modules that read Django's settings cannot be among them.
IMPORTED = (
    "celery.apps.worker", "celery.bin.celery", "celery.bin.worker", "celery.concurrency.prefork",
    "celery.concurrency.thread", "celery.events.state", "celery.fixups.django", "celery.utils.dispatch",
    "celery.worker.consumer", "celery.worker.worker", "concurrent.futures.thread", "croniter",
    "cryptography.hazmat.primitives.asymmetric.padding", "cryptography.hazmat.primitives.serialization",
    "django.core.handlers.asgi", "django.core.handlers.wsgi", "django.core.mail", "django.core.management",
    "django.core.paginator", "django.core.serializers.json", "django.core.servers.basehttp",
    "django.db.backends.sqlite3.base", "django.db.migrations.autodetector", "django.db.migrations.executor",
    "django.db.models.functions", "django.db.models.sql", "django.forms.models", "django.middleware.csrf",
    "django.template.backends.django", "django.template.loader_tags", "django.test.client",
    "django.utils.autoreload", "django.views.decorators.csrf", "django.views.generic", "django.views.i18n",
    "email.mime.multipart", "http.server", "inflection", "jsonschema", "jwt", "kombu.transport.redis",
    "kombu.transport.virtual", "logging.config", "multiprocessing.connection", "psycopg", "psycopg_pool",
    "redis.asyncio.cluster", "redis.asyncio.sentinel", "redis.cluster", "redis.sentinel", "requests",
    "rich.console", "rich.progress", "rich.table", "rich.traceback", "structlog", "uvicorn",
    "uvicorn.protocols.http.httptools_impl", "uvloop", "yaml", "zoneinfo", "MySQLdb.cursors",
    "MySQLdb.constants.CLIENT",
)  # fmt: skip
LIMIT_BYTES = 1 << 20


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is pytest's, and closes the socket
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # MySQLdb, for one, may be left out
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with control:
        request = _serve(control)
    if request:
        _run(request["arguments"])


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Returns in each new process, with what it is to be; and with nothing in this one at its end."""
    while True:
        message, files, *_ = socket.recv_fds(control, LIMIT_BYTES, 3)
        if not message:
            return None
        answer, ours = os.pipe()
        middle = os.fork()
        if not middle:
            middle = os.getpid()
            if child := os.fork():
                os.write(ours, b"%d" % child)
                os._exit(0)  # and pytest, the nearest subreaper, is the child's parent from here on
            os.close(answer)
            os.close(ours)
            while os.getppid() == middle:
                time.sleep(0.0005)
            request: dict[str, Any] = json.loads(message)
            _become(request, files)
            return request
        os.close(ours)
        for file in files:
            os.close(file)
        os.waitpid(middle, 0)
        control.send(os.read(answer, 20))
        os.close(answer)


def _become(request: dict[str, Any], files: list[int]) -> None:
    """The state in which the interpreter would have started."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked := os.environ.get("PYTHONWARNINGS"):
        sys.warnoptions[:] = asked.split(",")
        warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    sys.orig_argv[1:] = request["arguments"]


def _run(arguments: list[str]) -> None:
    first, *rest = arguments
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-m":
        sys.argv[:] = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    if first == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        source: str | bytes = rest[0]
    else:
        sys.argv[:] = arguments
        sys.path.insert(0, os.path.dirname(os.path.realpath(first)))
        main.__file__ = first
        with open(first, "rb") as file:
            source = file.read()
    exec(compile(source, "<string>" if first == "-c" else first, "exec"), main.__dict__)


if __name__ == "__main__":
    main()
