"""API keys, token issuers and revoked tokens over REST: what is shown once, and what is never shown."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.test import Client
from django.utils import timezone

from foundation import roles
from foundation.models import AuditEntry
from gateway import history, issuers, tokens
from gateway.holder import Holder
from gateway.models import ApiKey, JwtIssuer, RevokedToken
from tests.foundation.people import client_of

from . import api_rows as rows
from .api_rows import SECRET, pointers, problem, send

pytestmark = pytest.mark.django_db

PEM = (
    rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


@pytest.fixture
def admin() -> Client:
    return client_of(roles.ADMIN)


# --- keys ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["keys", "consumers/robot/keys"])
def test_key__made__shown_once_and_its_digest_never(admin: Client, address: str) -> None:
    rows.consumer(scopes=["a", "b"])
    body = {"consumer": "robot", "scopes": ["a"], "expires_at": "2100-01-01T00:00:00Z"}
    made = send(admin, "POST", address, body)
    assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
    text = made.json()["key"]
    key = ApiKey.objects.get()
    assert hashlib.sha256(text.encode()).hexdigest() == key.digest
    assert (key.scopes, key.expires_at.year, made.json()["state"]) == (["a"], 2100, "active")
    where = f"keys/{key.pk}"
    assert made["Location"].endswith(where)
    shown = send(admin, "GET", where).json()
    assert shown | {"key": text} == made.json()
    everywhere = f"{shown}{send(admin, 'GET', 'keys').content}{send(admin, 'GET', 'revisions').content}"
    everywhere += str(list(AuditEntry.objects.values()))
    assert text not in everywhere
    assert key.digest not in everywhere


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"consumer": "nobody"}, "/consumer"),
        ({}, "/consumer"),
        ({"consumer": "robot", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"consumer": "robot", "expires_at": "soon"}, "/expires_at"),
        ({"consumer": "robot", "scopes": ["a b"]}, "/scopes"),
        ({"consumer": "robot", "key": "my-own"}, "/key"),
        ({"consumer": "robot", "digest": "0" * 64}, "/digest"),
    ],
)
def test_key__bad_body__400_that_names_the_field(admin: Client, body: dict[str, Any], at: str) -> None:
    rows.consumer()
    assert pointers(send(admin, "POST", "keys", body)) == [at]
    assert not ApiKey.objects.exists()


def test_key__below_another_consumer__400(admin: Client) -> None:
    rows.consumer()
    rows.consumer("human")
    assert pointers(send(admin, "POST", "consumers/robot/keys", {"consumer": "human"})) == ["/consumer"]
    problem(send(admin, "POST", "consumers/nobody/keys", {}), 404)


def test_key__changed__its_end_and_scopes_and_not_its_consumer(admin: Client) -> None:
    rows.consumer("human")
    key = rows.key(rows.consumer(scopes=["a"]))
    changed = send(admin, "PATCH", f"keys/{key.pk}", {"scopes": ["a"], "expires_at": None})
    assert (changed.status_code, changed.json()["scopes"]) == (200, ["a"])
    assert pointers(send(admin, "PATCH", f"keys/{key.pk}", {"consumer": "human"})) == ["/consumer"]
    problem(send(admin, "DELETE", f"keys/{key.pk}"), 405)


def test_key__last_used__no_other_etag(admin: Client) -> None:
    key = rows.key(rows.consumer())
    before = send(admin, "GET", f"keys/{key.pk}")
    ApiKey.objects.update(last_used_at=timezone.now())
    after = send(admin, "GET", f"keys/{key.pk}")
    assert before.json()["last_used_at"] != after.json()["last_used_at"]
    assert before["ETag"] == after["ETag"]


@pytest.mark.parametrize("overlap_s", [0, 3600])
def test_key__rotated__a_new_one_and_the_old_one_for_a_while(admin: Client, overlap_s: int) -> None:
    key = rows.key(rows.consumer(scopes=["a"]), scopes=["a"])
    made = send(admin, "POST", f"keys/{key.pk}/rotate", {"overlap_s": overlap_s} if overlap_s else {})
    assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
    assert made.json()["id"] != key.pk
    assert (made.json()["scopes"], made.json()["consumer"]) == (["a"], "robot")
    assert made.json()["key"].startswith(f"brn_{made.json()['prefix']}_")
    old = send(admin, "GET", f"keys/{key.pk}").json()
    assert (old["state"] == "active") == bool(overlap_s)
    if overlap_s:
        left = datetime.fromisoformat(old["expires_at"]) - timezone.now()
        assert timedelta(seconds=overlap_s - 60) < left <= timedelta(seconds=overlap_s)


def test_key__rotated_for_too_long_or_when_over__400_and_409(admin: Client) -> None:
    key = rows.key(rows.consumer())
    for wrong in (-1, 91 * 86_400, "a day"):
        assert pointers(send(admin, "POST", f"keys/{key.pk}/rotate", {"overlap_s": wrong})) == ["/overlap_s"]
    assert pointers(send(admin, "POST", f"keys/{key.pk}/rotate", {"overlap": 1})) == ["/overlap"]
    assert send(admin, "POST", f"keys/{key.pk}/revoke").json()["state"] == "revoked"
    again = send(admin, "POST", f"keys/{key.pk}/revoke")
    assert (again.status_code, again.json()["state"]) == (200, "revoked")
    assert "revoked" in problem(send(admin, "POST", f"keys/{key.pk}/rotate", {}), 409)["detail"]
    assert ApiKey.objects.count() == 1


# --- issuers ---------------------------------------------------------------------------------------------------------------


def test_issuer__secret__goes_in_and_never_comes_out(admin: Client) -> None:
    made = send(admin, "POST", "issuers", {"name": "partner", "secret": SECRET})
    assert made.status_code == 201, made.content
    assert made.json()["has_secret"] is True
    assert "secret" not in made.json()
    assert JwtIssuer.objects.get().key() == SECRET.encode()
    for address in ("issuers", "issuers/partner", "revisions", f"revisions/{_last(admin)}", "export"):
        shown = send(admin, "GET", address).content
        assert SECRET.encode() not in shown
        assert JwtIssuer.objects.get().secret.encode() not in shown


def _last(client: Client) -> int:
    version: int = send(client, "GET", "revisions").json()["results"][0]["version"]
    return version


def test_issuer__put_without_the_secret__keeps_it_and_patch_changes_it(admin: Client) -> None:
    send(admin, "PUT", "issuers/partner", {"secret": SECRET, "audience": "us", "signs": True})
    put = send(admin, "PUT", "issuers/partner", {"algorithm": "HS384"})
    assert (put.json()["audience"], put.json()["signs"]) == ("", False)
    assert JwtIssuer.objects.get().key() == SECRET.encode()
    send(admin, "PATCH", "issuers/partner", {"secret": SECRET[::-1]})
    assert JwtIssuer.objects.get().key() == SECRET[::-1].encode()
    assert JwtIssuer.objects.get().algorithm == "HS384"


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, "/secret"),
        ({"secret": "short"}, "/secret"),
        ({"secret": "your-secret-key"}, "/secret"),
        ({"secret": SECRET, "public_key": PEM}, "/public_key"),
        ({"secret": SECRET, "jwks_url": "https://1.1.1.1/keys"}, "/jwks_url"),
        ({"algorithm": "none"}, "/algorithm"),
        ({"algorithm": "RS256"}, "/public_key"),
        ({"algorithm": "RS256", "public_key": "a key"}, "/public_key"),
        ({"algorithm": "ES256", "public_key": PEM}, "/public_key"),
        ({"algorithm": "RS256", "public_key": PEM, "jwks_url": "https://1.1.1.1/keys"}, "/public_key"),
        ({"algorithm": "RS256", "jwks_url": "http://169.254.169.254/keys"}, "/jwks_url"),
        ({"algorithm": "RS256", "public_key": PEM, "signs": True}, "/signs"),
        ({"secret": SECRET, "leeway_s": -1}, "/leeway_s"),
    ],
)
def test_issuer__keys_that_do_not_fit__400_that_names_the_field(
    admin: Client, body: dict[str, Any], at: str
) -> None:
    assert pointers(send(admin, "POST", "issuers", {"name": "partner", **body})) == [at]


def test_issuer__public_key_or_url__taken(admin: Client) -> None:
    for name, keys in {"a": {"public_key": PEM}, "b": {"jwks_url": "https://1.1.1.1/keys"}}.items():
        made = send(admin, "POST", "issuers", {"name": name, "algorithm": "RS256", **keys})
        assert (made.status_code, made.json()["has_secret"]) == (201, False)
    assert pointers(send(admin, "PATCH", "issuers/a", {"algorithm": "HS256"})) == ["/public_key"]
    assert send(admin, "PATCH", "issuers/a", {"audience": "us"}).status_code == 200


def test_issuer__signs__taken_over_from_the_one_that_did(admin: Client) -> None:
    rows.issuer("old", signs=True)
    rows.issuer("new")
    before = history.newest()
    assert send(admin, "PATCH", "issuers/new", {"signs": True}).json()["signs"] is True
    assert history.newest() == before + 1
    send(admin, "POST", f"revisions/{before}/rollback")
    assert dict(JwtIssuer.objects.values_list("name", "signs")) == {"old": True, "new": None}
    assert send(admin, "PATCH", "issuers/new", {"signs": True}).json()["signs"] is True
    assert dict(JwtIssuer.objects.values_list("name", "signs")) == {"old": None, "new": True}
    assert send(admin, "PATCH", "issuers/new", {"audience": "us"}).json()["signs"] is True
    assert send(admin, "PATCH", "issuers/new", {"signs": False}).json()["signs"] is False


# --- revoked tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's view of the configuration, new for this test."""
    monkeypatch.setattr(issuers, "holder", Holder())


