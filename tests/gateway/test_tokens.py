from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.tokens import Issuer, Rejected, Verifier, sign

SECRET = b"s" * 32
NOW = 1_000_000.0
CLAIMS = {"sub": "7", "exp": NOW + 60}


def encode(data: bytes | dict[str, Any] | str) -> bytes:
    raw = (
        json.dumps(data).encode()
        if isinstance(data, dict)
        else data.encode()
        if isinstance(data, str)
        else data
    )
    return urlsafe_b64encode(raw).rstrip(b"=")


def verifier(**values: Any) -> Verifier:
    given = {"name": "i", "algorithm": "HS256", "key": SECRET} | values
    return Verifier([Issuer(**given)])


def signed(payload: bytes | dict[str, Any] | str, header: dict[str, Any] | str | None = None) -> bytes:
    import hmac

    first = encode(header if header is not None else {"alg": "HS256", "typ": "JWT"}) + b"." + encode(payload)
    return first + b"." + encode(hmac.digest(SECRET, first, "sha256"))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_sign__own_token__verifies(algorithm: str) -> None:
    token = sign(CLAIMS, algorithm, SECRET).encode()
    assert verifier(algorithm=algorithm).verify(token, NOW) == ("i", CLAIMS)


def test_sign__long_secret__verifies() -> None:
    secret = b"k" * 200
    assert verifier(key=secret).verify(sign(CLAIMS, "HS256", secret).encode(), NOW)[0] == "i"


def test_verify__agrees_with_pyjwt() -> None:
    import jwt

    token = jwt.encode(CLAIMS, SECRET, "HS256")
    assert verifier().verify(token.encode(), NOW)[1] == CLAIMS


HOSTILE = {
    "alg none": encode({"alg": "none"}) + b"." + encode(CLAIMS) + b".",
    "alg none signed": signed(CLAIMS, {"alg": "none"}),
    "other algorithm": sign(CLAIMS, "HS512", SECRET).encode(),
    "wrong key": sign(CLAIMS, "HS256", b"x" * 32).encode(),
    "crit": signed(CLAIMS, {"alg": "HS256", "crit": ["exp"]}),
    "wrong typ": signed(CLAIMS, {"alg": "HS256", "typ": "JWE"}),
    "alg not a text": signed(CLAIMS, {"alg": ["HS256"]}),
    "duplicate claim": signed('{"exp": 2000000, "sub": "7", "sub": "8"}'),
    "duplicate alg": signed(CLAIMS, '{"alg": "HS256", "alg": "HS256"}'),
    "no exp": signed({"sub": "7"}),
    "expired": signed(CLAIMS | {"exp": NOW - 1}),
    "expires now": signed(CLAIMS | {"exp": NOW}),
    "exp a text": signed(CLAIMS | {"exp": "9999999999"}),
    "exp true": signed(CLAIMS | {"exp": True}),
    "exp infinite": signed('{"exp": Infinity}'),
    "exp 1e999": signed('{"exp": 1e999}'),
    "exp NaN": signed('{"exp": NaN}'),
    "not yet": signed(CLAIMS | {"nbf": NOW + 60}),
    "issued in the future": signed(CLAIMS | {"iat": NOW + 3600}),
    "refresh token": signed(CLAIMS | {"token_type": "refresh"}),
    "payload a list": signed("[1]"),
    "payload not UTF-8": signed(b'{"exp": 2000000, "sub": "\xff"}'),
    "payload UTF-16": signed('{"exp": 2000000}'.encode("utf-16")),
    "deep payload": signed("[" * 3000),
    "long number": signed('{"exp": ' + "9" * 5000 + "}"),
    "padding": sign(CLAIMS, "HS256", SECRET).encode() + b"=",
    "four parts": sign(CLAIMS, "HS256", SECRET).encode() + b".x",
    "two parts": sign(CLAIMS, "HS256", SECRET).encode().rpartition(b".")[0],
    "plain base64 characters": b"+" + sign(CLAIMS, "HS256", SECRET).encode(),
    "too long": signed(CLAIMS | {"x": "y" * 9000}),
    "empty": b"",
    "dots": b"..",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_verify__hostile_token__rejected(name: str) -> None:
    with pytest.raises(Rejected):
        verifier().verify(HOSTILE[name], NOW)


def test_verify__second_spelling_of_the_signature__rejected() -> None:
    token = sign(CLAIMS, "HS256", SECRET).encode()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    twin = token[:-1] + bytes([alphabet[last ^ 1]])  # differs only in bits that base64 throws away
    with pytest.raises(Rejected):
        verifier().verify(twin, NOW)


def test_verify__issuer_and_audience__required_where_they_are_set() -> None:
    strict = verifier(issuer="brain", audience="api")
    good = CLAIMS | {"iss": "brain", "aud": ["other", "api"]}
    assert strict.verify(signed(good), NOW)[1]["sub"] == "7"
    for wrong in ({"iss": "x", "aud": "api"}, {"iss": "brain", "aud": "x"}, {"iss": "brain"}, {"aud": "api"}):
        with pytest.raises(Rejected):
            strict.verify(signed(CLAIMS | wrong), NOW)


def test_verify__leeway__for_clocks_that_differ() -> None:
    lenient = Verifier([Issuer("i", "HS256", SECRET)], leeway_s=30)
    assert lenient.verify(signed(CLAIMS | {"exp": NOW - 29}), NOW)
    with pytest.raises(Rejected):
        lenient.verify(signed(CLAIMS | {"exp": NOW - 31}), NOW)


def test_verify__two_issuers_with_one_algorithm__each_by_its_own_claims() -> None:
    both = Verifier([Issuer("a", "HS256", SECRET, issuer="a"), Issuer("b", "HS256", SECRET, issuer="b")])
    assert both.verify(signed(CLAIMS | {"iss": "b"}), NOW)[0] == "b"


def test_verify__rs256_and_es256__by_public_key_and_never_by_it_as_a_secret() -> None:
    rsa_key, ec_key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    rsa_pem, ec_pem = (
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key in (rsa_key, ec_key)
    )
    both = Verifier([Issuer("r", "RS256", rsa_pem), Issuer("e", "ES256", ec_pem)])
    first = encode({"alg": "RS256"}) + b"." + encode(CLAIMS)
    token = first + b"." + encode(rsa_key.sign(first, padding.PKCS1v15(), SHA256()))
    assert both.verify(token, NOW)[0] == "r"
    first = encode({"alg": "ES256"}) + b"." + encode(CLAIMS)
    r, s = decode_dss_signature(ec_key.sign(first, ec.ECDSA(SHA256())))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert both.verify(first + b"." + encode(raw), NOW)[0] == "e"
    for forged in (
        sign(CLAIMS, "HS256", rsa_pem).encode(),  # the classic confusion of RS256 and HS256
        first + b"." + encode(raw + b"\0"),
        first + b"." + encode(bytes(64)),
        token[:-4] + b"AAAA",
    ):
        with pytest.raises(Rejected):
            both.verify(forged, NOW)


def test_verifier__key_that_does_not_fit__value_error() -> None:
    small = (
        rsa.generate_private_key(65537, 1024)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for algorithm, key in (
        ("RS256", small),
        ("ES256", small),
        ("HS256", b""),
        ("PS256", SECRET),
        ("RS256", b"no PEM"),
    ):
        with pytest.raises(ValueError):
            Verifier([Issuer("i", algorithm, key)])
