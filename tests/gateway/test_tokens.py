"""Tokens: what opens, made by other people's libraries, and a table of what does not, each for its own reason."""

from __future__ import annotations

import hmac
import json
import random
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway import tokens
from gateway.signatures import ALGORITHMS, HMAC_HASHES, Check, pem_check
from gateway.tokens import Issuer, Rejected, Verifier, sign

SECRET = b"s" * 64
NOW = 1_000_000.0
CLAIMS = {"sub": "7", "exp": 1_000_060, "iss": "brain", "aud": "api", "jti": "j1"}
HEADER = {"alg": "HS256", "typ": "JWT"}
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()
STRANGER = ec.generate_private_key(ec.SECP256R1())


def pem(private: Any) -> bytes:
    made: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


def private_key(algorithm: str) -> Any:
    if algorithm in HMAC_HASHES:
        return SECRET
    return EC_KEYS.get(algorithm) or (ED_KEY if algorithm == "EdDSA" else RSA_KEY)


def issuer(algorithm: str = "HS256", **values: Any) -> Issuer:
    private = private_key(algorithm)
    given = {"name": "i", "algorithm": algorithm, "issuer": "brain", "audience": "api"}
    return Issuer(**(given | {"key": private if isinstance(private, bytes) else pem(private)} | values))


def encode(part: bytes | dict[str, Any] | str) -> bytes:
    raw = json.dumps(part).encode() if isinstance(part, dict) else part
    return urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=")


def signed(payload: bytes | dict[str, Any] | str, header: bytes | dict[str, Any] | str = HEADER) -> bytes:
    return seal(encode(header) + b"." + encode(payload))


def seal(first: bytes, secret: bytes = SECRET) -> bytes:
    return first + b"." + encode(hmac.digest(secret, first, "sha256"))


def claims(**values: Any) -> bytes:
    return signed(CLAIMS | values)


def without(name: str) -> bytes:
    return signed({key: value for key, value in CLAIMS.items() if key != name})


def header(**values: Any) -> bytes:
    return signed(CLAIMS, HEADER | values)


def by(algorithm: str, private: Any = None, **values: Any) -> bytes:
    """Signed by PyJWT."""
    return jwt.encode(CLAIMS | values, private or private_key(algorithm), algorithm).encode()


def resigned(algorithm: str, change: Any) -> bytes:
    """A good token with another signature: change(its bytes) → bytes."""
    first, _, signature = by(algorithm).rpartition(b".")
    raw = jwt.utils.base64url_decode(signature)
    return first + b"." + encode(change(raw))


def twin(token: bytes) -> bytes:
    """The same signature in another spelling: it differs only in bits that base64 throws away."""
    return token[:-1] + bytes([ALPHABET[ALPHABET.index(token[-1]) ^ 1]])


def with_last(segment: bytes) -> bytes:
    return segment[:-1] + bytes([ALPHABET[ALPHABET.index(segment[-1]) ^ 1]])


def misplaced(token: bytes, part: int, change: Any) -> bytes:
    """Another spelling of the header (0) or the payload (1), signed as it stands."""
    parts = token.split(b".")
    parts[part] = change(parts[part])
    return seal(b".".join(parts[:2]))


VERIFIER = Verifier([issuer(algorithm, name=algorithm) for algorithm in ALGORITHMS if algorithm != "PS512"])


# --- what opens


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_verify__token_made_by_pyjwt__opens(algorithm: str) -> None:
    by_issuer, found = Verifier([issuer(algorithm)]).verify(by(algorithm), NOW)
    assert (by_issuer.name, found) == ("i", CLAIMS)


@pytest.mark.parametrize("algorithm", HMAC_HASHES)
def test_sign__own_token__opens_here_and_with_pyjwt(algorithm: str) -> None:
    for secret in (SECRET, b"k" * 200):
        token = sign(CLAIMS, algorithm, secret)
        assert Verifier([issuer(algorithm, key=secret)]).verify(token.encode(), NOW)[1] == CLAIMS
        options: Any = {"verify_exp": False}
        assert jwt.decode(token, secret, [algorithm], audience="api", options=options) == CLAIMS


