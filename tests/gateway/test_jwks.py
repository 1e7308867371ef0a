"""Keys published at a URL: which are used, when they are fetched, and from where."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from foundation import url_guard
from gateway import jwk, jwks
from gateway.jwks import Jwks, Unusable
from gateway.tokens import Issuer, Rejected, Verifier
from tests.certificates import self_signed

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY, NEW_EC_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PUBLIC = {
    "RS256": (RSA_KEY, jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)),
    "PS512": (RSA_KEY, jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)),
    "ES256": (EC_KEY, jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True)),
    "EdDSA": (ED_KEY, jwt.algorithms.OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True)),
}
P256, P384 = (
    PUBLIC["ES256"][1],
    jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True),
)
NEW_P256 = jwt.algorithms.ECAlgorithm.to_jwk(NEW_EC_KEY.public_key(), as_dict=True)
SMALL = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
SECRET_EC = jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY, as_dict=True)


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def token(private: Any = EC_KEY, algorithm: str = "ES256", **header: Any) -> bytes:
    return jwt.encode({"sub": "7", "exp": 2000}, private, algorithm, header).encode()


# --- which keys are used


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_parse__public_key__checks_what_it_signed(algorithm: str) -> None:
    private, public = PUBLIC[algorithm]
    found = jwk.parse(document(public | {"kid": "k", "use": "sig", "alg": algorithm}), algorithm)
    (check,) = found.of("k")
    signed, _, signature = token(private, algorithm).rpartition(b".")
    assert check(signed, signature)
    assert not check(signed + b"x", signature)
    assert (found.of("other"), found.of(None), found.ignored) == ((), [check], ())


IGNORED: dict[str, tuple[Any, str]] = {
    "not an object": (["kty"], "not an object"),
    "a secret": ({"kty": "oct", "k": "AAAA"}, "a secret"),
    "no kty": ({}, "its kty"),
    "an unknown kty": ({"kty": "LMS"}, "its kty"),
    "a kty that is a list": ({"kty": ["EC"]}, "its kty"),
    "for encryption": (P256 | {"use": "enc"}, "its use"),
    "for deriving": (P256 | {"key_ops": ["deriveKey"]}, "its key_ops"),
    "key_ops a text": (P256 | {"key_ops": "verify"}, "its key_ops"),
    "of another algorithm": (P256 | {"alg": "ES384"}, "its alg is not ES256"),
    "a private key": (SECRET_EC, "a private key"),
    "of another curve": (P384, "ES256 needs"),
    "of an unknown curve": (P256 | {"crv": "secp256k1"}, "its crv"),
    "of a curve that is a list": (P256 | {"crv": []}, "its crv"),
    "of another kind": (PUBLIC["RS256"][1], "ES256 needs"),
    "Ed448": ({"kty": "OKP", "crv": "Ed448", "x": "AAAA"}, "its crv"),
    "not on the curve": (P256 | {"x": P256["y"]}, ""),
    "x cut": (P256 | {"x": "A" * 42}, "its x or y"),
    "x missing": ({key: value for key, value in P256.items() if key != "x"}, "its x is missing"),
    "x a number": (P256 | {"x": 7}, "its x is missing"),
    "x padded": (P256 | {"x": P256["x"] + "="}, "its x is not"),
    "x not ASCII": (P256 | {"x": "é" * 43}, "its x is missing"),
    "a kid that is a number": (P256 | {"kid": 7}, "its kid"),
    "a kid too long": (P256 | {"kid": "k" * 257}, "its kid"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_parse__key_that_is_not_to_be_used__ignored_for_its_reason(name: str) -> None:
    key, reason = IGNORED[name]
    found = jwk.parse(document(key, P256 | {"kid": "good"}), "ES256")
    assert (list(found.by_kid), found.without_kid) == (["good"], ())
    assert reason in found.ignored[0]
    with pytest.raises(
        ValueError, match="no key for ES256; key 1: " if name != "a kid too long" else "no key"
    ):
        jwk.parse(document(key), "ES256")


def test_parse__rsa_keys__of_a_good_size_only() -> None:
    good = PUBLIC["RS256"][1]
    for bad, reason in ((SMALL, "2048"), (good | {"e": "A" * 16}, "its e"), (good | {"e": "AA"}, "")):
        (line,) = jwk.parse(document(bad, good), "RS256").ignored
        assert reason in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no list of keys"),
        (b'{"keys":{}}', "no list of keys"),
        (b'{"keys":[],"keys":[]}', "twice"),
        (document(), "no key for ES256"),
        (document(*[P256] * 33), "more than 32 keys"),
    ],
)
def test_parse__not_a_key_set__value_error(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        jwk.parse(text, "ES256")


def test_parse__keys_with_one_kid_or_none__all_of_them() -> None:
    found = jwk.parse(document(P256 | {"kid": "a"}, NEW_P256 | {"kid": "a"}, P256), "ES256")
    assert [len(found.of(kid)) for kid in ("a", "b", None)] == [3, 1, 3]


# --- when they are fetched


class Rig:
    """A Jwks whose fetches answer from a list, run when `run` is called, and cost no time."""

    def __init__(self) -> None:
        self.now, self.fetches = 50.0, 0
        self.answer: Any = document(P256 | {"kid": "a"})
        self.waiting: list[Callable[[], None]] = []
        self.jwks = Jwks(
            "https://issuer.example/keys",
            "ES256",
            fetch=self.fetch,
            clock=lambda: self.now,
            wall=lambda: self.now + 1_000_000,
            start=self.waiting.append,
        )

    def fetch(self, url: str) -> tuple[bytes, float]:
        self.fetches += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, 300.0

    def run(self) -> int:
        """The fetches that were waiting."""
        count = len(self.waiting)
        while self.waiting:
            self.waiting.pop()()
        return count

    def asks(self, kid: str | None = "a", after_s: float = 0.0) -> tuple[int, int]:
        """How many keys a token gets at once, and how many fetches that sets off."""
        self.now += after_s
        return len(self.jwks.checks(kid)), self.run()


def test_checks__first_token__refused_and_the_next_one_good() -> None:
    rig = Rig()
    verifier = Verifier([Issuer("i", "ES256", source=rig.jwks)])
    with pytest.raises(Rejected, match="kid: no key has it"):
        verifier.verify(token(kid="a"), 0.0)
    assert rig.fetches == 0  # nothing was waited for
    assert rig.run() == 1
    assert verifier.verify(token(kid="a"), 0.0)
    assert verifier.verify(token(), 0.0)


def test_checks__stale_keys__used_while_they_are_fetched_again() -> None:
    rig = Rig()
    rig.jwks.keep_fresh()
    assert rig.run() == 1
    assert rig.asks(after_s=299) == (1, 0)
    rig.jwks.keep_fresh()
    assert rig.run() == 0
    assert rig.asks(after_s=1) == (1, 1)
    rig.now += 300
    assert len(rig.jwks.checks("a")) == len(rig.jwks.checks("a")) == 1
    assert rig.run() == 1  # one at a time


def test_checks__unknown_kid__fetched_once_in_half_a_minute() -> None:
    rig = Rig()
    rig.asks()
    rig.answer = document(P256 | {"kid": "a"}, NEW_P256 | {"kid": "b"})
    assert rig.asks("b") == (0, 1)  # rotated: the next one is good
    assert rig.asks("b") == (1, 0)
    for number in range(100):
        assert rig.asks(f"made-up-{number}", after_s=0.25) == (0, 0)
    assert rig.asks("made-up", after_s=5) == (0, 1)
    assert rig.fetches == 3


def test_checks__rotated_out__no_longer_good() -> None:
    rig = Rig()
    rig.asks()
    rig.answer = document(NEW_P256 | {"kid": "b"})
    rig.asks("b")
    assert rig.asks("a", after_s=1) == (0, 0)
    assert rig.asks("b") == (1, 0)


@pytest.mark.parametrize("failure", [Unusable("no answer"), b"<html>", document(), ValueError("odd")])
def test_checks__fetch_fails__last_keys_stay_for_a_day(failure: Any) -> None:
    rig = Rig()
    rig.asks()
    rig.answer = failure
    assert rig.asks(after_s=300) == (1, 1)
    assert rig.jwks.status().error
    assert rig.asks(after_s=29) == (1, 0)
    assert rig.asks(after_s=1) == (1, 1)
    assert rig.asks(after_s=jwks.MAX_AGE_S - 331) == (1, 1)
    assert rig.asks(after_s=1) == (0, 0)
    rig.answer = document(P256 | {"kid": "a"})
    assert rig.asks(after_s=30) == (0, 1)
    assert rig.asks() == (1, 0)
    assert rig.jwks.status().error == ""


def test_checks__no_keys_yet__fetched_again_soon_and_then_less_often() -> None:
    rig = Rig()
    rig.answer = Unusable("no answer")
    assert rig.asks() == (0, 1)
    for wait_s in (1, 2, 4, 8, 16, 30, 30):
        assert rig.asks(after_s=wait_s - 0.5) == (0, 0)
        assert rig.asks(after_s=0.5) == (0, 1)
    rig.answer = document(P256 | {"kid": "a"})
    assert rig.asks(after_s=30) == (0, 1)
    rig.answer = Unusable("no answer")
    assert rig.asks(after_s=300) == (1, 1)
    assert rig.asks(after_s=29) == (1, 0)


def test_checks__no_thread_to_be_had__refused_and_tried_later() -> None:
    rig = Rig()

    def refuse(work: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    rig.jwks._start = refuse
    assert rig.asks() == (0, 0)
    assert rig.jwks.status().error == "can't start new thread"
    rig.jwks._start = rig.waiting.append
    assert rig.asks() == (0, 0)
    assert rig.asks(after_s=30) == (0, 1)


def test_refresh__something_unforeseen__the_next_fetch_still_happens() -> None:
    rig = Rig()
    rig.answer = KeyError("odd")
    rig.jwks.keep_fresh()
    with pytest.raises(KeyError):
        rig.run()
    assert rig.asks() == (0, 0)
    rig.answer = document(P256 | {"kid": "a"})
    assert rig.asks(after_s=30) == (0, 1)
    assert rig.asks() == (1, 0)


def test_status__for_people() -> None:
    rig = Rig()
    assert rig.jwks.status() == jwks.Status(rig.jwks.url, None, 1_000_050.0, "", (), ())
    rig.answer = document(P256 | {"kid": "a"}, {"kty": "oct", "kid": "s"})
    rig.asks()
    rig.now += 10
    found = rig.jwks.status()
    assert (found.fetched_at, found.next_at, found.error, found.kids) == (
        1_000_050.0,
        1_000_350.0,
        "",
        ("a",),
    )
    assert found.ignored == ("s: a secret, which has no place where others can read it",)
    rig.answer = Unusable("the answer's status is 500")
    rig.asks(after_s=290)
    found = rig.jwks.status()
    assert (found.fetched_at, found.next_at, found.kids) == (1_000_050.0, 1_000_380.0, ("a",))
    assert found.error == "the answer's status is 500"


@pytest.mark.parametrize(
    ("header", "fresh_s"),
    [
        ("", 300),
        ("public, max-age=600", 600),
        ("MAX-AGE=600,must-revalidate", 600),
        ("max-age=0", 60),
        ("max-age=999999", 3600),
        ("s-maxage=600", 300),
        ("max-age=soon", 300),
        ("max-age=" + "9" * 5000, 300),
    ],
)
def test_fresh_for_s__cache_control__within_bounds(header: str, fresh_s: float) -> None:
    assert jwks.fresh_for_s(header) == fresh_s


# --- from where


class Publisher(ThreadingHTTPServer):
    daemon_threads = True
    scheme, host = "http", "127.0.0.1"
    body, status = document(P256 | {"kid": "a"}), 200
    headers: dict[str, str] = {}
    released: threading.Event | None = None  # until when more of the body drips

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.server_address[1]}/keys"

    def handle_error(self, *_: Any) -> None:
        """Clients that go away, and TLS that they refuse, are what is tested."""


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        publisher: Any = self.server
        self.send_response(publisher.status)
        for name, value in {"Content-Length": str(len(publisher.body)), **publisher.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(publisher.body)
        if publisher.released is not None:
            with suppress(OSError):
                while not publisher.released.wait(0.03):
                    self.wfile.write(b" ")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def publishing(context: ssl.SSLContext | None = None) -> Iterator[Publisher]:
    with Publisher(("127.0.0.1", 0), Answering) as publisher:
        if context is not None:
            publisher.socket = context.wrap_socket(
                publisher.socket, server_side=True, do_handshake_on_connect=False
            )
            publisher.scheme, publisher.host = "https", "localhost"
        thread = threading.Thread(target=publisher.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield publisher
        finally:
            publisher.shutdown()
            thread.join()


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(jwks, "TIMEOUT_S", 30.0)
    with publishing() as running:
        yield running


def test_fetch__document__with_its_freshness(publisher: Publisher) -> None:
    publisher.headers = {"Cache-Control": "public, max-age=900"}
    assert jwks.fetch(publisher.url) == (publisher.body, 900.0)


def test_jwks__with_its_own_thread__fetches_behind_the_token(publisher: Publisher) -> None:
    source = Jwks(publisher.url, "ES256")
    assert source.checks("a") == ()
    for thread in threading.enumerate():
        if thread.name == "jwks":
            thread.join(30)
    assert len(source.checks("a")) == 1
    assert source.status().kids == ("a",)


@pytest.mark.parametrize("status", [204, 301, 302, 404, 500])
def test_fetch__another_status__unusable_and_no_redirect_followed(publisher: Publisher, status: int) -> None:
    publisher.status, publisher.headers = status, {"Location": publisher.url}
    with pytest.raises(Unusable, match=f"status is {status}"):
        jwks.fetch(publisher.url)


def test_fetch__document_too_long__unusable(publisher: Publisher) -> None:
    publisher.body = b" " * (jwks.MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(Unusable, match="longer than"):
        jwks.fetch(publisher.url)


def test_fetch__nobody_there__unusable() -> None:
    with socket.socket() as kept:  # so that nobody else comes to listen there
        kept.bind(("127.0.0.1", 0))
        with pytest.raises(Unusable, match="no answer"):
            jwks.fetch(f"http://127.0.0.1:{kept.getsockname()[1]}/keys")


def test_fetch__half_a_document__unusable(publisher: Publisher) -> None:
    publisher.headers = {"Content-Length": "60000"}
    with pytest.raises(Unusable, match="broke off"):
        jwks.fetch(publisher.url)


def test_fetch__body_that_drips__given_up_in_time(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "TIMEOUT_S", 0.15)
    publisher.headers = {"Content-Length": "60000"}
    publisher.released = threading.Event()
    started = time.monotonic()
    with pytest.raises(Unusable):
        jwks.fetch(publisher.url)
    publisher.released.set()
    assert time.monotonic() - started < 30


def test_fetch__address_that_is_not_allowed__unusable(publisher: Publisher, settings: Any) -> None:
    settings.BRAIN = settings.BRAIN | {"FOUNDATION": {"ALLOW_LOOPBACK_TARGETS": False}}
    with pytest.raises(Unusable, match="loopback"):
        jwks.fetch(publisher.url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://1.1.1.1/keys", "https"),
        ("file:///etc/passwd", "scheme"),
        ("https://user:password@1.1.1.1/", "user name"),
        ("https://169.254.169.254/keys", "link-local"),
    ],
)
def test_check_url__not_to_be_trusted__refused(url: str, reason: str) -> None:
    with pytest.raises(url_guard.Refused, match=reason):
        jwks.check_url(url)


def test_check_url__https_anywhere_and_http_nearby__good() -> None:
    for url in ("https://1.1.1.1/keys", "http://127.0.0.1/keys", "http://10.0.0.1/keys"):
        assert jwks.check_url(url).host in url


def test_fetch__over_tls__certificate_and_name_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    with publishing(context) as publisher:
        with pytest.raises(Unusable, match="SSLCertVerificationError"):
            jwks.fetch(publisher.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
        assert jwks.fetch(publisher.url)[0] == publisher.body
        with pytest.raises(Unusable, match="SSLCertVerificationError"):  # not the certificate's name
            jwks.fetch(publisher.url.replace("localhost", "127.0.0.1"))
