from __future__ import annotations

import threading

import pytest
import structlog
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from foundation import request_id
from foundation.request_id import RequestIdMiddleware


@pytest.mark.parametrize("value", ["a", "trace-1.2_3", "x" * 128])
def test_accept__valid_id__kept(value):
    assert request_id.accept(value) == value


@pytest.mark.parametrize("value", [None, "", "x" * 129, "a b", "a\n", "id\r\nSet-Cookie: x", "é", "a;b", '"'])
def test_accept__missing_or_dangerous_id__replaced(value):
    accepted = request_id.accept(value)
    assert accepted != value
    assert request_id.accept(accepted) == accepted


def test_bound__inside_and_after__current_and_log_context_follow():
    assert request_id.current() is None
    with request_id.bound("outer"):
        with request_id.bound("inner"):
            assert request_id.current() == "inner"
            assert structlog.contextvars.get_contextvars()["request_id"] == "inner"
        assert request_id.current() == "outer"
    assert request_id.current() is None
    assert "request_id" not in structlog.contextvars.get_contextvars()


def _request(sent: str | None) -> HttpRequest:
    return RequestFactory().get("/", **({"HTTP_X_REQUEST_ID": sent} if sent else {}))


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1", True), ("bad id", False), (None, False)])
def test_middleware__sync__view_header_and_answer_carry_one_id(sent, is_kept):
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.extend(
            [request_id.current(), request.META["HTTP_X_REQUEST_ID"], request.headers["X-Request-Id"]]
        )
        return HttpResponse()

    answer = RequestIdMiddleware(view)(_request(sent))
    assert {*seen, answer["X-Request-Id"]} == {seen[0]}
    assert (seen[0] == sent) is is_kept
    assert request_id.current() is None


def test_middleware__headers_were_read_before__the_accepted_id_is_seen_all_the_same():
    request = _request("bad id")
    assert request.headers["X-Request-Id"] == "bad id"
    RequestIdMiddleware(lambda r: HttpResponse(r.headers["X-Request-Id"]))(request)
    assert request.headers["X-Request-Id"] != "bad id"


async def test_middleware__async__same_id_and_no_other_thread():
    seen = []

    async def view(request: HttpRequest) -> HttpResponse:
        seen.extend([request_id.current(), threading.get_ident()])
        return HttpResponse()

    answer = await RequestIdMiddleware(view)(_request("abc"))
    assert seen == ["abc", threading.get_ident()]
    assert answer["X-Request-Id"] == "abc"


def test_middleware__view_raises__id_is_unbound():
    def view(request: HttpRequest) -> HttpResponse:
        raise LookupError

    with pytest.raises(LookupError):
        RequestIdMiddleware(view)(_request("abc"))
    assert request_id.current() is None
