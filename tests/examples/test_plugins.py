from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from examples.plugins import FeatureFlag, SignRequests
from gateway import hooks, plugins
from gateway.plugins import Failure, Request, Response

KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    return str(path)


def test_sign_requests__any_request__carries_the_signature_of_what_is_sent(key_file: str) -> None:
    request = Request("POST", b"/v2/pay", b"a=1", [(b"x-gateway-signature", b"forged")], request_id="r1")
    SignRequests(key_file).on_request(request)
    expected = hmac.new(KEY, b"POST\n/v2/pay\na=1\nr1", hashlib.sha256).hexdigest()
    assert request.header("X-Gateway-Signature") == expected


def test_sign_requests__response__does_not_tell_what_made_it(key_file: str) -> None:
    response = Response(200, [(b"x-powered-by", b"x"), (b"A", b"b")])
    SignRequests(key_file).on_response(Request(), response)
    assert response.headers == [(b"A", b"b")]


def test_feature_flag__closed__only_its_consumers_pass() -> None:
    flag = FeatureFlag("new-checkout", consumers=["ann"])
    assert flag.on_request(Request(consumer_name="ann")) is None
    reply = flag.on_request(Request(consumer_name="bob"))
    assert reply is not None
    assert (reply.status, reply.body) == (403, b"new-checkout is not open for you yet.\n")
    assert FeatureFlag("new-checkout", [], is_open=True).on_request(Request()) is None


def test_feature_flag__failure__told_to_its_consumers_only() -> None:
    flag, failure = FeatureFlag("f", ["ann"]), Failure(504, "upstream_timeout", "No answer.")
    reply = flag.on_error(Request(consumer_name="ann"), failure)
    assert reply is not None
    assert reply.body == b"upstream_timeout: No answer.\n"
    assert flag.on_error(Request(consumer_name="bob"), failure) is None


def test_both__as_the_gateway_loads_them__in_one_chain(key_file: str, tmp_path: Path) -> None:
    allowed = ("examples.plugins.SignRequests", "examples.plugins.FeatureFlag")
    rows = [
        hooks.Row("flag", allowed[1], {"flag": "f", "consumers": ["ann"]}),
        hooks.Row("sign", allowed[0], {"key_file": key_file}, "refuse"),
    ]
    chain = hooks.compile(rows, hooks.Watch(), allowed)
    assert chain is not None
    request = Request(consumer_name="ann")
    assert chain.on_request(request) is None
    assert request.header("X-Gateway-Signature") is not None
    (tmp_path / "short").write_bytes(b"short")
    told = plugins.problems(allowed[0], {"key_file": str(tmp_path / "short")}, allowed)
    assert told == [
        "settings: examples.plugins.SignRequests does not take them: ValueError: the key has fewer than 32 bytes"
    ]
