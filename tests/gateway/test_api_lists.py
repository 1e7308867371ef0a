"""Lists of the gateway's API: filters, orders, pages, and what they cost."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from foundation import roles
from gateway.models import (
    ApiKey,
    Consumer,
    JwtIssuer,
    Plan,
    Revision,
    RevokedToken,
    Route,
    Service,
    Target,
    TokenCut,
    Transform,
)
from tests.foundation.people import client_of

from . import api_rows as rows
from .api_rows import names, pointers, problem, send

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER)


def test_routes__each_filter__the_rows_that_it_means(viewer: Client) -> None:
    billing, mail, gold = rows.service(), rows.service("mail"), rows.plan()
    rows.route(billing, "/invoices", plan=gold, hosts=["api.example.com", "*.example.org"])
    rows.route(mail, "/mail", enabled=False, hosts=["example.com"])
    rows.route(billing, "/v2/invoices")
    for query, expected in {
        "": ["/invoices", "/mail", "/v2/invoices"],
        "name=/mail": ["/mail"],
        "search=INV": ["/invoices", "/v2/invoices"],
        "path=voices": ["/invoices", "/v2/invoices"],
        "service=mail": ["/mail"],
        "plan=gold": ["/invoices"],
        "enabled=false": ["/mail"],
        "enabled=true&search=v2": ["/v2/invoices"],
        "host=api.example.com": ["/invoices"],
        "host=*.example.org": ["/invoices"],
        "host=example.com": ["/mail"],
        "host=%22": [],
        "service=none": [],
        "ordering=-name": ["/v2/invoices", "/mail", "/invoices"],
    }.items():
        assert names(send(viewer, "GET", f"routes?{query}")) == expected, query


def test_targets_transforms_plans_consumers__filters__the_rows_that_they_mean(viewer: Client) -> None:
    billing = rows.service()
    rows.target(billing, state="off")
    rows.target(rows.service("mail"), "http://127.0.0.1:9002")
    rows.transform(rows.route(billing), plugin="tests.gateway.documents.Deep", settings={"depth": []})
    rows.consumer("robot", plan=rows.plan(), enabled=False)
    rows.consumer("human")
    for query, field, expected in (
        ("targets?state=off", "service", ["billing"]),
        ("targets?service=mail", "service", ["mail"]),
        ("targets?url=http://127.0.0.1:9002", "service", ["mail"]),
        ("services/billing/targets?state=active", "service", []),
        ("transforms?route=/invoices&plugin=tests.gateway.documents.Deep&enabled=true", "name", ["stamp"]),
        ("transforms?service=billing", "name", []),
        ("consumers?plan=gold", "name", ["robot"]),
        ("consumers?enabled=true", "name", ["human"]),
        ("plans?search=ol", "name", ["gold"]),
        ("services?name=mail", "name", ["mail"]),
    ):
        assert names(send(viewer, "GET", query), field) == expected, query


def test_keys__by_state__active_expired_revoked(viewer: Client) -> None:
    robot = rows.consumer()
    kept, expired, gone = (rows.key(robot) for _ in range(3))
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    ApiKey.objects.filter(pk=gone.pk).update(revoked_at=timezone.now())
    for state, key in {"active": kept, "expired": expired, "revoked": gone}.items():
        for address in ("keys", "consumers/robot/keys"):
            (row,) = send(viewer, "GET", f"{address}?state={state}").json()["results"]
            assert (row["id"], row["state"]) == (key.pk, state)
    assert names(send(viewer, "GET", f"keys?prefix={kept.prefix}"), "id") == [kept.pk]
    assert names(send(viewer, "GET", "keys?consumer=human"), "id") == []


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("routes?servcie=billing", "/servcie"),
        ("routes?enabled=yes", "/enabled"),
        ("routes?name=a%00", "/name"),
        ("routes?page_size=0", "/page_size"),
        ("routes?page_size=501", "/page_size"),
        ("routes?page_size=many", "/page_size"),
        ("routes?ordering=roles", "/ordering"),
        ("targets?state=on", "/state"),
        ("services/billing/targets?service=mail", "/service"),
        ("keys?state=new", "/state"),
    ],
)
def test_list__parameter_that_means_nothing__400_that_names_it(viewer: Client, query: str, at: str) -> None:
    rows.service()
    assert pointers(send(viewer, "GET", query)) == [at]


def test_list__misspelt_filter__told_what_was_meant(viewer: Client) -> None:
    (error,) = problem(send(viewer, "GET", "routes?servcie=billing"), 400)["errors"]
    assert error["detail"] == "is not known here; did you mean service?"


def test_list__pages__each_row_once_there_and_back(viewer: Client) -> None:
    billing = rows.service()
    Route.objects.bulk_create(Route(name=f"r{i:02}", path=f"/{i % 2}", service=billing) for i in range(25))
    for ordering in ("name", "-name", "path", "-path", "created_at", "-id"):
        there = _walk(viewer, f"routes?page_size=10&ordering={ordering}", "next")
        assert [len(page) for page in there] == [10, 10, 5]
        assert len({name for page in there for name in page}) == 25
    back = _walk(viewer, "routes?page_size=10", "next", "previous")
    assert [name for page in back[3:][::-1] for name in page] == [name for page in back[:2] for name in page]


def _walk(client: Client, first: str, *directions: str) -> list[list[str]]:
    pages, url = [], f"{rows.BASE}/{first}"
    answer = client.get(url)
    pages.append(names(answer))
    for direction in directions:
        while url := answer.json()[direction]:
            answer = client.get(url)
            pages.append(names(answer))
    return pages


@pytest.mark.parametrize(
    "cursor", ["?", "bm90aGluZw==", "cD1hYmM=", "cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk="]
)
def test_list__cursor_that_somebody_made_up__404_or_a_page(viewer: Client, cursor: str) -> None:
    rows.target(rows.service())
    for ordering in ("id", "-id", "url"):
        answer = send(viewer, "GET", f"targets?ordering={ordering}&cursor={cursor}")
        assert answer.status_code in (200, 404)


# --- what lists cost -----------------------------------------------------------------------------------------------------


def _many(first: int, last: int) -> None:
    """Rows of every noun, each with a service, a route, a consumer and a plan of its own."""
    span = range(first, last)
    plans = Plan.objects.bulk_create(Plan(name=f"p{i}", requests_per_hour=1) for i in span)
    services = Service.objects.bulk_create(Service(name=f"s{i}") for i in span)
    Target.objects.bulk_create(Target(service=one, url="http://127.0.0.1:1") for one in services)
    routes = Route.objects.bulk_create(
        Route(name=f"r{i}", path=f"/{i}", service=one, plan=plan)
        for i, one, plan in zip(span, services, plans, strict=True)
    )
    Transform.objects.bulk_create(Transform(name=f"t{one.name}", route=one) for one in routes)
    consumers = Consumer.objects.bulk_create(
        Consumer(name=f"c{i}", plan=plan) for i, plan in zip(span, plans, strict=True)
    )
    ApiKey.objects.bulk_create(ApiKey(consumer=one, digest=f"{one.pk:064}") for one in consumers)
    JwtIssuer.objects.bulk_create(JwtIssuer(name=f"i{i}") for i in span)
    RevokedToken.objects.bulk_create(RevokedToken(jti=f"j{i}", expires_at=timezone.now()) for i in span)
    now = timezone.now()
    TokenCut.objects.bulk_create(TokenCut(subject=f"s{i}", issued_until=now, expires_at=now) for i in span)
    Revision.objects.bulk_create(Revision(version=i + 1, actor="x", source="cli") for i in span)


LISTS = (
    "services", "targets", "routes", "transforms", "plans", "consumers", "keys", "issuers", "revoked-tokens",
    "token-cuts", "revisions",
)  # fmt: skip


def test_lists__forty_rows__as_many_queries_as_ten(viewer: Client) -> None:
    def counted(noun: str, expected: int) -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert len(send(viewer, "GET", f"{noun}?page_size=100").json()["results"]) == expected
        return len(queries)

    _many(0, 10)
    few = {noun: counted(noun, 10) for noun in LISTS}
    _many(10, 40)
    assert {noun: counted(noun, 40) for noun in LISTS} == few
    assert set(few.values()) == {4}  # session, user, roles, rows


def test_routes__five_thousand__a_page_of_a_hundred_at_once(viewer: Client) -> None:
    billing = rows.service()
    Route.objects.bulk_create(
        (Route(name=f"r{i:04}", path=f"/{i}", service=billing) for i in range(5000)), batch_size=500
    )
    began = time.thread_time()  # of the work, however long the machine lets it wait
    answer = send(viewer, "GET", "routes?page_size=100&search=r&ordering=-name")
    assert time.thread_time() - began < 1.0
    assert names(answer)[0] == "r4999"
    assert len(answer.json()["results"]) == 100
