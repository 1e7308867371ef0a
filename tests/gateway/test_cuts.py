"""Cutting off a subject: the row, its audit entry, its version, and until when it is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from foundation.models import AuditEntry
from gateway import changes, cuts, revocations, revoked
from gateway.conf import conf
from gateway.holder import Holder, current_version
from gateway.models import JwtIssuer, TokenCut
from gateway.tokens import sign

pytestmark = pytest.mark.django_db

BY: Any = {"actor": "ada", "source": "cli"}
LATER = datetime(2200, 1, 1, tzinfo=UTC)


def test_cut__row_audit_and_version() -> None:
    version, before = current_version(), timezone.now()
    row = cuts.cut("partner", "7", expires_at=LATER, **BY)
    leeway = timedelta(seconds=conf().JWT_LEEWAY_S)  # by which the issuer's clock may be ahead
    assert before <= row.issued_until - leeway <= timezone.now()
    assert current_version() == version + 1
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action) == ("ada", "tokencut.create")
    found = revoked.Revoked((), 0.0, cuts.living())
    assert found.cuts("jwt:partner:7", before.timestamp())
    assert not found.cuts("jwt:partner:7", row.issued_until.timestamp() + 1)


def test_cut__again__only_ever_larger() -> None:
    first = cuts.cut("partner", "7", expires_at=LATER, **BY)
    hour = timedelta(hours=1)
    again = cuts.cut("partner", "7", issued_until=first.issued_until - hour, expires_at=LATER - hour, **BY)
    assert (again.pk, again.issued_until, again.expires_at) == (first.pk, first.issued_until, LATER)
    later = cuts.cut("partner", "7", expires_at=LATER, **BY)
    assert later.issued_until > first.issued_until
    actions = list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))
    assert actions == ["tokencut.create", "tokencut.update"]


def test_cut__subject_of_other_capitals_or_issuer__another_one() -> None:
    for issuer, subject in (("partner", "ada"), ("partner", "Ada"), ("other", "ada")):
        cuts.cut(issuer, subject, expires_at=LATER, **BY)
    assert TokenCut.objects.count() == 3
    assert not cuts.is_cut("partner", "ADA", None)


def test_cut__our_own_issuer__kept_for_as_long_as_a_token_of_ours_lives() -> None:
    began = timezone.now()
    row = cuts.cut(cuts.own_issuer(), "7", **BY)
    assert timedelta(days=31) < row.expires_at - timezone.now() < timedelta(days=32)
    assert began < row.issued_until <= timezone.now() + timedelta(seconds=1)
    JwtIssuer.objects.create(name="mine", signs=True, expiry_s=100 * 86_400, secret="x")
    soon = timezone.now() + timedelta(hours=1)
    row = cuts.cut("mine", "7", expires_at=soon, **BY)
    assert row.expires_at - timezone.now() > timedelta(days=100)
    with pytest.raises(ValueError, match="say when the last token"):
        cuts.cut("partner", "7", **BY)


def test_cut__issuer_with_a_leeway_of_its_own__reaches_as_far() -> None:
    JwtIssuer.objects.create(name="exact", leeway_s=0.0, public_key="x", algorithm="RS256")
    assert cuts.cut("exact", "7", expires_at=LATER, **BY).issued_until <= timezone.now()


def test_uncut_in_s__right_after_a_cut__at_most_two_seconds() -> None:
    assert cuts.uncut_in_s("7", timezone.now()) == 0.0
    row = cuts.cut(cuts.own_issuer(), "7", **BY)
    assert 0.0 < cuts.uncut_in_s("7", row.issued_until - timedelta(seconds=1)) <= 2.0
    assert cuts.uncut_in_s("7", row.issued_until) > 0.0
    assert cuts.uncut_in_s("7", row.issued_until + timedelta(seconds=1)) == 0.0


@pytest.mark.parametrize("values", [{"subject": ""}, {"subject": "s" * 256}, {"issuer": ""}])
def test_cut__what_no_token_has__refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        cuts.cut(**({"issuer": "own", "subject": "7"} | values), expires_at=LATER, **BY)
    assert not TokenCut.objects.exists()


def test_cut__of_tokens_to_come__refused() -> None:
    with pytest.raises(ValueError, match="to come"):
        cuts.cut("own", "7", issued_until=timezone.now() + timedelta(hours=1), expires_at=LATER, **BY)


def test_cut__too_many__refused_until_some_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "MAX_REVOKED", 2)
    now = timezone.now()
    TokenCut.objects.create(
        issuer="own", subject="over", issued_until=now, expires_at=now - timedelta(seconds=1)
    )
    for subject in "12":
        cuts.cut("own", subject, expires_at=LATER, **BY)
    with pytest.raises(ValueError, match="another key"):
        cuts.cut("own", "3", expires_at=LATER, **BY)
    cuts.cut("own", "2", expires_at=LATER, **BY)
    assert set(TokenCut.objects.values_list("subject", flat=True)) == {"1", "2"}


def test_is_cut__by_row__until_it_is_over() -> None:
    row = cuts.cut("own", "7", expires_at=LATER, **BY)
    at = row.issued_until.timestamp()
    assert cuts.is_cut("own", "7", at)
    assert cuts.is_cut("own", "7", None)
    assert not cuts.is_cut("own", "7", at + 0.001)
    for issuer, subject in (("other", "7"), ("own", "8"), ("own", None)):
        assert not cuts.is_cut(issuer, subject, at)
    row.expires_at = timezone.now() - timedelta(seconds=1)
    row.save()
    assert not cuts.is_cut("own", "7", at)
    assert not cuts.living()
    assert cuts.prune() == 1


def test_holder__cut_between_two_snapshots__refused_and_so_by_whoever_starts_from_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    holder, file = Holder(tmp_path / "copy.json"), tmp_path / "copy.json"
    holder.refresh()
    wall, old, other = timezone.now().timestamp(), bearer(holder, "1"), bearer(holder, "2")
    for token in (old, other):
        assert holder.snapshot.identities.identify(token, None, wall)
    cuts.cut(holder.snapshot.issuers[0].name, "1", **BY)
    assert holder.refresh()
    assert list(holder.snapshot.identities._young) == [other]
    new = bearer(holder, "1", iat=int(wall) + 25)

    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.holder.current_version", broken)
    restarted = Holder(file)
    assert restarted.refresh()
    for one in (holder, restarted):
        assert one.snapshot.identities.identify(old, None, wall) is None
        assert one.snapshot.identities.identify(new, None, wall)
        assert one.snapshot.identities.identify(other, None, wall)


def test_holder__copy_of_a_version_that_knew_no_cuts__served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    file = tmp_path / "copy.json"
    Holder(file).refresh()
    rows = json.loads(file.read_text())
    assert rows.pop("cuts") == []
    file.write_text(json.dumps(rows))

    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.holder.current_version", broken)
    assert Holder(file).refresh()


def bearer(holder: Holder, subject: str, **claims: Any) -> bytes:
    signer, now = holder.snapshot.issuers[0], int(timezone.now().timestamp())
    given = {"sub": subject, "iss": signer.issuer, "iat": now, "exp": now + 60} | claims
    return b"Bearer " + sign(given, signer.algorithm, signer.key).encode()


def test_issuer__renamed__what_was_taken_back_stays_so() -> None:
    issuer = JwtIssuer(name="partner")
    changes.set_secret(issuer, "0123456789abcdef0123456789abcdef")
    changes.save(issuer, **BY)
    cuts.cut("partner", "7", expires_at=LATER, **BY)
    revocations.revoke("partner", jti="1", expires_at=LATER, **BY)
    issuer.name = "renamed"
    changes.save(issuer, **BY)
    for issued_at in (None, 0.0):
        assert cuts.is_cut("renamed", "7", issued_at)
    assert revocations.is_revoked("renamed", "1", b"")
    assert not cuts.is_cut("partner", "7", None)
