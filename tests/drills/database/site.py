"""`python -m tests.drills.database.site fill | asgi PORT | wsgi PORT`: a Django site on DATABASE_URL.

`GET /mark/NAME` writes one row in a transaction and reads it back in another; `GET /amark/NAME` in an async one.
"""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from orm_app.databases import from_url

ACCOUNTS = 20
CENTS = 1_000_000  # each at the beginning


def configure() -> None:
    settings.configure(
        DATABASES={"default": from_url(os.environ["DATABASE_URL"])},
        INSTALLED_APPS=["tests.drills.database.bank"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="drill",
        USE_TZ=True,
        LOGGING_CONFIG=None,
        BRAIN={},
    )
    django.setup()


def mark(request: HttpRequest, name: str) -> HttpResponse:
    from orm_app import db

    from .bank.models import Account, Mark

    with db.transaction():
        Mark.objects.create(name=name)
        Account.objects.filter(pk=1 + len(name) % ACCOUNTS).exists()
    found = Mark.objects.filter(name=name).exists()
    return HttpResponse(name if found else "gone", content_type="text/plain")


async def amark(request: HttpRequest, name: str) -> HttpResponse:
    """In its own thread and on its own connection."""
    from orm_app import db

    from .bank.models import Mark

    async with db.transaction():
        await Mark.objects.acreate(name=name)
    return HttpResponse(name, content_type="text/plain")


def pool(request: HttpRequest) -> JsonResponse:
    from orm_app import pools

    (one,) = pools.stats("default")
    return JsonResponse({"in_use": one.in_use, "waiting": one.waiting, "size": one.size})


urlpatterns = [path("mark/<name>", mark), path("amark/<name>", amark), path("pool", pool)]


def fill(accounts: int = ACCOUNTS) -> None:
    from django.core.management import call_command

    from .bank.models import Account

    call_command("migrate", run_syncdb=True, verbosity=0)
    Account.objects.bulk_create(Account(pk=n, cents=CENTS) for n in range(1, accounts + 1))


def serve_asgi(port: int) -> None:
    import uvicorn
    from django.core.handlers.asgi import ASGIHandler

    uvicorn.run(
        ASGIHandler(), host="127.0.0.1", port=port, lifespan="off", access_log=False, log_level="error"
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
    configure()
    match sys.argv[1:]:
        case ["fill", *accounts]:
            fill(*map(int, accounts))
        case ["asgi", port]:
            serve_asgi(int(port))
        case ["wsgi", port]:
            serve_wsgi(int(port))


if __name__ == "__main__":
    # Django imports the URLs by the module's name.
    from tests.drills.database import site

    site.main()