GOOD = {
    "as it stands": signed(CLAIMS),
    "without typ": signed(CLAIMS, {"alg": "HS256"}),
    "typ in small letters": header(typ="jwt"),
    "typ of RFC 9068": header(typ="at+jwt"),
    "typ of RFC 9068 in full": header(typ="application/at+jwt"),
    "members nobody knows": header(x5t="x", cty="x", extra=[1]),
    "kid while the key has none": header(kid="any"),
    "several audiences": claims(aud=["other", "api"]),
    "exp with a fraction": claims(exp=NOW + 0.5),
    "nbf now": claims(nbf=NOW),
    "iat long ago": claims(iat=-5),
    "token_type of simplejwt": claims(token_type="access"),
    "nested claims": claims(realm_access={"roles": ["a"]}, list=[{"a": 1}, {"a": 2}]),
    "not ASCII": claims(username="Åda ✓"),
    "a colon and a quote": claims(username='":"'),
    "white space": signed(json.dumps(CLAIMS, indent=2)),
    "without jti": without("jti"),
    "8 KiB": claims(x="y" * 5900),
}


@pytest.mark.parametrize("name", GOOD)
def test_verify__unusual_but_good__opens(name: str) -> None:
    for _ in range(2):  # the second time, the header is known
        assert VERIFIER.verify(GOOD[name], NOW)[0].name == "HS256"


# --- what does not

ES256 = by("ES256").rpartition(b".")[0]
EXP = '{"sub":"7","iss":"brain","aud":"api","exp":'
OWN_JWK = jwt.algorithms.ECAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)


def brought(**values: Any) -> bytes:
    """A stranger's token that says where to find the stranger's key."""
    return jwt.encode(CLAIMS, STRANGER, "ES256", values).encode()


