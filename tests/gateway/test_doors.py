"""What reaches Django: the proxy view, the token endpoint, the API, the admin, the checks."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client as DjangoClient
from django.urls import reverse
from rest_framework_simplejwt.tokens import AccessToken

from gateway import changes, config, issuers, revocations, tokens, views
from gateway.holder import Holder
from gateway.limiter import Limiter
from gateway.models import JwtIssuer
from orm_app.models import User

from .client import Client, request
from .odd_upstream import OddUpstream, running

PASSWORD = "correct horse battery"
TEXT = """\
authentication:
  jwt_secret: "a-secret-of-at-least-32-characters"
  jwt_expiry: 120
  api_keys: {tester: "good-key"}
upstreams:
  odd: {targets: [%s]}
routes:
  - {path: /svc, upstream: odd, timeout: 30}
  - {path: /silent, upstream: odd, timeout: 0.2}
  - {path: /limited, upstream: odd, rate_limit: {requests_per_hour: 60, burst_limit: 2}}
  - {path: /operators, upstream: odd, roles: [operator], methods: [GET]}
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, prefix: str, gateway_conf: Callable[..., None]) -> None:
    """Every process-wide thing of the Django door, new for this test."""
    holder = Holder()
    monkeypatch.setattr(views, "holder", holder)
    monkeypatch.setattr(issuers, "holder", holder)
    monkeypatch.setattr(views, "_limiter", Limiter(prefix=prefix))
    gateway_conf(SNAPSHOT_POLL_S=0.05)


@pytest.fixture
def odd(fresh: None, db: None) -> Iterator[OddUpstream]:
    with running() as (upstream,):
        apply(upstream)
        yield upstream


def apply(*upstreams: OddUpstream) -> None:
    urls = ", ".join(f'"http://{one.name}"' for one in upstreams)
    config.apply(config.load(TEXT % urls), actor="tester", source="cli")


def user(username: str = "ada", *groups: str, **values: Any) -> User:
    made = User.objects.create_user(username, f"{username}@example.com", PASSWORD, **values)
    made.groups.set(Group.objects.filter(name__in=groups))
    return made


def token(client: DjangoClient, username: str = "ada", password: str = PASSWORD) -> Any:
    body = {"username": username, "password": password}
    return client.post(
        reverse("gateway-token"), body, content_type="application/json", REMOTE_ADDR=f"10.9.8.{username!r}"
    )


@pytest.fixture
def signed_in(client: DjangoClient, odd: OddUpstream) -> dict[str, str]:
    user("ada", "operator")
    answer = token(client)
    assert answer.status_code == 200, answer.content
    return {"authorization": f"Bearer {answer.json()['access']}"}


KEY = {"X-API-Key": "good-key"}


# --- the proxy view
# --------------------------------------------------------------------------------------------------


def test_proxy__post__streamed_there_and_back_with_the_same_headers_as_on_the_edge(
    client: DjangoClient, odd: OddUpstream
) -> None:
    answer = client.post(
        "/svc/a b?q=1", b"abc", content_type="text/plain", headers=KEY | {"X-Request-Id": "id-1"}
    )
    seen = json.loads(answer.getvalue())
    assert (answer.status_code, seen["target"], seen["bytes"]) == (200, "/svc/a%20b?q=1", 3)
    assert seen["headers"]["x-consumer-username"] == ["tester"]
    assert seen["headers"]["x-request-id"] == [answer["X-Request-Id"]] == ["id-1"]
    assert "x-api-key" not in seen["headers"]
    assert answer["X-Upstream"] == odd.name


def test_proxy__refusals__problem_json(client: DjangoClient, odd: OddUpstream) -> None:
    for status, answer in {
        401: client.get("/svc/x"),
        403: client.get("/operators/x", headers=KEY),
        404: client.get("/nothing/here"),
        405: client.post("/operators/x", headers=KEY),
        400: client.get("/svc/../x", headers=KEY),
        411: client.post("/svc/x", headers=KEY | {"Transfer-Encoding": "chunked"}),
        502: client.get("/svc/die", headers=KEY),
        504: client.get("/silent/hang", headers=KEY),
    }.items():
        assert answer.status_code == answer.json()["status"] == status
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer["X-Request-Id"]
    assert "Bearer" in client.get("/svc/x")["WWW-Authenticate"]
    assert sum(target.inflight for target in views.holder.snapshot.targets) == 0


