"""The page that tells which route, limits and plugins a request would meet; nothing pasted there is kept."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse

from foundation import roles
from foundation.models import AuditEntry
from gateway import issuers, tester
from gateway.admin import live
from gateway.holder import Holder
from gateway.models import Configuration
from gateway.tester import Explanation, Step
from tests.foundation.people import client_of

from .admin_pages import configuration, page

pytestmark = pytest.mark.django_db

PAGE = "admin:gateway_tester_changelist"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the page asks tester.explain, without the answer."""
    calls: list[Any] = []

    def explain(_snapshot: Any, *arguments: Any) -> Explanation:
        calls.append(arguments)
        return Explanation("passed on to billing")

    monkeypatch.setattr(tester, "explain", explain)
    return calls


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "holder", Holder())


def form(**values: Any) -> dict[str, Any]:
    return {"method": "GET", "url": "/invoices?a=b", "headers": "", "client_ip": "10.0.0.9", **values}


def test_page__asked__shows_all_that_was_told(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    made = configuration()
    told = Explanation(
        "401: <who> are you?", 401, "invoices", "billing", ["gold: 60 in 60 s"], ["team"], [("a:80", ""), ("b:80", "draining")],
        [Step("match", "ok", "the longest path"), Step("authenticate", "refused", "no key")], [("other", "its host is another")],
    )  # fmt: skip
    monkeypatch.setattr(tester, "explain", lambda *_: told)
    text = client_of(roles.VIEWER).post(reverse(PAGE), form()).content.decode()
    for part in (
        "401: &lt;who&gt;", page("route", made["route"]), page("service", made["service"]), "gold: 60 in 60 s", "team",
        "a:80", "draining", "the longest path", "no key", "its host is another", "brain-verdict-bad",
    ):  # fmt: skip
        assert part in text


def test_page__the_real_rules__a_stranger_is_refused_and_a_consumer_passed_on(fresh: None) -> None:
    made = configuration()
    client = client_of(roles.VIEWER)
    refused = client.post(reverse(PAGE), form()).content.decode()
    assert "brain-verdict-bad" in refused
    assert "401" in refused
    passed = client.post(reverse(PAGE), form(consumer=made["consumer"].pk)).content.decode()
    assert "brain-verdict-good" in passed
    assert "passed on to billing" in passed
    nowhere = client.post(reverse(PAGE), form(url="/nowhere")).content.decode()
    assert "no route matches" in nowhere


def test_page__targets__with_what_the_fleet_knows_of_them(
    monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    configuration()
    view = SimpleNamespace(process="p", why="health: status 500")
    known = SimpleNamespace(service="billing", name="127.0.0.1:9101", health_reason="", views=(view,))
    monkeypatch.setattr(live, "board", lambda: live.Board([known], 100.0))
    text = client_of(roles.VIEWER).post(reverse(PAGE), form()).content.decode()
    assert "health: status 500" in text


def test_page__asked__headers_in_their_order(asked: list[Any], fresh: None) -> None:
    client_of(roles.VIEWER).post(reverse(PAGE), form(headers="Accept: a\nX-A: b: c"))
    assert asked == [("GET", "/invoices?a=b", [("Accept", "a"), ("X-A", "b: c")], "10.0.0.9", None)]


def test_page__consumer__by_name(asked: list[Any], fresh: None) -> None:
    made = configuration()
    client_of(roles.VIEWER).post(reverse(PAGE), form(consumer=made["consumer"].pk))
    assert asked[0][4] == "robot"


@pytest.mark.parametrize(
    ("pasted", "header"),
    [
        ("brn_abc_verysecretindeed", ("X-Key", "brn_abc_verysecretindeed")),
        ("demo-secret", ("X-Key", "demo-secret")),
        ("eyJh.eyJz.c2ln", ("Authorization", "Bearer eyJh.eyJz.c2ln")),
    ],
)
def test_page__pasted_credential__sent_as_its_header_and_kept_nowhere(
    asked: list[Any], fresh: None, pasted: str, header: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    Configuration.objects.update_or_create(pk=1, defaults={"api_key_header": "X-Key"})
    answer = client_of(roles.VIEWER).post(reverse(PAGE), form(credential=pasted))
    assert asked[0][2] == [header]
    assert "no-store" in answer.headers["Cache-Control"]
    kept = str([session.get_decoded() for session in Session.objects.all()]) + str(
        list(AuditEntry.objects.values())
    )
    assert pasted not in answer.content.decode() + kept + caplog.text


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"url": "nonsense"}, "Write a path that begins with /"),
        ({"url": "ftp://a/b"}, "Write a path that begins with /"),
        ({"url": "http://[::1"}, "Write a path that begins with /"),
        ({"headers": "Schlüssel: 1"}, "Line 1 is not a header"),
        ({"client_ip": "me"}, "This is not an IP address."),
        ({"headers": "nonsense"}, "Line 1 is not a header"),
        ({"method": "BREW"}, "not one of the available choices"),
    ],
)
def test_page__bad_value__said_at_its_field_and_nothing_asked(
    asked: list[Any], values: dict[str, str], told: str
) -> None:
    answer = client_of(roles.VIEWER).post(reverse(PAGE), form(**values))
    assert answer.status_code == 400
    assert told in answer.content.decode()
    assert asked == []


def test_page__consumer_and_key_at_once__refused(asked: list[Any]) -> None:
    made = configuration()
    answer = client_of(roles.VIEWER).post(reverse(PAGE), form(consumer=made["consumer"].pk, credential="x"))
    assert "not both" in answer.content.decode()
    assert asked == []


def test_page__opened__asks_nothing(asked: list[Any]) -> None:
    assert client_of(roles.VIEWER).get(reverse(PAGE)).status_code == 200
    assert asked == []
    assert client_of(None).get(reverse(PAGE)).status_code == 403
