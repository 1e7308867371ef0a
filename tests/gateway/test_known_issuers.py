"""An issuer under another name: what was taken back of it stays so, however the name came about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.utils import timezone

from foundation.models import AuditEntry
from gateway import changes, cuts, history, known_issuers, revocations
from gateway.callers import OWN_ISSUER
from gateway.holder import Holder
from gateway.kin import KEY, SECRET, SET, Known, groups, marked
from gateway.models import JwtIssuer, KnownIssuer
from gateway.tokens import sign

from .documents import put

BY: Any = {"actor": "ada", "source": "cli"}
LATER = datetime(2200, 1, 1, tzinfo=UTC)
SECRET_A, SECRET_B = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
REVOKED, CUT, GOOD = "revoked by its jti", "cut", "good"


def one(name: str, secret: str = SECRET_A, more: str = "issuer: them") -> str:
    return f'issuers: {{{name}: {{algorithm: HS256, secret: "{secret}", {more}}}}}'


def bearers(secret: str = SECRET_A, iss: str = "them") -> dict[str, bytes]:
    now = int(timezone.now().timestamp())
    claims = {
        REVOKED: {"sub": "1", "jti": "j1"},
        CUT: {"sub": "7", "jti": "j7"},
        GOOD: {"sub": "1", "jti": "j2"},
    }
    return {
        what: b"Bearer "
        + sign({"iss": iss, "iat": now, "exp": now + 60} | own, "HS256", secret.encode()).encode()
        for what, own in claims.items()
    }


def let_in(holder: Holder, tokens: dict[str, bytes]) -> set[str]:
    holder.refresh()
    wall = timezone.now().timestamp()
    return {what for what, token in tokens.items() if holder.snapshot.identities.identify(token, None, wall)}


def take_back(name: str) -> None:
    revocations.revoke(name, jti="j1", expires_at=LATER, **BY)
    cuts.cut(name, "7", expires_at=LATER, **BY)


def taken_back(name: str) -> bool:
    """By the rows."""
    found = {revocations.is_revoked(name, "j1", b"a.b.c"), cuts.is_cut(name, "7", 0.0)}
    assert not revocations.is_revoked(name, "j2", b"a.b.c")
    assert not cuts.is_cut(name, "8", 0.0)
    assert len(found) == 1
    return found.pop()


@pytest.fixture
def partner() -> Holder:
    put(one("partner"))
    holder = Holder()
    assert let_in(holder, bearers()) == {REVOKED, CUT, GOOD}
    take_back("partner")
    assert let_in(holder, bearers()) == {GOOD}
    return holder


def by_document(name: str) -> None:
    put(one(name), prune=True)


def by_two_documents(name: str) -> None:
    """The old name is gone for a while, and nobody's."""
    put("issuers: {}", prune=True)
    put(one(name))


def by_document_beside_it(name: str) -> None:
    put(one(name))
    changes.delete(JwtIssuer.objects.get(name="partner"), **BY)


def by_disabling(name: str) -> None:
    put(one(name))
    row = JwtIssuer.objects.get(name="partner")
    row.enabled = False
    changes.save(row, **BY)


def by_form(name: str) -> None:
    row = JwtIssuer.objects.get(name="partner")
    row.name = name
    changes.save(row, **BY)


def by_form_with_another_key_and_back(name: str) -> None:
    row = JwtIssuer.objects.get(name="partner")
    row.name = name
    changes.set_secret(row, SECRET_B)
    changes.save(row, **BY)
    changes.set_secret(row, SECRET_A)
    changes.save(row, **BY)


def by_key_that_was_replaced_before(name: str) -> None:
    put(one("partner", SECRET_B), prune=True)
    put(one(name, SECRET_A), prune=True)


RENAMES = (by_document, by_two_documents, by_document_beside_it, by_disabling, by_form, by_form_with_another_key_and_back,
           by_key_that_was_replaced_before)  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("rename", RENAMES)
def test_renamed__by_whatever_way__tokens_that_were_taken_back_stay_refused(
    partner: Holder, rename: Callable[[str], None]
) -> None:
    rename("renamed")
    assert let_in(partner, bearers()) == {GOOD}
    assert let_in(Holder(), bearers()) == {GOOD}
    assert taken_back("renamed")


@pytest.mark.django_db
def test_renamed__and_rolled_back__taken_back_under_either_name(partner: Holder) -> None:
    version = history.newest()
    by_document("renamed")
    revocations.revoke("renamed", jti="j2", expires_at=LATER, **BY)
    assert let_in(partner, bearers()) == set()
    history.rollback(version, **BY)
    assert let_in(partner, bearers()) == set()
    by_form("again")
    history.rollback(version, **BY)
    assert JwtIssuer.objects.get().name == "partner"
    assert let_in(partner, bearers()) == set()


@pytest.mark.django_db
def test_renamed__copy_on_disk__refuses_them_too(partner: Holder, tmp_path: Any, monkeypatch: Any) -> None:
    from django.db import OperationalError

    by_document("renamed")
    Holder(tmp_path / "copy").refresh()

    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.holder.current_version", broken)
    assert let_in(Holder(tmp_path / "copy"), bearers()) == {GOOD}