def test_proxy__limit__429_with_its_headers(client: DjangoClient, odd: OddUpstream) -> None:
    answers = [client.get("/limited/x", headers=KEY) for _ in range(3)]
    for answer in answers[:2]:
        answer.getvalue()
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0]["RateLimit"] == '"hour";r=1;t=60'
    assert 1 <= int(answers[2]["Retry-After"]) <= 60


def test_proxy__upstreams_own_error__passed_on_as_it_is(client: DjangoClient, odd: OddUpstream) -> None:
    answer = client.get("/svc/busy", headers=KEY)
    assert (answer.status_code, answer.getvalue()) == (503, b"busy")


@pytest.mark.parametrize("kind", ["chunked", "close", "nothing", "hop"])
def test_proxy__response_framings(client: DjangoClient, odd: OddUpstream, kind: str) -> None:
    answer = client.get(f"/svc/{kind}", headers=KEY)
    body = answer.getvalue()
    assert answer.status_code == (204 if kind == "nothing" else 200)
    assert body if kind != "nothing" else not body
    assert "X-Hop" not in answer
    assert sum(target.inflight for target in views.holder.snapshot.targets) == 0


def test_proxy__head__headers_without_a_body(client: DjangoClient, odd: OddUpstream) -> None:
    answer = client.head("/svc/x", headers=KEY)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer["Content-Length"]) > 0


def test_proxy__response_never_read__given_back_on_close(client: DjangoClient, odd: OddUpstream) -> None:
    answer = client.get("/svc/big", headers=KEY)
    (target,) = views.holder.snapshot.targets
    assert target.inflight == 1
    answer.close()
    assert target.inflight == 0
    assert target.breaker.failures == 0


def test_proxy__round_robin_and_dead_target(client: DjangoClient, odd: OddUpstream) -> None:
    with running(2) as (second, dead):
        dead.die()
        apply(odd, second, dead)
        time.sleep(0.06)
        answers = [client.get("/svc/x", headers=KEY) for _ in range(6)]
    assert {answer["X-Upstream"] for answer in answers} == {odd.name, second.name}
    for answer in answers:
        answer.close()


@pytest.mark.django_db(transaction=True)
def test_proxy__behind_a_real_server__large_body_and_half_an_answer(live_server: Any, fresh: None) -> None:
    with running() as (odd,):
        apply(odd)
        port = int(live_server.url.rpartition(":")[2])
        with Client(port) as client:
            answer = client.send(
                request("/svc/x", "Connection: close", method="POST", body=b"x" * 500_000, host="localhost")
            ).answer()
            assert answer is not None
            assert answer.json()["bytes"] == 500_000
        with Client(port) as client:
            cut = client.send(request("/svc/half", "Connection: close", host="localhost")).answer()
            assert cut is not None
            assert (cut.body, cut.headers["content-length"]) == (b"half", "100")


# --- tokens
# ----------------------------------------------------------------------------------------------------------


def test_token__good_password__opens_routes_by_role_and_the_api(
    client: DjangoClient, odd: OddUpstream
) -> None:
    user("ada", "operator")
    answer = token(client)
    assert answer.status_code == 200
    assert answer.json()["expires_in"] == 120
    claims = json.loads(base64.urlsafe_b64decode(answer.json()["access"].split(".")[1] + "=="))
    assert (claims["roles"], claims["username"], claims["iss"]) == (["operator"], "ada", "brain")
    assert claims["exp"] - claims["iat"] == 120
    assert len(claims["jti"]) == 32
    bearer = {"authorization": f"Bearer {answer.json()['access']}"}
    routed = client.get("/operators/x", headers=bearer)
    assert json.loads(routed.getvalue())["headers"]["x-consumer-username"] == ["ada"]
    assert client.get(reverse("gateway-status"), headers=bearer).json()["routes"] == 4


def test_token__without_a_signing_row__the_sites_own_secret_signs(
    client: DjangoClient, db: None, fresh: None
) -> None:
    user("ada", "viewer")
    bearer = {"authorization": f"Bearer {token(client).json()['access']}"}
    assert client.get(reverse("gateway-status"), headers=bearer).json()["issuers"] == ["brain"]