HOSTILE: dict[str, tuple[bytes, str]] = {
    # form
    "nothing": (b"", "header: not JSON"),
    "dots": (b"..", "header: not JSON"),
    "one part": (b"abc", "header: not JSON"),
    "two parts": (signed(CLAIMS).rpartition(b".")[0], "signature: it is that of no key"),
    "two parts, signed": (seal(encode(HEADER)), "payload: not JSON"),
    "four parts": (seal(signed(CLAIMS)), "payload: not base64url"),
    "five parts, a JWE": (b".".join([encode({"alg": "dir", "enc": "A256GCM"}), b"", b"iv", b"text", b"tag"]), "alg: no issuer"),
    "too long": (claims(x="y" * 6200), "longer than 8192 bytes"),
    "bytes that are no text": (b"\xff\xfe.\xff.\xff", "header: not"),
    "a space before": (b" " + signed(CLAIMS), "header: not"),
    "a line end after": (signed(CLAIMS) + b"\n", "signature: it is that of no key"),
    # base64url
    "header padded": (misplaced(signed(CLAIMS, {"alg": "HS256"}), 0, lambda part: part + b"=" * (-len(part) % 4)), "header: not"),
    "header in plain base64": (seal(encode(b'{"alg":"HS256","x":"\xc3\xbf\xc3\xbe>"}').replace(b"-", b"+").replace(b"_", b"/") + b"." + encode(CLAIMS)), "header: not"),
    "header with loose bits": (misplaced(signed(CLAIMS, b'{"alg":"HS256"}  '), 0, with_last), "header: not canonical"),
    "header of a length that cannot be": (b"A." + encode(CLAIMS) + b".AA", "header: not canonical"),
    "payload padded": (misplaced(signed(json.dumps(CLAIMS) + " " * (2 - len(json.dumps(CLAIMS)) % 3)), 1, lambda part: part + b"="), "payload: not"),
    "payload with loose bits": (misplaced(signed(json.dumps(CLAIMS) + " " * (4 - len(json.dumps(CLAIMS)) % 3)), 1, with_last), "payload: not canonical"),
    "payload with a line end": (misplaced(signed(CLAIMS), 1, lambda part: part[:8] + b"\n" + part[8:]), "payload: not"),
    "payload with a NUL": (misplaced(signed(CLAIMS), 1, lambda part: part[:8] + b"\0" + part[8:]), "payload: not"),
    "payload of a length that cannot be": (misplaced(signed(CLAIMS), 1, lambda part: part[: len(part) // 4 * 4] + b"A"), "payload: not canonical"),
    "HMAC signature in another spelling": (twin(signed(CLAIMS)), "signature: it is that of no key"),
    "HMAC signature padded": (signed(CLAIMS) + b"=", "signature: it is that of no key"),
    "RSA signature in another spelling": (twin(by("RS256")), "signature: not canonical base64url"),
    "ECDSA signature in another spelling": (twin(by("ES256")), "signature: not canonical base64url"),
    "Ed25519 signature in another spelling": (twin(by("EdDSA")), "signature: not canonical base64url"),
    "RSA signature padded": (by("RS256") + b"==", "signature: not"),
    # JSON
    "header not JSON": (signed(CLAIMS, "alg"), "header: not JSON"),
    "header a list": (signed(CLAIMS, '["HS256"]'), "header: not a JSON object"),
    "header not UTF-8": (signed(CLAIMS, b'{"alg":"HS256","x":"\xff"}'), "header: not JSON"),
    "header with alg twice": (signed(CLAIMS, '{"alg":"HS256","alg":"HS256"}'), "header: a member is there twice"),
    "header with alg twice, one escaped": (signed(CLAIMS, '{"alg":"none","\\u0061lg":"HS256"}'), "header: a member is there twice"),
    "header with a lone surrogate": (signed(CLAIMS, '{"alg":"HS256","x":"\\ud800"}'), "header: not JSON"),
    "header with NaN": (signed(CLAIMS, '{"alg":"HS256","x":NaN}'), "header: not JSON"),
    "header nested too deeply": (signed(CLAIMS, '{"alg":"HS256","x":' + "[" * 300 + "]" * 300 + "}"), "header: not JSON"),
    "payload not JSON": (signed("hello"), "payload: not JSON"),
    "payload empty": (signed(b""), "payload: not JSON"),
    "payload a text": (signed('"7"'), "payload: not a JSON object"),
    "payload not UTF-8": (signed(EXP.encode() + b'1000060,"x":"\xff"}'), "payload: not JSON"),
    "payload with a byte order mark": (signed(b"\xef\xbb\xbf" + json.dumps(CLAIMS).encode()), "payload: not JSON"),
    "payload with sub twice": (signed(EXP + '1000060,"sub":"8"}'), "payload: a member is there twice"),
    "payload with sub twice, spaced out": (signed(EXP + '1000060,"sub" :"8"}'), "payload: a member is there twice"),
    "payload with sub twice, one escaped": (signed(EXP + '1000060,"s\\u0075b":"8"}'), "payload: a member is there twice"),
    "payload with a member twice further down": (signed(EXP + '1000060,"a":{"b":1,"b":2}}'), "payload: a member is there twice"),
    "payload with a lone surrogate": (signed(EXP + '1000060,"x":"\\udfff"}'), "payload: not JSON"),
    "payload with more behind it": (signed(json.dumps(CLAIMS) + "{}"), "payload: not JSON"),
    "payload a token (nested)": (signed(signed(CLAIMS), HEADER | {"cty": "JWT"}), "payload: not JSON"),
    # header
    "crit": (header(crit=["exp"]), "crit:"),
    "crit empty": (header(crit=[]), "crit:"),
    "b64 false as RFC 7797 asks": (header(crit=["b64"], b64=False), "crit:"),
    "b64 false without crit": (seal(encode(HEADER | {"b64": False}) + b"." + json.dumps(CLAIMS).encode()), "payload: not"),
    "typ of another kind": (header(typ="logout+jwt"), "typ:"),
    "typ of an encrypted token": (header(typ="JWE"), "typ:"),
    "typ not a text": (header(typ=["JWT"]), "typ:"),
    "typ null": (header(typ=None), "typ:"),
    "alg missing": (signed(CLAIMS, {"typ": "JWT"}), "alg: not a text"),
    "alg not a text": (header(alg=["HS256"]), "alg: not a text"),
    "alg none": (encode({"alg": "none"}) + b"." + encode(CLAIMS) + b".", "alg: no issuer"),
    "alg none, signed": (header(alg="none"), "alg: no issuer"),
    "alg None": (header(alg="nOnE"), "alg: no issuer"),
    "alg in small letters": (header(alg="hs256"), "alg: no issuer"),
    "alg that nobody here signs with": (by("PS512"), "alg: no issuer"),
    "alg of another curve": (jwt.encode(CLAIMS, ec.generate_private_key(ec.SECP256K1()), "ES256K").encode(), "alg: no issuer"),
    "kid not a text": (header(kid=7), "kid: not a text"),
    "kid null": (header(kid=None), "kid: not a text"),
    "kid too long": (header(kid="k" * 257), "kid: not a text"),
    # signature
    "no signature": (signed(CLAIMS).rpartition(b".")[0] + b".", "signature: it is that of no key"),
    "another secret": (seal(encode(HEADER) + b"." + encode(CLAIMS), b"x" * 64), "signature: it is that of no key"),
    "another alg's signature": (header(alg="HS512"), "signature: it is that of no key"),
    "half a signature": (signed(CLAIMS)[:-20], "signature: it is that of no key"),
    "payload changed": (signed(CLAIMS).replace(encode(CLAIMS), encode(CLAIMS | {"sub": "8"})), "signature: it is that of no key"),
    "header changed": (signed(CLAIMS).replace(encode(HEADER), encode(HEADER | {"x": 1})), "signature: it is that of no key"),
    "HS256 with the RSA public key as the secret": (seal(encode(HEADER) + b"." + encode(CLAIMS), pem(RSA_KEY)), "signature: it is that of no key"),
    "HS256 with the EC public key as the secret": (seal(encode(HEADER) + b"." + encode(CLAIMS), pem(EC_KEYS["ES256"])), "signature: it is that of no key"),
    "RS256 token said to be PS256": (by("RS256").replace(by("RS256").split(b".")[0], encode({"alg": "PS256"})), "signature: it is that of no key"),
    "RSA signature with a zero before": (resigned("RS256", lambda raw: b"\0" + raw), "signature: it is that of no key"),
    "RSA signature plus the modulus": (resigned("RS256", lambda raw: (int.from_bytes(raw, "big") + RSA_KEY.public_key().public_numbers().n).to_bytes(257, "big")), "signature: it is that of no key"),
    "PSS with a salt of another length": ((first := encode({"alg": "PS256"}) + b"." + encode(CLAIMS)) + b"." + encode(RSA_KEY.sign(first, padding.PSS(padding.MGF1(SHA256()), 20), SHA256())), "signature: it is that of no key"),
    "ES256 of zeros": (ES256 + b"." + encode(bytes(64)), "signature: it is that of no key"),
    "ES256 in DER": (resigned("ES256", lambda raw: encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))), "signature: it is that of no key"),
    "ES256 a byte longer": (resigned("ES256", lambda raw: raw + b"\0"), "signature: it is that of no key"),
    "ES256 with a zero between": (resigned("ES256", lambda raw: raw[:32] + b"\0" + raw[32:]), "signature: it is that of no key"),
    "ES256 cut": (resigned("ES256", lambda raw: raw[:-1]), "signature: it is that of no key"),
    "ES384 with the key of ES256": (resigned("ES384", lambda raw: raw[:64]), "signature: it is that of no key"),
    "EdDSA of zeros": (resigned("EdDSA", lambda raw: bytes(64)), "signature: it is that of no key"),
    "EdDSA cut": (resigned("EdDSA", lambda raw: raw[:63]), "signature: it is that of no key"),
    "a stranger's key brought along as jwk": (brought(jwk=OWN_JWK), "signature: it is that of no key"),
    "a stranger's key at jku": (brought(jku="https://stranger.example/keys"), "signature: it is that of no key"),
    "a stranger's key at x5u": (brought(x5u="https://stranger.example/cert"), "signature: it is that of no key"),
    "a stranger's certificate in x5c": (brought(x5c=["MIIB"]), "signature: it is that of no key"),
    # claims
    "no exp": (without("exp"), "exp: missing"),
    "exp null": (claims(exp=None), "exp: missing"),
    "exp a text": (claims(exp="9999999999"), "exp: missing, or not a time"),
    "exp true": (claims(exp=True), "exp: missing, or not a time"),
    "exp a list": (claims(exp=[2_000_000]), "exp: missing, or not a time"),
    "exp in thirty million years": (claims(exp=1e15 + 2), "exp: missing, or not a time"),
    "exp infinite": (signed(EXP + "1e999}"), "payload: not JSON"),
    "exp Infinity": (signed(EXP + "Infinity}"), "payload: not JSON"),
    "exp NaN": (signed(EXP + "NaN}"), "payload: not JSON"),
    "exp of 400 digits": (signed(EXP + "1" * 400 + "}"), "payload: not JSON"),
    "expired": (claims(exp=NOW - 1), "exp: expired"),
    "expired now": (claims(exp=NOW), "exp: expired"),
    "exp before the epoch": (claims(exp=-1e300), "exp: expired"),
    "nbf to come": (claims(nbf=NOW + 1), "nbf: in the future"),
    "nbf a text": (claims(nbf="1"), "nbf: not a time"),
    "nbf null": (claims(nbf=None), "nbf: not a time"),
    "iat to come": (claims(iat=NOW + 1), "iat: in the future"),
    "iat true": (claims(iat=True), "iat: not a time"),
    "no iss": (without("iss"), "iss:"),
    "iss of another": (claims(iss="brain2"), "iss:"),
    "iss in a list": (claims(iss=["brain"]), "iss:"),
    "no aud": (without("aud"), "aud:"),
    "aud of another": (claims(aud="api2"), "aud:"),
    "aud of others": (claims(aud=["web", "ap"]), "aud:"),
    "aud a longer text": (claims(aud="web api"), "aud:"),
    "aud an object": (claims(aud={"api": 1}), "aud:"),
    "jti not a text": (claims(jti=7), "jti:"),
    "jti a list": (claims(jti=["a"]), "jti:"),
    "a refresh token": (claims(token_type="refresh"), "token_type:"),
    "token_type null": (claims(token_type=None), "token_type:"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_verify__hostile_token__refused_for_its_reason(name: str) -> None:
    token, reason = HOSTILE[name]
    for _ in range(2):  # the second time, nothing that was learnt from the first makes it good
        with pytest.raises(Rejected) as caught:
            VERIFIER.verify(token, NOW)
        assert str(caught.value).startswith(reason)


def test_verify__random_damage__never_opens_and_raises_nothing_else() -> None:
    dice = random.Random(7)
    good = [
        *(by(algorithm) for algorithm in ("HS256", "ES256", "EdDSA")),
        signed(CLAIMS, HEADER | {"kid": "k"}),
    ]
    for _ in range(3000):
        token = bytearray(dice.choice(good))
        for _ in range(dice.choice((1, 1, 2, 5))):
            token[dice.randrange(len(token))] = dice.choice((dice.randrange(256), *ALPHABET[:4], 46))
        if bytes(token) in good:
            continue
        with pytest.raises(Rejected):
            VERIFIER.verify(bytes(token), NOW)


# --- issuers, keys and kids


def test_verify__leeway__the_issuers_own_or_the_verifiers() -> None:
    lenient = Verifier([issuer(), issuer("RS256", leeway_s=5.0)], leeway_s=30)
    for algorithm, leeway_s in (("HS256", 30), ("RS256", 5)):
        assert lenient.verify(by(algorithm, exp=NOW - leeway_s + 1, nbf=NOW + leeway_s), NOW)
        for late in ({"exp": NOW - leeway_s}, {"nbf": NOW + leeway_s + 1}, {"iat": NOW + leeway_s + 1}):
            with pytest.raises(Rejected):
                lenient.verify(by(algorithm, **late), NOW)


def test_verify__issuer_and_audience__not_looked_at_where_empty() -> None:
    open_ = Verifier([issuer(issuer="", audience="")])
    assert open_.verify(claims(iss=7, aud=None), NOW)


def test_verify__token_type__as_asked_for() -> None:
    refresh = claims(token_type="refresh")
    assert VERIFIER.verify(refresh, NOW, token_type="refresh")
    assert VERIFIER.verify(refresh, NOW, token_type=None)
    with pytest.raises(Rejected, match="token_type"):
        VERIFIER.verify(claims(token_type="access"), NOW, token_type="refresh")


def test_verify__issuers_with_one_algorithm__each_by_its_own_key_and_claims() -> None:
    several = Verifier(
        [
            issuer(name="a", issuer="a"),
            issuer(name="b", issuer="b", audience="web"),
            issuer(name="b2", issuer="b"),
            issuer(name="c", issuer="c", key=b"c" * 32),
        ]
    )
    assert several.verify(claims(iss="b"), NOW)[0].name == "b2"
    assert several.verify(claims(iss="b", aud="web"), NOW)[0].name == "b"
    assert several.verify(sign(CLAIMS | {"iss": "c"}, "HS256", b"c" * 32).encode(), NOW)[0].name == "c"
    for token, reason in (
        (claims(iss="c"), "signature"),  # a's key does not sign for c
        (sign(CLAIMS | {"iss": "a"}, "HS256", b"c" * 32).encode(), "signature"),
        (claims(iss="d"), "iss"),
        (claims(iss="b", aud="x"), "aud"),
    ):
        with pytest.raises(Rejected, match=f"^{reason}:"):
            several.verify(token, NOW)


def test_verify__kid_of_a_key__leads_to_it_alone() -> None:
    old, new = issuer(name="old", kid="1", key=b"o" * 32), issuer(name="new", kid="2", key=b"n" * 32)
    both = Verifier([old, new])

    def token(key: bytes, **fields: Any) -> bytes:
        return seal(encode(HEADER | fields) + b"." + encode(CLAIMS), key)

    assert both.verify(token(b"n" * 32, kid="2"), NOW)[0] is new
    assert both.verify(token(b"o" * 32), NOW)[0] is old  # without kid: each is tried
    with pytest.raises(Rejected, match="signature"):
        both.verify(token(b"n" * 32, kid="1"), NOW)
    with pytest.raises(Rejected, match="kid: no key has it"):
        both.verify(token(b"n" * 32, kid="3"), NOW)


class Keys:
    """A source that counts how often its keys are used."""

    def __init__(self, **by_kid: Check) -> None:
        self.by_kid, self.asked, self.tried = by_kid, 0, 0

    def checks(self, kid: str | None) -> Sequence[Check]:
        self.asked += 1
        found = self.by_kid.values() if kid is None else [self.by_kid[kid]] if kid in self.by_kid else []
        return [self._counted(check) for check in found]

    def _counted(self, check: Check) -> Check:
        def counted(signed: bytes, signature: bytes) -> bool:
            self.tried += 1
            return check(signed, signature)

        return counted


def test_verify__source_of_keys__asked_each_time_and_only_its_own_issuers() -> None:
    check = pem_check("ES256", pem(EC_KEYS["ES256"]))
    mine, theirs = Keys(k=check), Keys(k=check)
    both = Verifier([issuer("ES256", source=mine), issuer("ES256", issuer="x", source=theirs)])
    token = jwt.encode(CLAIMS, EC_KEYS["ES256"], "ES256", {"kid": "k"}).encode()
    assert both.verify(token, NOW)[0].source is mine
    del mine.by_kid["k"]  # rotated out
    with pytest.raises(Rejected, match="kid: no key has it"):
        both.verify(token, NOW)
    assert (mine.asked, theirs.asked) == (2, 0)


def test_verify__token_without_kid__tries_a_bounded_number_of_keys() -> None:
    wrong = pem_check("ES256", pem(STRANGER))
    many = Keys(**{f"k{number}": wrong for number in range(200)})
    with pytest.raises(Rejected, match="signature"):
        Verifier([issuer("ES256", source=many)]).verify(by("ES256"), NOW)
    assert many.tried == tokens.MAX_TRIES


def test_verify__header_of_a_stranger__is_not_remembered() -> None:
    verifier = Verifier([issuer()])
    for number in range(300):
        with pytest.raises(Rejected):
            verifier.verify(seal(encode(HEADER | {"x": number}) + b"." + encode(CLAIMS), b"x" * 32), NOW)
    assert not verifier._ways
    for number in range(600):
        verifier.verify(header(x=number), NOW)
    assert len(verifier._ways) <= 256


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("HS256", b""),
        ("none", SECRET),
        ("ES256K", pem(EC_KEYS["ES256"])),
        ("RS256", b"no PEM"),
        ("RS256", pem(EC_KEYS["ES256"])),
        ("PS256", pem(rsa.generate_private_key(65537, 1024))),
        ("ES256", pem(EC_KEYS["ES384"])),
        ("ES512", pem(RSA_KEY)),
        ("EdDSA", pem(EC_KEYS["ES256"])),
        ("EdDSA", SECRET),
    ],
)
def test_verifier__key_that_does_not_fit__value_error(algorithm: str, key: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        Verifier([Issuer("i", algorithm, key)])
    assert "BEGIN" not in str(caught.value).replace("(BEGIN PUBLIC KEY)", "")


def test_verifier__too_many_issuers_or_a_source_for_no_algorithm__value_error() -> None:
    with pytest.raises(ValueError, match="at most 32"):
        Verifier([issuer()] * 33)
    with pytest.raises(ValueError, match="not one of"):
        Verifier([Issuer("i", "none", source=Keys())])


def test_issuer__repr__shows_no_key() -> None:
    assert "sss" not in repr(issuer())


def test_min_secret_bytes__as_long_as_the_hash() -> None:
    assert [tokens.min_secret_bytes(algorithm) for algorithm in HMAC_HASHES] == [32, 48, 64]


def test_ecdsa_twin__is_another_good_signature() -> None:
    """What revoked.digest stands on: (r, n − s) is as good as (r, s)."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    def mirrored(raw: bytes) -> bytes:
        return raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")

    assert VERIFIER.verify(resigned("ES256", mirrored), NOW)