@pytest.mark.django_db
def test_another_key_or_another_claim__is_another_issuer(partner: Holder) -> None:
    put(one("other", SECRET_B))
    put(one("namesake", SECRET_A, "issuer: others"))
    assert let_in(partner, bearers(SECRET_B)) == {REVOKED, CUT, GOOD}
    assert let_in(partner, bearers(iss="others")) == {REVOKED, CUT, GOOD}
    assert not taken_back("other")
    assert not taken_back("namesake")
    assert let_in(partner, bearers()) == {GOOD}


@pytest.mark.django_db
def test_name_that_was_given_up_in_the_admin__is_free_for_another_issuer(partner: Holder) -> None:
    by_form("renamed")
    put(one("partner", SECRET_B))
    assert let_in(partner, bearers(SECRET_B)) == {REVOKED, CUT, GOOD}
    assert let_in(partner, bearers()) == {GOOD}


@pytest.mark.django_db
def test_renamed__audited_with_the_old_name(partner: Holder) -> None:
    by_document("renamed")
    entry = AuditEntry.objects.get(action="issuer.takeover")
    assert entry.target_id == str(JwtIssuer.objects.get().pk)
    assert (entry.actor, entry.after) == ("tester", {"taken_back_as": ["partner"]})
    put(one("unrelated", SECRET_B))
    assert AuditEntry.objects.filter(action="issuer.takeover").count() == 1


@pytest.mark.django_db
def test_user_cut_off__our_tokens_of_every_key_that_ever_signed__refused(settings: Any) -> None:
    """Signed by the site's own key, cut while a row signs, and then that row is gone."""
    holder, settings.JWT_SECRET = Holder(), SECRET_B
    holder.refresh()
    tokens = bearers(SECRET_B, OWN_ISSUER)
    assert let_in(holder, tokens) == {REVOKED, CUT, GOOD}
    put(one("mine", SECRET_A, "signs: true"))
    cuts.cut(cuts.own_issuer(), "7", **BY)
    put("issuers: {}", prune=True)
    assert cuts.own_issuer() == OWN_ISSUER
    assert let_in(holder, tokens) == {REVOKED, GOOD}
    assert cuts.is_cut(OWN_ISSUER, "7", 0.0)
    assert cuts.uncut_in_s("7", timezone.now()) > 0.0


@pytest.mark.django_db
def test_secret__under_a_new_secret_key__is_still_the_same(partner: Holder, settings: Any) -> None:
    by_form_with_another_key_and_back("renamed")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another-" * 8
    by_document("other")
    assert let_in(Holder(), bearers()) == {GOOD}


@pytest.mark.django_db
def test_public_key__written_in_another_way__is_the_same() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for name, text in (("one", pem), ("two", "\n" + pem.replace("\n", "\r\n"))):
        row = JwtIssuer(name=name, algorithm="ES256", public_key=text)
        changes.save(row, **BY)
    assert known_issuers.names_of("one") == {"one", "two"}


@pytest.mark.django_db
def test_remember__each_state_once_and_no_secret(partner: Holder) -> None:
    for _ in range(2):
        put(one("partner", SECRET_B))
        put(one("partner", SECRET_A))
    marks = list(KnownIssuer.objects.values_list("mark", flat=True))
    assert len(marks) == len(set(marks)) == 2
    assert not [mark for mark in marks if SECRET_A in mark or SECRET_B in mark]


# --- which are one ---------------------------------------------------------------------------------------------------
A, B = marked("RS256", KEY, "a"), marked("RS256", KEY, "b")
U, V = marked("RS256", SET, "https://u"), marked("RS256", SET, "https://v")
ONE, NONE = [frozenset("xy")], list[frozenset[str]]()


@pytest.mark.parametrize(
    ("x", "y", "found"),
    [
        ((A, ""), (A, ""), ONE),
        ((A, "i"), (A, "i"), ONE),
        ((A, "i"), (A, ""), ONE),
        ((A, "i"), (A, "k"), NONE),
        ((A, ""), (B, ""), NONE),
        ((A, "i"), (B, "i"), NONE),
        ((U, ""), (U, ""), ONE),
        ((U, ""), (V, ""), NONE),
        ((U, "i"), (V, "i"), ONE),  # it has moved
        ((U, "i"), (A, "i"), ONE),  # one of its keys, perhaps
        ((U, "i"), (V, "k"), NONE),
        ((U, "i"), (marked("ES256", SET, "https://u"), "i"), NONE),
        ((marked("HS256", SECRET, "a"), ""), (marked("HS512", SECRET, "a"), ""), NONE),
        (("", "i"), ("", "i"), NONE),
    ],
)
def test_groups__two_issuers(x: tuple[str, str], y: tuple[str, str], found: list[frozenset[str]]) -> None:
    assert groups([Known("x", *x), Known("y", *y)]) == found
    assert groups([Known("y", *y), Known("x", *x), Known("z", marked("EdDSA", KEY, "a"))]) == found


def test_groups__by_steps__all_of_them() -> None:
    steps = [Known("x", A), Known("y", A), Known("y", B), Known("z", B), Known("ours", "", is_ours=True)]
    assert groups(steps) == [frozenset("xyz")]
    assert groups([*steps, Known("z", "", is_ours=True)]) == [frozenset(("x", "y", "z", "ours"))]
