"""`python -m benchmarks.database.shop.site fill | asgi PORT | wsgi PORT`: one view with two queries.

BENCH_DATABASE: the entry of DATABASES["default"], as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

ROWS = 1000


def configure(entry: dict[str, Any]) -> None:
    settings.configure(
        DATABASES={"default": entry},
        INSTALLED_APPS=["benchmarks.database.shop"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="benchmark",
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()


def view(request: HttpRequest) -> HttpResponse:
    from benchmarks.database.shop.models import Item

    total = sum(Item.objects.get(pk=random.randint(1, ROWS)).n for _ in range(2))
    body = str(total).encode()
    return HttpResponse(body, headers={"Content-Length": str(len(body))})


urlpatterns = [path("", view)]


def fill(rows: int = ROWS) -> None:
    from django.core.management import call_command

    from benchmarks.database.shop.models import Item

    call_command("migrate", run_syncdb=True, verbosity=0)
    Item.objects.bulk_create(Item(pk=n, name=f"item {n}", n=n) for n in range(1, rows + 1))


def serve_asgi(port: int) -> None:
    import uvicorn
    from django.core.handlers.asgi import ASGIHandler

    uvicorn.run(
        ASGIHandler(), host="127.0.0.1", port=port, lifespan="off", access_log=False, log_level="warning"
    )


def serve_wsgi(port: int) -> None:
    """A thread for each connection of the client, as gunicorn's threads with kept connections."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadedWSGIServer(("127.0.0.1", port), Quiet, ipv6=False)
    server.set_app(WSGIHandler())
    server.serve_forever()


def main() -> None:
    configure(json.loads(os.environ["BENCH_DATABASE"]))
    match sys.argv[1:]:
        case ["fill"]:
            fill()
        case ["asgi", port]:
            serve_asgi(int(port))
        case ["wsgi", port]:
            serve_wsgi(int(port))


if __name__ == "__main__":
    # Django imports the URLs by the module's name.
    from benchmarks.database.shop import site

    site.main()
