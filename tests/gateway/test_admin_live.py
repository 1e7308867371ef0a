"""How targets stand, on the admin's pages: as the board of the real processes tells it, and dashes without one."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.urls import reverse

from brain_project import overview
from cache_app import connections as store
from foundation import roles
from foundation.figures import Card
from gateway import board as fleet
from gateway import issuers, pool, tokens
from gateway.admin import live
from gateway.jwks import Jwks, Unusable
from gateway.models import JwtIssuer, Target
from gateway.snapshot import Snapshot
from tests.foundation.people import client_of

from .admin_pages import configuration, page

pytestmark = pytest.mark.django_db


@pytest.fixture
def made() -> dict[str, Any]:
    return configuration()


def told(**values: Any) -> SimpleNamespace:
    """A target as board.read() gives it (board.Standing)."""
    view = {
        "process": "p1",
        "inflight": 2,
        "breaker": "closed",
        "why": "",
        "ejected_until": 0.0,
        "ewma_s": 0.25,
    }
    whole = {
        "service": "billing", "name": "127.0.0.1:9101", "state": "active", "health": "healthy", "health_reason": "",
        "checked_at": 98.0, "next_at": 103.0, "inflight": 2, "breaker": "closed", "ewma_s": 0.25, "panicked": 0,
    }  # fmt: skip
    views = values.pop("views", [{}])
    return SimpleNamespace(**(whole | values), views=tuple(SimpleNamespace(**(view | one)) for one in views))


def standing(state: str = "active", **values: Any) -> live.Standing:
    return live.Board([told(**values)], 100.0).of("billing", "http://127.0.0.1:9101", state)


# --- the words ---------------------------------------------------------------------------------------------------------
def test_standing__all_well__good_with_times_in_words() -> None:
    found = standing()
    assert (found.tone, found.is_up, found.health, found.breaker) == ("good", True, "healthy", "closed")
    assert (found.checked, found.next_probe, found.latency, found.inflight) == (
        "2 s ago",
        "in 3 s",
        "250 ms",
        "2",
    )
    assert found.why == ""


@pytest.mark.parametrize(
    ("values", "tone", "is_up"),
    [
        ({"health": "unhealthy"}, "bad", False),
        ({"breaker": "open"}, "bad", False),
        ({"breaker": "half_open", "views": [{"why": "half open: 1 of 3"}]}, "warn", True),
        ({"state": "draining"}, "warn", False),
        ({"state": "off"}, "", False),
    ],
)
def test_standing__trouble__by_its_tone(values: dict[str, Any], tone: str, is_up: bool) -> None:
    state = values.pop("state", "active")
    found = standing(state, **values)
    assert (found.tone, found.is_up) == (tone, is_up)


def test_standing__reasons_of_several_processes__the_worst_ones_and_of_how_many() -> None:
    found = standing(views=[{"why": "a"}, {"why": "b", "process": "p2"}, {"why": "a", "process": "p3"}])
    assert found.why == "a"
    assert standing(views=[{"why": "a"}, {"process": "p2"}]).why == "a (in 1 of 2 processes)"
    assert [view.process for view in found.views] == ["p1", "p2", "p3"]


def test_standing__one_bad_probe_while_still_healthy__said() -> None:
    assert standing(health_reason="status 500").why == "the last probe: status 500"


def test_board__unknown_target_or_no_answer__dashes() -> None:
    assert live.Board([], 100.0).of("billing", "http://127.0.0.1:9101", "active") == live.UNKNOWN
    away = live.Board(None, 100.0)
    assert not away.is_read
    assert away.of("billing", "http://127.0.0.1:9101", "active").health == "-"


# --- the pages ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Any:
    """board(standing, …): what the fleet tells until the test ends."""

    def tell(*standings: Any) -> None:
        monkeypatch.setattr(live, "board", lambda: live.Board(standings, 100.0))

    return tell


def test_targets__list_and_its_cells__the_same_words_at_the_same_ids(
    made: dict[str, Any], board: Any
) -> None:
    why = "open since 3 s: <20> of 20 requests failed"
    board(told(breaker="open", views=[{"why": why}]))
    client, target = client_of(roles.VIEWER), made["target"]
    shown = client.get(page("target")).content.decode()
    cells = client.get(reverse("admin:gateway_target_live")).content.decode()
    assert f'hx-get="{reverse("admin:gateway_target_live")}"' in shown
    for name in ("health", "breaker", "inflight", "next_probe", "reason"):
        (now,) = re.findall(rf'<span id="live-{name}-{target.pk}" hx-swap-oob="innerHTML">(.*)</span>', cells)
        assert f'<span id="live-{name}-{target.pk}">{now}</span>' in shown
    assert "&lt;20&gt;" in cells
    assert "<table" not in cells


def test_targets__cells__of_the_page_that_is_shown(made: dict[str, Any], board: Any) -> None:
    board(told())
    Target.objects.create(service=made["service"], url="http://127.0.0.1:9102", state="off")
    client = client_of(roles.VIEWER)
    address = f"{reverse('admin:gateway_target_live')}?state__exact=off"
    assert address in client.get(f"{page('target')}?state__exact=off").content.decode()
    assert client.get(address).content.decode().count("live-health-") == 1


def test_services__targets_at_a_glance(made: dict[str, Any], board: Any) -> None:
    Target.objects.create(service=made["service"], url="http://127.0.0.1:9102")
    board(told(), told(name="127.0.0.1:9102", health="unhealthy"))
    client = client_of(roles.VIEWER)
    for url in (page("service"), reverse("admin:gateway_service_live")):
        text = client.get(url).content.decode()
        assert "1 of 2 up" in text
        assert "http://127.0.0.1:9102, active, unhealthy, breaker closed" in text


def test_standing__fragments__for_viewers_alone(made: dict[str, Any], board: Any) -> None:
    board(told(views=[{}, {"process": "p2"}]))
    client, stranger = client_of(roles.VIEWER), client_of(None)
    for name in ("service", "target"):
        url = reverse(f"admin:gateway_{name}_standing", args=[made[name].pk])
        assert url in client.get(page(name, made[name])).content.decode()
        text = client.get(url).content.decode()
        assert "as 2 processes see it" in text
        assert "process p2" in text
        assert stranger.get(url).status_code == 403
        assert stranger.get(reverse(f"admin:gateway_{name}_live")).status_code == 403
        assert client.get(reverse(f"admin:gateway_{name}_standing", args=[999])).status_code == 404


def test_pages__without_a_gateway_process_or_redis__still_show(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(roles.VIEWER)
    for found, words in (([], "no gateway process tells anything"), (None, "Redis does not answer")):
        monkeypatch.setattr(live, "board", lambda found=found: live.Board(found, 100.0))
        for name in ("service", "target"):
            assert client.get(page(name)).status_code == 200
            assert words in client.get(page(name, made[name])).content.decode()
        assert client.get("/admin/overview/").status_code == 200


def test_board__real_processes__read_through_the_real_valkey(
    made: dict[str, Any], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = pool.Service("billing", [pool.Target("billing", "127.0.0.1:9101")], random=lambda: 0.5)
    service.targets[0].inflight = 3
    service.targets[0].health.state = "unhealthy"
    asyncio.run(fleet.Board(lambda: [service], prefix=prefix).publish())
    monkeypatch.setattr(fleet, "read", functools.partial(fleet.read, prefix=prefix))
    now = live.board().of_row(made["target"])
    assert (now.health, now.inflight, now.tone) == ("unhealthy", "3", "bad")
    monkeypatch.setattr(store, "default_url", lambda: "unix:///nonexistent.sock?db=0")
    assert not live.board().is_read


# --- the overview ------------------------------------------------------------------------------------------------------
def cards() -> dict[str, Card]:
    return {card.label: card for card in overview._gateway()}


def test_overview__services_down_and_breakers_open__named(made: dict[str, Any], board: Any) -> None:
    configuration("-2")
    board(told(breaker="open"), told(service="billing-2"))
    found = cards()
    assert (found["Services"].value, found["Services"].note, found["Services"].tone) == (
        "1 down",
        "down: billing",
        "bad",
    )
    assert (found["Open breakers"].value, found["Open breakers"].note) == ("1", "billing 127.0.0.1:9101")
    board(told(), told(service="billing-2"))
    found = cards()
    assert (found["Services"].value, found["Services"].note) == ("2", "all up")
    assert (found["Open breakers"].value, found["Open breakers"].tone) == ("0", "")


def test_overview__nobody_tells__neither_good_nor_bad(made: dict[str, Any], board: Any) -> None:
    board()
    found = cards()
    assert (found["Services"].note, found["Services"].tone) == ("no gateway process runs", "")
    assert found["Open breakers"].value == "–"


# --- published keys ----------------------------------------------------------------------------------------------------
def test_issuer__published_keys__fetched_next_ids_and_error(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://example.com/jwks.json"
    public = jwt.algorithms.ECAlgorithm.to_jwk(
        ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True
    )
    keys = [public | {"kid": "k-1"}, public | {"kid": "k-2", "use": "enc"}]
    answers = [(json.dumps({"keys": keys}).encode(), 120.0), Unusable("the answer's status is 503")]

    def fetch(_url: str) -> tuple[bytes, float]:
        answer = answers.pop(0)
        if isinstance(answer, Unusable):
            raise answer
        return answer

    now = [100.0]
    source = Jwks(url, "ES256", fetch=fetch, clock=lambda: now[0], start=lambda work: work())
    issuer = tokens.Issuer("far", "ES256", b"", source=source)
    snapshots = [Snapshot(), Snapshot(issuers=(issuer,))]
    monkeypatch.setattr(issuers, "holder", SimpleNamespace(refresh_if_due=lambda: snapshots[0]))
    row = JwtIssuer.objects.create(name="far", algorithm="ES256", jwks_url=url)
    client = client_of(roles.VIEWER)
    assert "Not fetched here yet" in client.get(page("jwtissuer", row)).content.decode()
    del snapshots[0]
    for at in (100.0, 300.0):  # the second fetch fails, and the first one's keys stay
        now[0] = at
        source.keep_fresh()
        text = client.get(page("jwtissuer", row)).content.decode()
        assert "<code>k-1</code>" in text
        assert "its use" in text
        assert ("503" in text) is (at == 300.0)
    assert "Published keys" not in client.get(page("jwtissuer", made["jwtissuer"])).content.decode()
