from __future__ import annotations

from typing import Any

import pytest
from django.test import AsyncClient, Client

from foundation import problems

pytestmark = pytest.mark.urls("tests.foundation.urls")
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False, headers={"X-Request-Id": "req-1"})


def problem(answer: Any) -> dict[str, Any]:
    assert answer["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer["X-Request-Id"]
    assert "secret" not in answer.content.decode()
    return body


def test_document__only_a_status__members_of_rfc_9457_without_empty_ones():
    assert problems.document(404) == {"type": "about:blank", "title": "Not Found", "status": 404}


def test_document__extensions_and_unknown_status__kept():
    document = problems.document(499, detail="went away", instance="/x", retry=True)
    assert document["title"] == "Unknown error"
    assert (document["detail"], document["instance"], document["retry"]) == ("went away", "/x", True)


@pytest.mark.parametrize("kind", ["400", "403", "404", "500"])
@pytest.mark.parametrize("headers", [{}, BROWSER])
def test_plain_view__raises_under_api__problem_without_the_reason(client, kind, headers):
    answer = client.get(f"/api/fail/{kind}", headers=headers)
    assert answer.status_code == int(kind)
    body = problem(answer)
    assert body["instance"] == f"/api/fail/{kind}"
    assert body["request_id"] == "req-1"


@pytest.mark.parametrize("kind", ["403", "404", "500"])
def test_plain_view__raises_on_a_page__html_for_browsers_and_problem_for_others(client, kind):
    assert client.get(f"/page/fail/{kind}", headers=BROWSER)["Content-Type"].startswith("text/html")
    problem(client.get(f"/page/fail/{kind}", headers={"Accept": "*/*"}))
    problem(client.get(f"/page/fail/{kind}", headers={"Accept": "application/json"}))


def test_unknown_path__api_and_browser__problem_and_html(client):
    assert problem(client.get("/api/nothing"))["title"] == "Not Found"
    assert client.get("/nothing", headers=BROWSER)["Content-Type"].startswith("text/html")


def test_unknown_path__debug_and_browser__keeps_djangos_page(client, settings):
    settings.DEBUG = True
    assert b"DEBUG = True" in client.get("/nothing", headers=BROWSER).content
    problem(client.get("/api/nothing"))


def test_plain_view__wrong_method__405_names_the_allowed_ones(client):
    answer = client.post("/api/get-only")
    assert problem(answer)["status"] == 405
    assert answer["Allow"] == "GET, HEAD, OPTIONS"


def test_plain_view__bare_error_response__restated_under_api_and_kept_for_browsers(client):
    assert problem(client.get("/api/bare"))["status"] == 404
    assert client.get("/page/bare", headers=BROWSER).content == b"<h1>gone</h1>"


def test_plain_view__body_of_its_own__left_alone(client):
    assert client.get("/api/upstream").content == b"<h1>their page</h1>"


def test_csrf_failure__api_path__problem():
    answer = Client(enforce_csrf_checks=True).post("/api/get-only", headers=BROWSER)
    assert problem(answer)["status"] == 403


async def test_plain_view__async__problem():
    answer = await AsyncClient(raise_request_exception=False).get("/api/afail/404")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 404


def test_drf__invalid_fields__each_with_pointer_detail_and_code(client):
    body = {"lines": [{"sku": "a", "count": 1}, {"count": 0}], "tags": [1, "x"]}
    answer = client.post("/api/orders", body, content_type="application/json")
    found = problem(answer)
    assert answer.status_code == 400
    assert {(e["pointer"], e["code"]) for e in found["errors"]} == {
        ("/email", "required"),
        ("/lines/1/sku", "required"),
        ("/lines/1/count", "min_value"),
        ("/tags/1", "invalid"),
    }
    assert all(e["detail"] for e in found["errors"])


def test_drf__error_of_the_whole_body__points_at_the_whole(client):
    body = {"email": "no-one@example.com", "lines": []}
    answer = client.post("/api/orders", body, content_type="application/json")
    assert problem(answer)["errors"] == [
        {"pointer": "", "detail": "These do not go together.", "code": "conflict"}
    ]


def test_drf__broken_json__400_problem(client):
    answer = client.post("/api/orders", "{", content_type="application/json")
    assert problem(answer)["status"] == 400
    assert "JSON" in problem(answer)["detail"]


def test_drf__throttled__429_with_retry_after(client):
    answer = client.get("/api/orders")
    assert problem(answer)["status"] == 429
    assert answer["Retry-After"] == "7"


def test_drf__wrong_method_and_media_type__405_with_allow_and_415(client):
    answer = client.patch("/api/orders", {}, content_type="application/json")
    assert problem(answer)["status"] == 405
    assert "POST" in answer["Allow"]
    assert problem(client.post("/api/orders", "a=1", content_type="text/csv"))["status"] == 415


def test_drf__unforeseen_exception__500_without_the_reason(client):
    answer = client.put("/api/orders", {}, content_type="application/json")
    assert problem(answer)["status"] == 500
