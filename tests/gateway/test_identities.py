"""Credentials → identity: claims, keys, roles and scopes, and what is remembered for how long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from gateway import auth, callers, keys, revoked
from gateway.auth import Identity
from gateway.identities import Identities
from gateway.revoked import Cut, Revocation, Revoked
from gateway.tokens import Issuer, Rejected, Verifier, sign

from .conftest import SECRET

NOW = 1000.0
BRAIN = Issuer("brain", "HS256", SECRET, issuer="brain")
OTHER = Issuer("other", "HS256", b"o" * 32, issuer="other")
TESTER = Identity("key:tester", "tester", frozenset({"operator"}), key_digest=keys.digest(b"good-key"))
BRIEF = Identity("key:brief", "brief", expires_at=NOW + 5)
KEYS = {keys.digest(b"good-key"): TESTER, keys.digest(b"brief"): BRIEF}


def bearer(issuer: Issuer = BRAIN, **claims: Any) -> bytes:
    given = {"sub": "7", "iss": issuer.issuer, "exp": int(NOW) + 600} | claims
    return b"Bearer " + sign(given, "HS256", issuer.key).encode()


class Counting(Verifier):
    """How often a signature was looked at."""

    def __init__(self, issuers: Sequence[Issuer] = (BRAIN, OTHER), **options: Any) -> None:
        super().__init__(issuers, **options)
        self.asked = 0

    def verify(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        return super().verify(*args, **options)


def identities(
    verifier: Verifier | None = None, revoked_: Sequence[Revocation] = (), **options: Any
) -> Identities:
    return Identities(KEYS, verifier or Counting(), Revoked(revoked_), **options)


def of(**claims: Any) -> Identity | None:
    return identities().identify(bearer(**claims), None, NOW)


# --- who


def test_identify__credentials__identity_or_none_and_why() -> None:
    known = identities()

    def who(authorization: bytes | None, key: bytes | None = None) -> tuple[str | None, str]:
        found = known.identify(authorization, key, NOW)
        assert known.identify(authorization, key, NOW) == found  # remembered or not, the same
        return found.subject if found else None, known.explain(authorization, key, NOW)

    token = bearer()
    assert who(None, b"good-key") == ("key:tester", "")
    assert who(token) == ("jwt:brain:7", "")
    assert who(token.replace(b"Bearer ", b"bEARER   ")) == ("jwt:brain:7", "")
    assert who(None) == (None, "neither an API key nor a bearer token")
    assert who(None, b"wrong")[1].startswith("API key: unknown")
    assert who(None, b"")[1].startswith("API key: unknown")
    assert who(None, b"x" * 1000) == (None, "API key: longer than 512 bytes")
    assert who(b"Basic abc") == (None, "authorization: another scheme than Bearer")
    assert who(b"") == (None, "authorization: another scheme than Bearer")
    assert who(b"Bearer") == (None, "header: not JSON")
    assert who(token + b"x") == (None, "signature: it is that of no key")
    assert who(bearer(exp=1)) == (None, "exp: expired")
    assert who(token, b"wrong")[0] is None  # a good token does not save a bad key
    assert who(b"Basic abc", b"good-key")[0] == "key:tester"
    assert who(None, token)[0] is None  # the two headers are remembered apart
    assert who(b"good-key")[0] is None


def test_identify__claims__become_the_identity() -> None:
    found = of(sub="a:b", username="Ada", roles=["admin", "x"], scope="read  write", jti="1")
    assert found == Identity(
        "jwt:brain:a:b", "Ada", frozenset({"admin", "x"}), frozenset({"read", "write"}), expires_at=NOW + 600
    )
    bare = of()
    assert bare is not None
    assert (bare.name, bare.roles, bare.scopes, bare.limits) == ("7", frozenset(), frozenset(), ())
    assert of(username="") == of(username=7) == bare


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": 7}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": None}, "sub"),
        ({"sub": "s" * 256}, "sub"),
        ({"roles": "admin"}, "roles"),
        ({"roles": [1]}, "roles"),
        ({"roles": None}, "roles"),
        ({"roles": {"admin": 1}}, "roles"),
        ({"roles": [["admin"]]}, "roles"),
        ({"scope": 7}, "scope"),
        ({"scope": [None]}, "scope"),
        ({"scp": {"read": 1}}, "scp"),
    ],
)
def test_identify__claims_of_the_wrong_shape__none_and_why(claims: dict[str, Any], reason: str) -> None:
    assert of(**claims) is None
    assert identities().explain(bearer(**claims), None, NOW).startswith(f"{reason}: ")


@pytest.mark.parametrize(
    ("claims", "subject"),
    [({"user_id": "7"}, "jwt:i:7"), ({"user_id": 7}, "jwt:i:7"), ({"user_id": 7, "sub": "a"}, "jwt:i:a")],
)
def test_by_claims__simplejwts_own_tokens__its_user_id_stands_for_sub(claims: Any, subject: str) -> None:
    assert auth.by_claims(Issuer("i", "HS256", b"k"), claims | {"exp": 1}).subject == subject
    for bad in ({"user_id": True}, {"user_id": ""}, {"user_id": 7, "sub": None}, {}):
        with pytest.raises(Rejected, match="sub: "):
            auth.by_claims(Issuer("i", "HS256", b"k"), bad | {"exp": 1})


def test_by_claims__names_of_claims__as_the_issuer_has_them() -> None:
    def found(claims: dict[str, Any], **names: str) -> tuple[set[str], set[str]]:
        identity = auth.by_claims(Issuer("i", "HS256", b"k", **names), {"sub": "7", "exp": 1} | claims)
        return set(identity.roles), set(identity.scopes)

    assert found({"scp": ["a", "b"]}) == (set(), {"a", "b"})
    assert found({"scp": "a b"}) == (set(), {"a", "b"})
    assert found({"scope": "a", "scp": ["b"]}) == (set(), {"a"})
    assert found({"scp": ["a"], "rights": "b"}, scope_claim="rights") == (set(), {"b"})
    assert found({"scp": ["a"]}, scope_claim="rights") == (set(), set())
    keycloak = {"realm_access": {"roles": ["a"]}}
    assert found(keycloak, roles_claim="realm_access.roles") == ({"a"}, set())
    assert found({"realm_access": []}, roles_claim="realm_access.roles") == (set(), set())
    assert found({"https://x.example/roles": ["a"]}, roles_claim="https://x.example/roles") == ({"a"}, set())
    assert found({"a.b": ["flat"], "a": {"b": ["deep"]}}, roles_claim="a.b") == ({"flat"}, set())
    with pytest.raises(Rejected, match="not a list"):
        found({"realm_access": {"roles": "a"}}, roles_claim="realm_access.roles")


def test_by_claims__issuer_with_a_colon__no_sub_can_end_in_its_subjects() -> None:
    claims = {"exp": 1}
    first = auth.by_claims(Issuer("a", "HS256"), claims | {"sub": "b:7"})
    second = auth.by_claims(Issuer("a:b", "HS256"), claims | {"sub": "7"})
    assert first.subject != second.subject


def test_authorised__any_role_and_every_scope() -> None:
    nothing: frozenset[str] = frozenset()
    one = Identity("key:x", "x", frozenset({"operator"}), frozenset({"read", "write"}))
    for roles, scopes, reason in (
        (nothing, nothing, ""),
        ({"operator", "admin"}, {"read"}, ""),
        (nothing, {"read", "write"}, ""),
        ({"admin"}, nothing, "roles: one of admin is needed, x has operator"),
        ({"admin"}, {"read"}, "roles: one of admin is needed, x has operator"),
        ({"operator"}, {"read", "delete"}, "scopes: x lacks delete"),
    ):
        asked = frozenset(roles), frozenset(scopes)
        assert auth.authorised(*asked, one) == (not reason)
        assert auth.explain(*asked, one) == reason
    assert "x has none" in auth.explain(frozenset({"admin"}), nothing, Identity("key:x", "x"))


# --- what is remembered


def test_identify__other_spellings_of_the_scheme__good_and_not_remembered() -> None:
    known, token = identities(), bearer()
    spelt = [
        token.replace(b"Bearer", scheme)
        for scheme in (b"BEARER", b"bEARER", b"Bearer ", b"Bearer" + b" " * 900)
    ]
    lower = token.replace(b"Bearer", b"bearer")
    for authorization in (*spelt, token, lower):
        found = known.identify(authorization, None, NOW)
        assert found is not None
        assert found.subject == "jwt:brain:7"
    assert list(known._young) == [token, lower]


def test_identify__token_seen_before__not_verified_again_for_a_minute() -> None:
    verifier = Counting()
    known = identities(verifier)
    token = bearer()
    first = known.identify(token, None, NOW)
    assert known.identify(token, None, NOW + 59) is first
    assert verifier.asked == 1
    assert known.identify(token, None, NOW + 60) == first
    assert verifier.asked == 2


def test_identify__remembered__not_beyond_expiry() -> None:
    known = identities(longest_s=600.0)
    token = bearer(exp=NOW + 10)
    assert known.identify(token, None, NOW + 9.9)
    assert known.identify(token, None, NOW + 10) is None
    assert known.identify(None, b"brief", NOW + 4.9) is BRIEF
    assert known.identify(None, b"brief", NOW + 5) is None
    assert known.explain(None, b"brief", NOW + 5) == "API key: it is brief's and has expired"


def test_identify__token_that_leeway_keeps_alive__verified_each_time() -> None:
    verifier = Counting(leeway_s=30)
    known = identities(verifier)
    token = bearer(exp=NOW - 1)
    assert known.identify(token, None, NOW)
    assert known.identify(token, None, NOW)
    assert verifier.asked == 2
    assert not known._young


def test_identify__more_tokens_than_it_remembers__those_in_use_stay() -> None:
    verifier = Counting()
    known = identities(verifier, size=20)
    regular = bearer(sub="regular")
    for number in range(200):
        assert known.identify(bearer(sub=f"{number}"), None, NOW)
        assert known.identify(regular, None, NOW)
        assert len(known._young) + len(known._old) <= 20
    assert verifier.asked == 201


def test_identify__refused__leaves_nothing_behind() -> None:
    known = identities()
    for number in range(50):
        assert known.identify(b"Bearer %d" % number, None, NOW) is None
        assert known.identify(bearer() + b"%d" % number, None, NOW) is None
        assert known.identify(None, b"key%d" % number, NOW) is None
    assert not known._young
    assert not known._seen_keys


def test_identify__many_keys__bounded() -> None:
    many = {keys.digest(b"%d" % number): TESTER for number in range(50)}
    known = Identities(many, Counting(), Revoked(), size=20)
    for number in range(50):
        assert known.identify(None, b"%d" % number, NOW)
        assert len(known._seen_keys) <= 20


def test_explain__good_credentials__leaves_nothing_behind() -> None:
    known = identities()
    assert known.explain(bearer(), None, NOW) == ""
    assert not known._young


# --- revoked, and the next snapshot


def test_identify__revoked_by_jti_or_digest__none_and_why() -> None:
    one, other = bearer(jti="1"), bearer(sub="8")
    digest = revoked.digest(other.removeprefix(b"Bearer "))
    known = identities(
        revoked_=[Revocation("brain", "1", "", math.inf), Revocation("brain", "", digest, math.inf)]
    )
    for token in (one, other):
        assert known.identify(token, None, NOW) is None
        assert known.explain(token, None, NOW) == "revoked"
    assert known.identify(bearer(jti="2"), None, NOW)
    assert known.identify(bearer(OTHER, jti="1"), None, NOW)  # another issuer's 1
    assert known.identify(bearer(), None, NOW)


def cut_known(*cuts: Cut) -> Identities:
    return Identities(KEYS, Counting(), Revoked((), NOW, cuts))


def test_identify__subject_that_is_cut__older_tokens_are_refused_and_why() -> None:
    known = cut_known(Cut("brain", "7", NOW - 10, math.inf))
    for older in (bearer(iat=NOW - 11), bearer(iat=NOW - 10), bearer(jti="1")):
        assert known.identify(older, None, NOW) is None
        assert known.explain(older, None, NOW).startswith("revoked, as all tokens of its subject")
    for good in (
        bearer(iat=NOW - 9.5),
        bearer(sub="8", iat=NOW - 11),
        bearer(OTHER, iat=NOW - 11),
    ):
        assert known.identify(good, None, NOW)
    assert cut_known(Cut("brain", "7", NOW, NOW)).identify(bearer(), None, NOW)


def test_carry_over__subject_that_was_cut_meanwhile__newer_tokens_are_carried_over() -> None:
    before = identities()
    old, new, other = bearer(iat=NOW - 11), bearer(iat=NOW - 9), bearer(sub="8")
    for token in (old, new, other):
        assert before.identify(token, None, NOW)
    after = cut_known(Cut("brain", "7", NOW - 10, math.inf))
    after.carry_over(before, NOW)
    assert list(after._young) == [new, other]
    assert after.identify(old, None, NOW) is None


def test_revoked__subject_cut_twice__the_later_counts() -> None:
    found = Revoked((), NOW, [Cut("a:b", "7", NOW, math.inf), Cut("a:b", "7", NOW - 5, math.inf)])
    assert found
    assert found.cuts("jwt:a%3Ab:7", NOW)
    assert not found.cuts("jwt:a:b:7", NOW)
    with pytest.raises(ValueError, match="subjects"):
        Revoked((), NOW, (Cut("i", f"{n}", NOW, math.inf) for n in range(2 * revoked.MAX_REVOKED + 1)))


def test_carry_over__tokens_that_are_still_good__not_verified_again() -> None:
    before = identities(size=10)
    tokens = [bearer(sub=f"{number}", jti=f"{number}") for number in range(6)]
    for token in tokens:  # of two generations
        assert before.identify(token, None, NOW)
    verifier = Counting()
    after = identities(verifier, size=10)
    after.carry_over(before, NOW)
    assert [after.identify(token, None, NOW).name for token in tokens] == list("012345")
    assert verifier.asked == 0
    again = identities(verifier, size=10)
    again.carry_over(after, NOW)
    assert again.identify(tokens[0], None, NOW)
    assert verifier.asked == 0


def test_carry_over__revoked_expired_or_of_another_issuer__left_behind() -> None:
    before = identities()
    by_jti, by_digest, stays = bearer(jti="1"), bearer(sub="8"), bearer(OTHER, jti="1")
    brief = bearer(exp=NOW + 1)
    for token in (by_jti, by_digest, stays, brief):
        assert before.identify(token, None, NOW)
    digest = revoked.digest(by_digest.removeprefix(b"Bearer "))
    gone = [Revocation("brain", "1", "", math.inf), Revocation("", "", digest, math.inf)]
    after = identities(revoked_=gone)
    after.carry_over(before, NOW + 1)
    assert list(after._young) == [stays]
    assert after.identify(by_jti, None, NOW) is after.identify(by_digest, None, NOW) is None

    for issuers in (
        [BRAIN],
        [BRAIN, Issuer("other", "HS256", b"new" * 11, issuer="other")],
        [BRAIN, Issuer("other", "HS256", OTHER.key, issuer="other", roles_claim="groups")],
    ):
        changed = identities(Counting(issuers))
        changed.carry_over(before, NOW)
        assert stays not in changed._young
        assert by_jti in changed._young


def test_carry_over__smaller_than_before__keeps_its_own_size() -> None:
    before = identities()
    for number in range(50):
        before.identify(bearer(sub=f"{number}"), None, NOW)
    after = identities(size=10)
    after.carry_over(before, NOW)
    assert len(after._young) + len(after._old) <= 10


def test_revoked__over_or_too_many() -> None:
    rows = [Revocation("i", "1", "", NOW), Revocation("i", "2", "", NOW + 1)]
    found = Revoked(rows, NOW)
    assert not found.covers("i", "1", b"")
    assert found.covers("i", "2", b"")
    assert not found.covers("i", "", b"")
    assert found
    assert not Revoked(rows, NOW + 1)
    with pytest.raises(ValueError, match="more than"):
        Revoked([Revocation("i", "1", "", NOW + 1)] * (2 * revoked.MAX_REVOKED + 1), NOW)


@pytest.mark.parametrize(
    ("counted_by", "counted_as"), [("caller", "key:c"), ("ip", "key:c"), ("key", f"key:c:{'ab' * 8}")]
)
def test_callers__plan_of_a_consumer__says_how_it_is_counted(counted_by: str, counted_as: str) -> None:
    plan = {
        "requests_per_minute": 60,
        "requests_per_hour": None,
        "burst_limit": None,
        "on_store_down": "deny",
    }
    consumer = {"enabled": True, "plan": "p", "scopes": [], "roles": []}
    key = {"revoked_at": None, "expires_at": None, "consumer": "c", "scopes": None}
    entries = {
        ("plan", "p"): plan | {"counted_by": counted_by, "exact": True},
        ("consumer", "c"): consumer,
        ("key", "ab" * 32): key,
    }
    (found,) = callers.read(entries, (), {}, 100.0).keys.values()
    assert (found.counted_as, found.is_exact, found.on_store_down) == (counted_as, True, "deny")
