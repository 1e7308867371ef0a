"""The OpenAPI schema of the site's API."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from foundation import roles
from gateway import urls
from queue_app import urls as queue_urls
from queue_app.selection import FIELDS
from tests.foundation.people import client_of

from .api_rows import problem

SCHEMA = "/api/v1/schema"


@pytest.fixture(scope="module")
def schema() -> Any:
    with GENERATOR_STATS.silence():
        made = SchemaGenerator().get_schema(request=None, public=True)
        assert not GENERATOR_STATS._error_cache, GENERATOR_STATS._error_cache
        assert not GENERATOR_STATS._warn_cache, GENERATOR_STATS._warn_cache
    return made


def test_schema__as_openapi_wants_it__and_every_address_of_gateway_and_queue_in_it(schema: Any) -> None:
    validate_schema(schema)
    for root, patterns in (
        ("/api/v1/gateway/", urls.urlpatterns),
        ("/api/v1/queue/", queue_urls.urlpatterns),
    ):
        served = {root + _named(str(one.pattern)) for one in patterns}
        assert {path for path in schema["paths"] if path.startswith(root)} == served


def _named(pattern: str) -> str:
    """As the schema writes it, which calls a row's key `id` where the model does."""
    return re.sub(r"<\w+:(\w+)>", r"{\1}", pattern).replace("{pk}", "{id}")


def _operations(schema: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, one) for path, methods in schema["paths"].items() for method, one in methods.items()
    ]


def test_schema__every_operation__says_what_it_does_who_may_and_its_problems(schema: Any) -> None:
    for path, method, operation in _operations(schema):
        told = f"{method} {path}"
        is_open = path in ("/api/v1/gateway/token", "/api/v1/gateway/token/refresh")
        assert operation["summary"], told
        assert is_open or re.search(r"Needs the role (viewer|operator|admin)\.$", operation["description"]), (
            told
        )
        assert operation["tags"][0].startswith(("gateway: ", "queue: ", "cache: ", "database: ")), told
        answers = operation["responses"]
        assert any(status.startswith("2") for status in answers), told
        assert {"401", "429" if is_open else "403"} <= set(answers), told
        assert ("404" in answers) == ("{" in path), told
        for status, answer in answers.items():
            if status >= "400":
                assert list(answer["content"]) == ["application/problem+json"], told
    ids = [one["operationId"] for _, _, one in _operations(schema)]
    assert len(ids) == len(set(ids))


def test_schema__secrets__in_requests_alone_and_a_key_where_it_is_made_alone(schema: Any) -> None:
    parts = schema["components"]["schemas"]
    assert "secret" in parts["IssuerRequest"]["properties"]
    assert "secret" not in parts["Issuer"]["properties"]
    assert not any("digest" in part.get("properties", {}) for part in parts.values())
    shown = [
        f"{method} {path}"
        for path, method, operation in _operations(schema)
        if "NewKey'" in str(operation["responses"])
    ]
    assert shown == [
        "post /api/v1/gateway/consumers/{ref}/keys",
        "post /api/v1/gateway/keys",
        "post /api/v1/gateway/keys/{ref}/rotate",
    ]


def test_schema__filters_pages_and_preconditions__are_parameters(schema: Any) -> None:
    def parameters(path: str, method: str) -> set[str]:
        return {one["name"] for one in schema["paths"][_rooted(path)][method]["parameters"]}

    assert parameters("routes", "get") == {
        "name", "search", "path", "host", "service", "plan", "enabled", "ordering", "cursor", "page_size",
    }  # fmt: skip
    assert parameters("plans/{ref}", "put") == {"ref", "If-Match", "If-None-Match"}
    assert parameters("apply", "post") == {"prune", "dry_run", "If-Match"}
    assert "201" in schema["paths"]["/api/v1/gateway/plans/{ref}"]["put"]["responses"]
    assert parameters("../queue/jobs", "get") == {*FIELDS, "cursor", "page_size"}
    assert "412" not in schema["paths"]["/api/v1/queue/queues/{name}"]["patch"]["responses"]


def _rooted(path: str) -> str:
    return f"/api/v1/gateway/{path}".replace("gateway/../", "")


@pytest.mark.django_db
def test_schema__served__to_viewers_as_yaml_and_json(schema: Any) -> None:
    viewer = client_of(roles.VIEWER)
    answer = viewer.get(SCHEMA)
    assert answer.status_code == 200
    assert yaml.safe_load(answer.content)["openapi"] == "3.1.0"
    as_json = viewer.get(SCHEMA, headers={"Accept": "application/json"}).json()
    assert set(as_json["paths"]) == set(schema["paths"])
    problem(Client().get(SCHEMA), 401)
    problem(client_of(None).get(SCHEMA), 403)