def _token(**claims: Any) -> str:
    given = {"sub": "ada", "jti": "t-1", "exp": time.time() + 600, **claims}
    return tokens.sign(given, "HS256", SECRET.encode())


def test_revoked__token_itself__by_its_id_and_never_stored(admin: Client, fresh_holder: None) -> None:
    rows.issuer()
    made = send(admin, "POST", "revoked-tokens", {"token": _token()})
    assert made.status_code == 201, made.content
    assert (made.json()["issuer"], made.json()["jti"]) == ("partner", "t-1")
    assert set(made.json()) == {"id", "issuer", "jti", "expires_at", "revoked_at"}
    assert RevokedToken.objects.get().expires_at > timezone.now() + timedelta(seconds=500)
    (row,) = send(admin, "GET", "revoked-tokens?issuer=partner&jti=t-1").json()["results"]
    assert row == send(admin, "GET", f"revoked-tokens/{row['id']}").json() == made.json()
    for method in ("PATCH", "PUT", "DELETE"):
        problem(send(admin, method, f"revoked-tokens/{row['id']}", {}), 405)


def test_revoked__issuer_and_id__of_a_token_that_nobody_has_at_hand(admin: Client) -> None:
    rows.issuer()
    body = {"issuer": "partner", "jti": "t-2", "expires_at": "2100-01-01T00:00:00Z"}
    assert send(admin, "POST", "revoked-tokens", body).status_code == 201
    assert send(admin, "POST", "revoked-tokens", body | {"issuer": "brain"}).status_code == 201


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, ["/expires_at", "/issuer", "/jti"]),
        ({"issuer": "partner", "jti": "x"}, ["/expires_at"]),
        ({"issuer": "nobody", "jti": "x", "expires_at": "2100-01-01T00:00:00Z"}, ["/issuer"]),
        ({"issuer": "partner", "jti": "x", "expires_at": "2001-01-01T00:00:00Z"}, ["/expires_at"]),
        ({"issuer": "partner", "jti": "", "expires_at": "2100-01-01T00:00:00Z"}, ["/jti"]),
        ({"token": "a.b.c"}, ["/token"]),
        ({"token": _token(exp=1)}, ["/token"]),
        ({"token": _token(exp=4_000_000_000), "jti": "x"}, [""]),  # it is made when tests are collected
        ({"tokne": "x"}, ["/tokne"]),
    ],
)
def test_revoked__bad_body__400_that_names_the_field(
    admin: Client, fresh_holder: None, body: dict[str, Any], at: list[str]
) -> None:
    rows.issuer()
    assert pointers(send(admin, "POST", "revoked-tokens", body)) == at
