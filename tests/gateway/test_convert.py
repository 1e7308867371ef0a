"""`manage.py gateway convert`: from somebody else's file to a configuration that is applied as it is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command

from foundation.commands import Failed
from gateway import config
from gateway.errors import InvalidDocument
from gateway.models import JwtIssuer, Route, Service, Target

FILES = Path(__file__).parent / "files"
pytestmark = pytest.mark.django_db


def run(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command("gateway", *arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(("kind", "file"), [("kong", "kong.yml"), ("openapi", "openapi.yaml")])
def test_convert__apply__diff_is_empty(kind: str, file: str, tmp_path: Path) -> None:
    code, text, said = run("convert", kind, str(FILES / file))
    assert (code, "look at it, then `manage.py gateway diff` it" in said) == (0, True)
    assert text.startswith("# ")
    made = tmp_path / "made.yaml"
    made.write_text(text)
    assert run("validate", str(made))[0] == 0
    assert run("apply", str(made))[0] == 0
    assert run("diff", "--prune", str(made))[:2] == (0, "no difference\n")
    config.apply(config.load(config.export()), prune=True, actor="tester", source="cli")
    assert run("diff", str(made))[0] == 0


def test_convert_kong__what_it_says__is_what_the_rows_have(tmp_path: Path) -> None:
    made = tmp_path / "made.yaml"
    made.write_text(run("convert", "kong", str(FILES / "kong.yml"))[1])
    run("apply", str(made))
    tasks = Service.objects.get(name="tasks")
    assert (tasks.health_path, tasks.retries, tasks.strategy) == ("/healthz", 3, "weighted")
    assert set(Target.objects.filter(service=tasks).values_list("url", "weight", "state")) == {
        ("http://10.0.0.1:8080", 2, "active"), ("http://10.0.0.2:8080", 1, "active"),
        ("http://10.0.0.3:8000", 1, "off"),
    }  # fmt: skip
    assert Route.objects.get(name="tasks-v1").host_header == "preserve"
    assert JwtIssuer.objects.get(name="partner").issuer == "partner-iss"


def test_convert_openapi__target__instead_of_the_description_s_servers() -> None:
    file = str(FILES / "openapi.yaml")
    text = run("convert", "openapi", file, "--target", "http://10.0.0.9:80")[1]
    assert yaml.safe_load(text)["services"] == {"pet-store": {"targets": ["http://10.0.0.9:80"]}}
    with pytest.raises(Failed, match="--target http://h/base: a target has no path") as refused:
        run("convert", "openapi", file, "--target", "http://h/base")
    assert refused.value.returncode == 2


def test_convert__json__document_notes_and_problems() -> None:
    told = json.loads(run("convert", "kong", str(FILES / "kong.yml"), "--json")[1])
    assert set(told) == {"yaml", "notes", "problems"}
    assert len(told["notes"]) > 20
    assert told["problems"] == []


def test_convert__what_cannot_be_applied_as_it_is__printed_and_exit_3(tmp_path: Path) -> None:
    file = tmp_path / "kong.yml"
    file.write_text(
        '{_format_version: "3.0", services: [{name: s, url: "http://169.254.169.254/", routes: [{name: r}]}]}'
    )
    code, text, said = run("convert", "kong", str(file))
    assert (code, "169.254.169.254" in text) == (3, True)
    assert "to mend before it can be applied: line" in said


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("kong", "openapi: 3.0.0", "this is no declarative configuration of Kong"),
        ("openapi", "swagger: '2.0'", "swagger (line 1): 2.0 is not OpenAPI 3"),
        ("openapi", "openapi: 3.0.0\npaths: {/a: {get: {}}}", "servers: no server has a host"),
        ("kong", "[" * 100_000, "nested too deep"),
    ],
)
def test_convert__another_file__refused_with_a_hint(kind: str, text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(Failed) as refused:
        run("convert", kind, str(file))
    assert (told in str(refused.value), refused.value.returncode) == (True, 1)
    assert "docs/gateway-import.md" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("_format_version: '3.0'\nservices: []", "this is a configuration of Kong; convert it first"),
        ('{"openapi": "3.0.0", "paths": {}}', "this is an OpenAPI description; convert it first"),
        (
            "info: {}\nopenapi: 3.0.0\npaths: {/a: {get: {responses: {200: {}}}}}",
            "gateway convert openapi FILE",
        ),
        ("swagger: '2.0'", "this is a description of an API"),
    ],
)
def test_load__somebody_else_s_format__one_line_that_says_to_convert_it(text: str, told: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        config.load(text)
    (problem,) = refused.value.problems
    assert told in problem


def test_load__document_that_only_speaks_of_one__loads() -> None:
    config.load("# openapi: 3.0.0\nplans: {openapi: {requests_per_minute: 1}}")


def realistic_kong(services: int) -> dict[str, Any]:
    """A deck dump as teams have them: pairs of routes, consumers with keys, plugins at each level."""
    return {
        "_format_version": "3.0",
        "services": [
            {
                "name": f"svc_{i}", "host": f"svc{i}.internal", "port": 8080, "protocol": "http", "path": "/v1",
                "connect_timeout": 60000, "read_timeout": 60000, "write_timeout": 60000, "retries": 5,
                "routes": [
                    {"name": f"svc {i} öffentlich", "paths": [f"/svc{i}/", f"~/s{i}/(?<id>[a-z]+|\\d+)$|/old{i}"],
                     "methods": ["GET"], "protocols": ["http", "https"], "hosts": ["*.Example.com", "bad_host"]},
                    {"paths": [f"/svc{i}"], "methods": ["POST"], "strip_path": False,
                     "plugins": [{"name": "key-auth"}, {"name": "rate-limiting", "config": {"second": 10, "policy": "local"}}]},
                ],
            }
            for i in range(services)
        ],
        "consumers": [
            {"username": f"user {i}@example.com", "keyauth_credentials": [{"key": f"key-number-{i}"}],
             "jwt_secrets": [{"key": f"iss-{i}", "secret": "0123456789abcdef0123456789abcdef", "algorithm": "HS256"}],
             "acls": [{"group": "a b"}]}
            for i in range(40)
        ],
        "plugins": [{"name": "rate-limiting", "config": {"minute": 600, "limit_by": "ip"}}],
    }  # fmt: skip


def test_convert_kong__a_realistic_dump__applied_without_a_change_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "kong.yml"
    file.write_text(yaml.safe_dump(realistic_kong(10)))
    code, text, said = run("convert", "kong", str(file))
    assert code == 0, said
    made = tmp_path / "made.yaml"
    made.write_text(text)
    assert run("apply", str(made))[0] == 0
    assert run("diff", "--prune", str(made))[0] == 0
    assert Route.objects.count() == 40
    assert JwtIssuer.objects.filter(enabled=True).count() == 31
    assert "is off: at most 31 issuers can be on" in text
