"""The rows of the configuration over REST: made, read, changed, put and deleted, each through changes.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from django.test import Client

from foundation import roles
from foundation.models import AuditEntry
from gateway.models import Configuration, Consumer, Plan, Route, Service, Target, Transform
from tests.foundation.people import client_of

from . import api_rows as rows
from .api_rows import BASE, names, pointers, problem, send

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin() -> Client:
    return client_of(roles.ADMIN)


@pytest.fixture
def invoices() -> Route:
    return rows.route(rows.service())


# Of each noun that has a name: a body that makes one, a change of it and the same in the database's words.
BODIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "services": ({"name": "mail", "strategy": "p2c"}, {"retries": 0}),
    "routes": (
        {"name": "new", "path": "/new", "service": "billing", "methods": ["GET"], "hosts": ["*.example.com"]},
        {"timeout_s": 5.5},
    ),
    "transforms": ({"name": "t", "route": "/invoices", "request": {}}, {"position": 3}),
    "plans": ({"name": "gold", "requests_per_minute": 60}, {"burst_limit": 10}),
    "consumers": ({"name": "robot", "roles": ["viewer"], "scopes": ["a:b"]}, {"roles": ["operator"]}),
    "issuers": ({"name": "partner", "algorithm": "HS512", "secret": rows.SECRET}, {"audience": "us"}),
}


@pytest.mark.parametrize("noun", BODIES)
def test_row__made_read_changed_deleted__audited_and_a_version_each(
    admin: Client, invoices: Route, noun: str
) -> None:
    body, change = BODIES[noun]
    version = Configuration.objects.get().version
    made = send(admin, "POST", noun, body)
    assert made.status_code == 201, made.content
    assert {name: made.json()[name] for name in body if name != "secret"} == {
        name: value for name, value in body.items() if name != "secret"
    }
    where = made["Location"].removeprefix(f"http://testserver{BASE}/")
    assert where == f"{noun}/{made.json()['id']}"
    assert send(admin, "GET", f"{noun}/{body['name']}").json() == made.json()
    changed = send(admin, "PATCH", where, change)
    assert changed.json() == made.json() | change
    assert send(admin, "DELETE", where).status_code == 204
    problem(send(admin, "GET", where), 404)
    assert Configuration.objects.get().version == version + 3
    entries = list(AuditEntry.objects.filter(source="api").order_by("pk"))
    assert [entry.action.partition(".")[2] for entry in entries] == ["create", "update", "delete"]
    assert {(entry.actor, entry.ip, bool(entry.request_id)) for entry in entries} == {
        ("some-admin", "127.0.0.1", True)
    }
    (field,) = change
    assert (entries[1].before or {})[field] != (entries[1].after or {})[field] == change[field]
    assert rows.SECRET not in str([(entry.before, entry.after) for entry in entries])


def test_row__name_with_slashes_and_a_name_of_digits__by_name_and_by_id(
    admin: Client, invoices: Route
) -> None:
    for address in ("routes//invoices", "routes/%2Finvoices", f"routes/{invoices.pk}"):
        assert send(admin, "GET", address).json()["id"] == invoices.pk
    digits = rows.plan("12345678")
    assert "There is no plan" in problem(send(admin, "GET", "plans/12345678"), 404)["detail"]
    assert send(admin, "GET", f"plans/{digits.pk}").json()["name"] == "12345678"


@pytest.mark.parametrize("ref", ["nothing", "0", "9" * 18, "9" * 40, "a%00b", "%D9%A1", "a/targets/b"])
def test_row__address_of_nothing__404(admin: Client, ref: str) -> None:
    problem(send(admin, "GET", f"services/{ref}"), 404)
    problem(send(admin, "DELETE", f"services/{ref}"), 404)


@pytest.mark.parametrize(
    ("noun", "body", "at"),
    [
        ("services", {"name": "x", "stratgey": "p2c"}, "/stratgey"),
        ("services", {"name": "x", "strategy": "best"}, "/strategy"),
        ("services", {"name": "x", "connect_timeout_s": -1}, "/connect_timeout_s"),
        ("services", {"name": "x", "strategy": "consistent_hash"}, "/hash_on"),
        ("services", {"name": "x y"}, "/name"),
        ("services", {"name": "billing"}, "/name"),
        ("services", {}, "/name"),
        ("services", [], ""),
        ("targets", {"service": "billing", "url": "ftp://x"}, "/url"),
        ("targets", {"service": "billing", "url": "http://169.254.169.254"}, "/url"),
        ("targets", {"service": "mail", "url": "http://127.0.0.1:1"}, "/service"),
        ("targets", {"service": "billing", "url": "http://127.0.0.1:1", "weight": 0}, "/weight"),
        ("routes", {"path": "/admin/x", "service": "billing"}, "/path"),
        ("routes", {"path": "x", "service": "billing"}, "/path"),
        ("routes", {"path": "/x", "service": "mail"}, "/service"),
        ("routes", {"path": "/x", "service": "billing", "methods": ["GET", "LOOK"]}, "/methods/1"),
        ("routes", {"path": "/x", "service": "billing", "roles": ["king"]}, "/roles/0"),
        ("routes", {"path": "/x", "service": "billing", "hosts": ["UPPER"]}, "/hosts"),
        ("routes", {"path": "/x", "service": "billing", "headers": {"a b": "c"}}, "/headers"),
        ("routes", {"name": "x", "path": "/x(", "path_kind": "regex", "service": "billing"}, "/path"),
        ("transforms", {"name": "t"}, "/route"),
        ("transforms", {"name": "t", "route": "/invoices", "request": []}, "/request"),
        ("plans", {"name": "p"}, ""),
        ("plans", {"name": "p", "requests_per_minute": 0}, "/requests_per_minute"),
        ("consumers", {"name": "c", "plan": "none"}, "/plan"),
        ("consumers", {"name": "c\u0000"}, "/name"),
    ],
)
def test_create__bad_body__400_that_names_the_field(
    admin: Client, invoices: Route, noun: str, body: Any, at: str
) -> None:
    assert pointers(send(admin, "POST", noun, body)) == [at]


def test_create__misspelt_field_or_choice__told_what_was_meant(admin: Client) -> None:
    (error,) = problem(send(admin, "POST", "services", {"name": "x", "stratgey": "p2c"}), 400)["errors"]
    assert error["detail"] == "is not known here; did you mean strategy?"
    (error,) = problem(send(admin, "POST", "services", {"name": "x", "strategy": "p2"}), 400)["errors"]
    assert error["detail"].startswith("is not one of round_robin, ")


def test_create__name_that_nobody_has__told_which_was_meant(admin: Client, invoices: Route) -> None:
    for body, told in (
        ({"path": "/x", "service": "biling"}, "there is no service 'biling'; did you mean 'billing'?"),
        ({"path": "/x", "service": "nothing-like-it"}, "there is no service 'nothing-like-it'"),
        ({"path": "/x", "service": "\x00"}, "there is no service '\\x00'"),
    ):
        (error,) = problem(send(admin, "POST", "routes", body), 400)["errors"]
        assert (error["pointer"], error["detail"]) == ("/service", told)


def test_create__broken_json_or_another_type__400_and_415(admin: Client) -> None:
    url = f"{BASE}/plans"
    problem(admin.post(url, "{", content_type="application/json"), 400)
    problem(admin.post(url, {"name": "gold"}), 415)


@pytest.mark.parametrize("body", ["[" * 50_000, '{"name":' * 5_000], ids=["lists", "objects"])
def test_create__json_without_a_bottom__400(admin: Client, body: str) -> None:
    for noun in ("services", "token"):
        answer = admin.post(f"{BASE}/{noun}", body, content_type="application/json")
        assert "nested too deep" in problem(answer, 400)["detail"]


def test_options__row_and_no_row__answered(admin: Client, invoices: Route) -> None:
    for ref in (invoices.pk, "nope"):
        assert send(admin, "OPTIONS", f"routes/{ref}").status_code == 200


def test_create__route_without_a_name__named_by_its_path(admin: Client, invoices: Route) -> None:
    made = send(admin, "POST", "routes", {"path": "/a/{id}", "path_kind": "template", "service": "billing"})
    assert made.json()["name"] == "/a/{id}"
    assert send(admin, "GET", "routes//a/%7Bid%7D").json() == made.json()


# --- PUT ---------------------------------------------------------------------------------------------------------------


def test_put__twice__made_once_then_as_it_is(admin: Client) -> None:
    body = {"requests_per_minute": 60, "burst_limit": 5}
    first, second = (send(admin, "PUT", "plans/gold", body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert Plan.objects.get().burst_limit == 5


@pytest.mark.parametrize("noun", BODIES)
def test_put__field_left_out__back_to_its_default(admin: Client, invoices: Route, noun: str) -> None:
    body, change = BODIES[noun]
    made = send(admin, "PUT", f"{noun}/{body['name']}", body).json()
    send(admin, "PATCH", f"{noun}/{body['name']}", change)
    assert send(admin, "PUT", f"{noun}/{body['name']}", body).json() == made
    assert send(admin, "PUT", f"{noun}/{made['id']}", body).json() == made


def test_put__what_get_answered__taken_as_it_is(admin: Client, invoices: Route) -> None:
    before = send(admin, "GET", "routes//invoices").json()
    assert send(admin, "PUT", "routes//invoices", before).json() == before


def test_put__other_name_or_an_unknown_id__refused(admin: Client) -> None:
    assert pointers(send(admin, "PUT", "plans/gold", {"name": "silver", "requests_per_hour": 1})) == ["/name"]
    problem(send(admin, "PUT", "plans/17", {"name": "silver", "requests_per_hour": 1}), 404)
    assert pointers(send(admin, "PUT", "plans/a%00b", {"requests_per_hour": 1})) == ["/name"]
    assert not Plan.objects.exists()


def test_patch__name__renamed_and_found_by_the_new_one(admin: Client, invoices: Route) -> None:
    assert send(admin, "PATCH", "services/billing", {"name": "payments"}).status_code == 200
    problem(send(admin, "GET", "services/billing"), 404)
    assert send(admin, "GET", "routes//invoices").json()["service"] == "payments"


# --- ETags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_if_match__somebody_elses_change_came_first__412_and_nothing_written(
    admin: Client, method: str
) -> None:
    rows.plan()
    mine = send(admin, "GET", "plans/gold")["ETag"]
    theirs = send(admin, "PATCH", "plans/gold", {"burst_limit": 7}, If_Match=mine)
    assert theirs["ETag"] == send(admin, "GET", "plans/gold")["ETag"] != mine
    body = {"requests_per_minute": 1}
    problem(send(admin, method, "plans/gold", body, If_Match=mine), 412)
    problem(send(admin, method, "plans/gold", body, If_Match=f"W/{theirs['ETag']}"), 412)
    assert Plan.objects.get().burst_limit == 7
    answer = send(admin, method, "plans/gold", body, If_Match=f'"other", {theirs["ETag"]}')
    assert answer.status_code in (200, 204)


def test_if_match__on_put__star_replaces_alone_and_if_none_match_makes_alone(admin: Client) -> None:
    body = {"requests_per_minute": 1}
    problem(send(admin, "PUT", "plans/gold", body, If_Match="*"), 412)
    assert send(admin, "PUT", "plans/gold", body, If_None_Match="*").status_code == 201
    problem(send(admin, "PUT", "plans/gold", body, If_None_Match="*"), 412)
    assert send(admin, "PUT", "plans/gold", body, If_Match="*").status_code == 200


def test_if_none_match__version_that_is_known__304_without_a_body(admin: Client) -> None:
    rows.plan()
    etag = send(admin, "GET", "plans/gold")["ETag"]
    again = send(admin, "GET", "plans/gold", If_None_Match=f"W/{etag}")
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", etag)
    assert send(admin, "GET", "plans/gold", If_None_Match='"other"').status_code == 200


@pytest.mark.django_db(transaction=True)
def test_if_match__two_at_the_same_moment__one_of_them_wins() -> None:
    clients = [client_of(roles.ADMIN), client_of(roles.OPERATOR)]
    row = rows.target(rows.service())

    def change(client: Client, weight: int, etag: str) -> int:
        try:
            answer = send(client, "PATCH", f"targets/{row.pk}", {"weight": weight}, If_Match=etag)
            return int(answer.status_code)
        finally:
            connections.close_all()

    for weight in (2, 4, 6, 8):
        etag = send(clients[0], "GET", f"targets/{row.pk}")["ETag"]
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(change, clients, (weight, weight + 1), (etag, etag))
            assert sorted(answers) == [200, 412]


# --- deleting ------------------------------------------------------------------------------------------------------------


def test_delete__row_that_others_need__409_that_names_them(admin: Client, invoices: Route) -> None:
    for i in range(6):
        rows.route(invoices.service, f"/r{i}")
    told = problem(send(admin, "DELETE", "services/billing"), 409)["detail"]
    assert told == "It is needed by route /invoices, route /r0, route /r1, route /r2, route /r3 and 2 more."
    assert Service.objects.exists()


def test_delete__service_and_route__their_targets_and_transforms_go_with_them(
    admin: Client, invoices: Route
) -> None:
    rows.target(invoices.service)
    rows.transform(invoices)
    assert send(admin, "DELETE", "routes//invoices").status_code == 204
    assert send(admin, "DELETE", "services/billing").status_code == 204
    assert not Target.objects.exists()
    assert not Transform.objects.exists()


# --- targets -------------------------------------------------------------------------------------------------------------


def test_targets__below_a_service__made_and_listed_there_alone(admin: Client) -> None:
    rows.target(rows.service("mail"))
    rows.service()
    made = send(admin, "POST", "services/billing/targets", {"url": "http://127.0.0.1:9002", "weight": 3})
    assert made.status_code == 201, made.content
    assert made["Location"].endswith(f"/targets/{made.json()['id']}")
    assert made.json()["service"] == "billing"
    assert names(send(admin, "GET", "services/billing/targets"), "url") == ["http://127.0.0.1:9002"]
    again = send(admin, "POST", "services/billing/targets", {"url": "http://127.0.0.1:9002"})
    assert pointers(again) == [""]
    other = send(
        admin, "POST", "services/billing/targets", {"url": "http://127.0.0.1:9003", "service": "mail"}
    )
    assert pointers(other) == ["/service"]
    for method in ("GET", "POST"):
        problem(send(admin, method, "services/none/targets", {}), 404)


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("off", "active", "off"),
        ("drain", "active", "draining"),
        ("on", "off", "active"),
        ("off", "off", "off"),
    ],
)
def test_target__action__its_state_then(admin: Client, action: str, before: str, after: str) -> None:
    target = rows.target(rows.service(), state=before)
    version = Configuration.objects.get().version
    answer = send(admin, "POST", f"targets/{target.pk}/{action}")
    assert (answer.status_code, answer.json()["state"]) == (200, after)
    assert Target.objects.get().state == after
    assert Configuration.objects.get().version == version + (before != after)
    problem(send(admin, "POST", f"targets/{target.pk + 1}/{action}"), 404)
    problem(send(admin, "GET", f"targets/{target.pk}/{action}"), 405)


# --- settings ------------------------------------------------------------------------------------------------------------


def test_settings__header__changed_under_its_etag_and_the_version_counts_on(admin: Client) -> None:
    first = send(admin, "GET", "settings")
    assert first.json() == {"api_key_header": "X-API-Key"}
    changed = send(admin, "PATCH", "settings", {"api_key_header": "X-Key"}, If_Match=first["ETag"])
    assert changed.json() == {"api_key_header": "X-Key"}
    problem(send(admin, "PATCH", "settings", {"api_key_header": "X-No"}, If_Match=first["ETag"]), 412)
    assert pointers(send(admin, "PATCH", "settings", {"api_key_header": "a b"})) == ["/api_key_header"]
    assert pointers(send(admin, "PATCH", "settings", {"version": 1})) == ["/version"]
    assert Configuration.objects.get().version == 1


def test_consumer__disabled__says_so(admin: Client) -> None:
    rows.consumer()
    assert send(admin, "PATCH", "consumers/robot", {"enabled": False}).json()["enabled"] is False
    assert not Consumer.objects.get().enabled
