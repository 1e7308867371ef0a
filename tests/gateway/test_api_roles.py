"""Who may do what over REST: the matrix of docs/gateway-api.md, whole."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import get_resolver

from foundation import roles
from gateway import urls
from gateway.models import ApiKey, Configuration, RevokedToken, Target
from tests.foundation.people import client_of

from . import api_rows as rows
from .api_rows import problem, send

pytestmark = pytest.mark.django_db

NAMED = ("services", "routes", "transforms", "plans", "consumers", "issuers")
V, O, A = roles.VIEWER, roles.OPERATOR, roles.ADMIN  # noqa: E741

# (least role, method, address, body); {…} is an id of `everything`.
READS = [
    *(
        (V, "GET", noun, None)
        for noun in (*NAMED, "targets", "keys", "revoked-tokens", "token-cuts", "revisions")
    ),
    *((V, "GET", f"{noun}/{{{noun}}}", None) for noun in (*NAMED, "targets", "keys")),
    (V, "GET", "revoked-tokens/{tokens}", None),
    (V, "GET", "token-cuts/{cuts}", None),
    (V, "GET", "revisions/{version}", None),
    (V, "GET", "services/{services}/targets", None),
    (V, "GET", "consumers/{consumers}/keys", None),
    (V, "GET", "settings", None),
    (V, "GET", "status", None),
    (V, "GET", "traffic", None),
]
ACTS = [
    (O, "PATCH", "routes/{routes}", {"enabled": False}),
    (O, "PATCH", "transforms/{transforms}", {"enabled": False}),
    (O, "PATCH", "consumers/{consumers}", {"enabled": False}),
    (O, "PATCH", "targets/{targets}", {"weight": 2, "state": "off"}),
    (O, "POST", "targets/{targets}/on", None),
    (O, "POST", "targets/{targets}/off", None),
    (O, "POST", "targets/{targets}/drain", None),
    (O, "POST", "apply?dry_run=true", {}),
    (V, "POST", "test", {"url": "/invoices"}),
]
CONFIGURES = [
    (A, "GET", "export", None),
    (A, "POST", "services", {"name": "n"}),
    (A, "POST", "services/{services}/targets", {"url": "http://127.0.0.1:7"}),
    (A, "POST", "targets", {"service": "billing", "url": "http://127.0.0.1:7"}),
    (A, "POST", "routes", {"path": "/n", "service": "billing"}),
    (A, "POST", "transforms", {"name": "n", "route": "/invoices"}),
    (A, "POST", "plans", {"name": "n", "requests_per_hour": 1}),
    (A, "POST", "consumers", {"name": "n"}),
    (A, "POST", "consumers/{consumers}/keys", {}),
    (A, "POST", "keys", {"consumer": "robot"}),
    (A, "POST", "keys/{keys}/rotate", {}),
    (A, "POST", "keys/{keys}/revoke", None),
    (A, "POST", "issuers", {"name": "n", "secret": rows.SECRET}),
    (A, "POST", "revoked-tokens", {"issuer": "partner", "jti": "x", "expires_at": "2100-01-01T00:00:00Z"}),
    (A, "POST", "token-cuts", {"issuer": "partner", "subject": "x", "expires_at": "2100-01-01T00:00:00Z"}),
    (A, "POST", "apply", {}),
    (A, "POST", "revisions/{version}/rollback", None),
    (A, "PUT", "services/{services}", {"name": "n"}),
    (A, "PUT", "routes/{routes}", {"path": "/n", "service": "billing"}),
    (A, "PUT", "transforms/{transforms}", {"name": "n", "route": "/invoices"}),
    (A, "PUT", "plans/{plans}", {"name": "n", "requests_per_hour": 1}),
    (A, "PUT", "consumers/{consumers}", {"name": "n"}),
    (A, "PUT", "issuers/{issuers}", {"name": "n"}),
    (A, "PATCH", "services/{services}", {"retries": 0}),
    (A, "PATCH", "routes/{routes}", {"enabled": False, "auth_required": False}),
    (A, "PATCH", "transforms/{transforms}", {"request": {}}),
    (A, "PATCH", "plans/{plans}", {"requests_per_minute": 1}),
    (A, "PATCH", "consumers/{consumers}", {"roles": ["admin"]}),
    (A, "PATCH", "targets/{targets}", {"url": "http://127.0.0.1:8"}),
    (A, "PATCH", "keys/{keys}", {"scopes": []}),
    (A, "PATCH", "issuers/{issuers}", {"enabled": False}),
    (A, "PATCH", "settings", {"api_key_header": "X-K"}),
    *((A, "DELETE", f"{noun}/{{{noun}}}", None) for noun in ("transforms", "issuers", "targets")),
    (A, "DELETE", "routes/{routes}", None),
    (A, "DELETE", "consumers/{consumers}", None),
    (A, "DELETE", "services/{lonely}", None),
    (A, "DELETE", "plans/{plans}", None),
]


@pytest.fixture
def everything() -> dict[str, Any]:
    """One of each noun, by id."""
    lonely = rows.service("lonely")
    service = rows.service()
    route, consumer = rows.route(service), rows.consumer()
    made = {
        "services": service,
        "routes": route,
        "transforms": rows.transform(route),
        "plans": rows.plan(),
        "consumers": consumer,
        "issuers": rows.issuer(),
        "targets": rows.target(service),
        "keys": rows.key(consumer),
        "tokens": rows.revoked(),
        "cuts": rows.cut(),
        "lonely": lonely,
    }
    return {name: row.pk for name, row in made.items()} | {"version": Configuration.objects.get().version}


@pytest.mark.parametrize("role", [None, *roles.RANKED])
def test_matrix__every_call__allowed_from_its_role_on(everything: dict[str, Any], role: str | None) -> None:
    client = client_of(role)
    for least, method, address, body in (*READS, *ACTS, *CONFIGURES):
        with transaction.atomic():
            answer = send(client, method, address.format_map(everything), body)
            transaction.set_rollback(True)  # for the next call, everything is there again
        is_allowed = role is not None and roles.RANKED.index(role) >= roles.RANKED.index(least)
        told = f"{role}: {method} {address}: {answer.status_code} {answer.content[:300]!r}"
        if is_allowed:
            assert answer.status_code < 300, told
        else:
            assert answer.status_code == 403, told


def test_matrix__nobody__401_and_how_to_sign_in(everything: dict[str, Any]) -> None:
    for _, method, address, body in (*READS, *ACTS, *CONFIGURES):
        answer = send(Client(), method, address.format_map(everything), body)
        problem(answer, 401)
        assert "Bearer" in answer["WWW-Authenticate"]


def test_matrix__all_methods_of_all_addresses__stand_in_it() -> None:
    """A new endpoint is a line in this matrix."""
    resolver = get_resolver(urls.__name__)
    held = {
        (method, resolver.resolve("/" + _plain(address)).url_name)
        for _, method, address, _ in (*READS, *ACTS, *CONFIGURES)
    }
    served = {
        (method.upper(), pattern.name)
        for pattern in urls.urlpatterns
        for method in ("get", "post", "put", "patch", "delete")
        if hasattr(pattern.callback.view_class, method)
        and method in pattern.callback.view_class.http_method_names
    }
    open_to_all = {("POST", "gateway-token"), ("POST", "gateway-token-refresh")}
    assert served - held == open_to_all
    assert held <= served


def _plain(address: str) -> str:
    return re.sub(r"\{\w+\}", "1", address).partition("?")[0]


def test_operator__field_of_an_admin_beside_her_own__403_that_names_it_and_nothing_written(
    everything: dict[str, Any],
) -> None:
    body = {"state": "off", "url": "http://127.0.0.1:8"}
    answer = send(client_of(roles.OPERATOR), "PATCH", f"targets/{everything['targets']}", body)
    assert problem(answer, 403)["detail"] == "The role admin is needed to change url."
    assert Target.objects.get().state == "active"


def test_session__without_a_csrf_token__403(everything: dict[str, Any]) -> None:
    browser = client_of(roles.ADMIN)
    browser.handler.enforce_csrf_checks = True
    assert "CSRF" in problem(send(browser, "POST", f"keys/{everything['keys']}/revoke"), 403)["detail"]
    assert ApiKey.objects.get().revoked_at is None
    assert RevokedToken.objects.count() == 1
