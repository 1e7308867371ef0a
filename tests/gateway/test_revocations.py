"""Revoking a token: rows, audit, version, and what a snapshot reads of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.exceptions import ValidationError
from django.utils import timezone

from foundation.models import AuditEntry
from gateway import revocations, revoked
from gateway.holder import Holder, current_version
from gateway.models import RevokedToken
from gateway.tokens import Issuer, Rejected, Verifier, sign

from .conftest import SECRET

pytestmark = pytest.mark.django_db

VERIFIER = Verifier([Issuer("own", "HS256", SECRET)])
BY: Any = {"actor": "ada", "source": "cli"}
LATER = datetime(2200, 1, 1, tzinfo=UTC)


def token(**claims: Any) -> str:
    return sign({"sub": "7", "exp": int(timezone.now().timestamp()) + 60} | claims, "HS256", SECRET)


def test_revoke_token__row_audit_and_version() -> None:
    one, before = token(jti="j1"), current_version()
    row = revocations.revoke_token(f" {one}\n", VERIFIER, **BY)
    assert (row.issuer, row.jti, row.digest) == ("own", "j1", revoked.digest(one.encode()))
    assert timedelta(seconds=600) < row.expires_at - timezone.now() < timedelta(seconds=670)
    assert current_version() == before + 1
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action) == ("ada", "revokedtoken.create")
    found = revoked.Revoked(revocations.living())
    assert found.covers("own", "j1", b"")
    assert found.covers("", "", one.encode())
    assert not found.covers("other", "j1", b"")


def test_revoke_token__without_jti_or_with_an_endless_one__by_digest() -> None:
    for one in (token(), token(jti="j" * 300)):
        row = revocations.revoke_token(one, VERIFIER, **BY)
        assert (row.jti, row.digest) == ("", revoked.digest(one.encode()))


def test_revoke_token__refresh_or_endless_token__revoked_too() -> None:
    revocations.revoke_token(token(token_type="refresh", jti="r"), VERIFIER, **BY)
    assert revocations.revoke_token(token(exp=999_999_999_999), VERIFIER, **BY).expires_at.year == 9987


def test_revoke_token__that_would_be_refused_anyway__rejected() -> None:
    for bad, reason in (("no token", "header"), (token(exp=1), "exp"), (token() + "é", "signature")):
        with pytest.raises(Rejected, match=reason):
            revocations.revoke_token(bad, VERIFIER, **BY)
    assert not RevokedToken.objects.exists()


def test_revoke__twice__one_row_and_the_later_expiry() -> None:
    soon = timezone.now() + timedelta(seconds=60)
    first = revocations.revoke("own", jti="1", expires_at=soon, **BY)
    version = current_version()
    assert revocations.revoke("own", jti="1", expires_at=soon, **BY) == first
    assert current_version() == version
    revocations.revoke("own", jti="1", expires_at=LATER, **BY)
    assert RevokedToken.objects.get().expires_at == LATER


@pytest.mark.parametrize(
    "values", [{}, {"digest": "ab"}, {"digest": "AB" * 32}, {"digest": "z" * 64}, {"jti": "j" * 256}]
)
def test_revoke__by_nothing_or_by_what_no_token_has__refused(values: dict[str, str]) -> None:
    with pytest.raises((ValueError, ValidationError)):
        revocations.revoke("own", expires_at=LATER, **values, **BY)
    assert not RevokedToken.objects.exists()


def test_revoke__too_many__refused_until_some_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOKED", 2)
    now = timezone.now()
    RevokedToken.objects.create(issuer="own", jti="over", expires_at=now - timedelta(seconds=1))
    for jti in "12":
        revocations.revoke("own", jti=jti, expires_at=LATER, **BY)
    with pytest.raises(ValueError, match="another key"):
        revocations.revoke("own", jti="3", expires_at=LATER, **BY)
    revocations.revoke("own", jti="2", expires_at=LATER, **BY)
    assert set(RevokedToken.objects.values_list("jti", flat=True)) == {"1", "2"}


def test_is_revoked__by_row__until_it_is_over() -> None:
    one = token(jti="1").encode()
    assert not revocations.is_revoked("own", "1", one)
    row = revocations.revoke("own", jti="1", expires_at=LATER, **BY)
    assert revocations.is_revoked("own", "1", one)
    assert not revocations.is_revoked("other", "1", one)
    assert not revocations.is_revoked("own", None, one)
    assert not revocations.is_revoked("own", "", one)
    row.expires_at = timezone.now() - timedelta(seconds=1)
    row.save()
    assert not revocations.is_revoked("own", "1", one)
    assert not revoked.Revoked(revocations.living())
    assert revocations.prune() == 1


def test_revoke_token__es256__its_other_good_signature_is_revoked_too() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    verifier = Verifier([Issuer("e", "ES256", pem)])
    one = jwt.encode({"sub": "7", "exp": 9_000_000_000}, key, "ES256")
    first, _, signature = one.rpartition(".")
    raw = jwt.utils.base64url_decode(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    mirrored = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    twin = f"{first}.{jwt.utils.base64url_encode(mirrored).decode()}".encode()
    assert verifier.verify(twin, 0.0)
    revocations.revoke_token(one, verifier, **BY)
    assert revoked.Revoked(revocations.living()).covers("e", "", twin)


def test_holder__revoked_between_two_snapshots__not_carried_over() -> None:
    """The token was remembered; the next snapshot refuses it, and keeps the others."""
    holder = Holder()
    holder.refresh()
    signer = holder.snapshot.issuers[0]
    exp = int(timezone.now().timestamp()) + 60
    one, other = (
        b"Bearer "
        + sign(
            {"sub": sub, "exp": exp, "iss": signer.issuer, "jti": sub}, signer.algorithm, signer.key
        ).encode()
        for sub in ("1", "2")
    )
    wall = timezone.now().timestamp()
    assert holder.snapshot.identities.identify(one, None, wall)
    assert holder.snapshot.identities.identify(other, None, wall)
    revocations.revoke(signer.name, jti="1", expires_at=LATER, **BY)
    assert holder.refresh()
    assert list(holder.snapshot.identities._young) == [other]
    assert holder.snapshot.identities.identify(one, None, wall) is None
    assert holder.snapshot.identities.identify(other, None, wall)
