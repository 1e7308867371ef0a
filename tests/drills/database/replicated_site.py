"""`python -m tests.drills.database.replicated_site fill | PORT REPLICA_URL…`: a Django site whose reads go to replicas.

`POST /write/ACCOUNT/NUMBER` stores it; `GET /read/ACCOUNT` says the number and the alias that has answered.
"""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from orm_app.databases import from_url

from . import site


def configure(replica_urls: list[str]) -> None:
    replicas = {
        f"replica{n}": from_url(url, replica_of="default") for n, url in enumerate(replica_urls, start=1)
    }
    settings.configure(
        DATABASES={"default": from_url(os.environ["DATABASE_URL"]), **replicas},
        DATABASE_ROUTERS=["orm_app.router.Router"],
        INSTALLED_APPS=["tests.drills.database.bank"],
        MIDDLEWARE=["orm_app.middleware.UnitOfWorkMiddleware"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="drill",
        USE_TZ=True,
        LOGGING_CONFIG=None,
        BRAIN={},
    )
    django.setup()
    from orm_app import router

    router.install()  # as orm_app's AppConfig does


def write(request: HttpRequest, account: int, number: int) -> HttpResponse:
    from .bank.models import Account

    Account.objects.filter(pk=account).update(cents=number)
    return HttpResponse(str(number))


def read(request: HttpRequest, account: int) -> HttpResponse:
    from orm_app import db

    from .bank.models import Account

    found = db.query(Account).where_eq("pk", account).first()
    return HttpResponse(f"{found.cents} {found._state.db}")


urlpatterns = [path("write/<int:account>/<int:number>", write), path("read/<int:account>", read)]


def main() -> None:
    match sys.argv[1:]:
        case ["fill"]:
            configure([])
            site.fill()
        case [port, *replica_urls]:
            configure(replica_urls)
            site.serve_wsgi(int(port))


if __name__ == "__main__":
    # Django imports the URLs by the module's name.
    from tests.drills.database import replicated_site

    replicated_site.main()