def test_token__of_simplejwts_own_class__opens_routes_and_the_api(
    client: DjangoClient, odd: OddUpstream
) -> None:
    JwtIssuer.objects.update(enabled=False)  # so that the site's own secret signs
    changes.bump()
    views.holder.refresh()
    bearer = {"authorization": f"Bearer {AccessToken.for_user(user('ada', 'viewer'))}"}
    assert client.get("/svc/x", headers=bearer).status_code == 200
    assert client.get(reverse("gateway-status"), headers=bearer).status_code == 200


def test_token__refresh__new_access_with_the_roles_of_now(client: DjangoClient, odd: OddUpstream) -> None:
    ada = user("ada", "operator")
    pair = token(client).json()
    ada.groups.clear()
    url, body = reverse("gateway-token-refresh"), {"refresh": pair["refresh"]}
    refreshed = client.post(url, body, content_type="application/json")
    assert refreshed.status_code == 200
    bearer = {"authorization": f"Bearer {refreshed.json()['access']}"}
    assert client.get("/operators/x", headers=bearer).status_code == 403
    assert client.post(url, {"refresh": pair["access"]}, content_type="application/json").status_code == 401
    ada.is_active = False
    ada.save()
    assert client.post(url, body, content_type="application/json").status_code == 401


def test_token__refresh_token__opens_nothing(client: DjangoClient, odd: OddUpstream) -> None:
    user("ada", "operator")
    bearer = {"authorization": f"Bearer {token(client).json()['refresh']}"}
    assert client.get("/svc/x", headers=bearer).status_code == 401
    assert client.get(reverse("gateway-status"), headers=bearer).status_code == 401


def test_token__wrong_password__401_problem_and_no_password_in_the_log(
    client: DjangoClient, odd: OddUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    user("ada")
    answer = token(client, password="not-the-password")
    assert answer.status_code == answer.json()["status"] == 401
    assert "sign_in_refused" in caplog.text
    assert "not-the-password" not in caplog.text


def test_token__guessing__429_with_retry_after(
    client: DjangoClient, odd: OddUpstream, gateway_conf: Callable[..., None], prefix: str
) -> None:
    gateway_conf(TOKEN_RATE="2/d")
    answers = [token(client, username=prefix, password="x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert int(answers[2]["Retry-After"]) >= 1
    assert answers[2]["Content-Type"] == "application/problem+json"
    assert token(client, username=f"{prefix}other", password="x").status_code == 401


def test_bearer__deactivated_user_or_strangers_token__401(
    client: DjangoClient, signed_in: dict[str, str]
) -> None:
    claims = {"sub": "1", "exp": time.time() + 60, "roles": ["admin"]}
    forged = tokens.sign(claims, "HS256", b"x" * 32)
    url = reverse("gateway-status")
    assert client.get(url, headers={"authorization": f"Bearer {forged}"}).status_code == 401
    User.objects.update(is_active=False)
    assert client.get(url, headers=signed_in).status_code == 401


def test_bearer__revoked__refused_by_routes_api_and_refresh(client: DjangoClient, odd: OddUpstream) -> None:
    user("ada", "operator")
    pair, other = token(client).json(), token(client).json()
    bearers = [{"authorization": f"Bearer {one['access']}"} for one in (pair, other)]
    url, refresh = reverse("gateway-status"), reverse("gateway-token-refresh")

    def seen() -> list[list[int]]:
        time.sleep(0.06)  # SNAPSHOT_POLL_S
        return [[status(path, bearer) for path in ("/svc/x", url)] for bearer in bearers]

    def status(path: str, bearer: dict[str, str]) -> int:
        answer = client.get(path, headers=bearer)
        answer.getvalue()  # to the end, so that the connection is given back
        return int(answer.status_code)

    assert seen() == [[200, 200], [200, 200]]
    verifier = issuers.signer().verifier()
    for one in pair["access"], pair["refresh"]:
        revocations.revoke_token(one, verifier, actor="tester", source="cli")
    assert seen() == [[401, 401], [200, 200]]
    for one, expected in ((pair, 401), (other, 200)):
        answer = client.post(refresh, {"refresh": one["refresh"]}, content_type="application/json")
        assert answer.status_code == expected
