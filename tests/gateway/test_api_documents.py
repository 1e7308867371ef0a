"""The configuration as one document over REST, and its history: export, apply, revisions, rollback."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from foundation import roles
from foundation.models import AuditEntry
from gateway import config, keys
from gateway.models import ApiKey, Configuration, Plan, Revision, Route
from tests.foundation.people import client_of

from . import api_rows as rows
from .api_rows import BASE, SECRET, names, pointers, problem, send

pytestmark = pytest.mark.django_db

TEXT = f"""\
authentication:
  jwt_secret: "{SECRET}"
  api_keys: {{robot: "a-key-that-nobody-can-guess"}}
plans:
  gold: {{requests_per_minute: 60}}
services:
  billing: {{targets: ["http://127.0.0.1:9001"]}}
routes:
  - {{path: /invoices, service: billing, plan: gold}}
"""
YAML = "application/yaml"


@pytest.fixture
def admin() -> Client:
    return client_of(roles.ADMIN)


def apply(client: Client, text: str | bytes, query: str = "", kind: str = YAML, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.generic("POST", f"{BASE}/apply{query}", text, content_type=kind, headers=named)


def verbs(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [f"{one['verb']} {one['kind']} {one['name']}" for one in answer.json()["changes"]]


def test_apply__document__told_first_then_done_then_nothing_left_to_do(admin: Client) -> None:
    dry = apply(admin, TEXT, "?dry_run=true")
    assert dry.json()["is_dry_run"] is True
    assert not Route.objects.exists()
    done = apply(admin, TEXT)
    assert (done.json()["is_dry_run"], verbs(done)) == (False, verbs(dry))
    digest = keys.digest(b"a-key-that-nobody-can-guess").hex()
    assert f"create key …{digest[-8:]}" in verbs(done)
    assert "create route /invoices" in verbs(done)
    assert digest not in f"{dry.content!r}{done.content!r}"
    assert SECRET not in f"{dry.content!r}{done.content!r}"
    assert done.json()["version"] == Configuration.objects.get().version == dry.json()["version"] + 1
    again = apply(admin, TEXT)
    assert (verbs(again), again.json()["version"]) == ([], done.json()["version"])
    (audited,) = AuditEntry.objects.filter(action="route.create", source="api", actor="some-admin")
    assert (audited.ip, audited.request_id) == ("127.0.0.1", done["X-Request-Id"])


@pytest.mark.parametrize("kind", ["text/yaml", "application/x-yaml", "application/json"])
def test_apply__other_types__taken_and_a_form_refused(admin: Client, kind: str) -> None:
    assert verbs(apply(admin, '{"plans": {"gold": {"requests_per_hour": 1}}}', kind=kind)) == [
        "create plan gold"
    ]
    problem(apply(admin, TEXT, kind="application/x-www-form-urlencoded"), 415)


def test_apply__update__tells_the_fields_that_differ(admin: Client) -> None:
    apply(admin, TEXT)
    (change,) = apply(admin, "plans: {gold: {requests_per_minute: 61}}", "?dry_run=true").json()["changes"]
    assert change == {
        "verb": "update",
        "kind": "plan",
        "name": "gold",
        "before": {"requests_per_minute": 60},
        "after": {"requests_per_minute": 61},
    }


def test_apply__prune__what_the_document_does_not_name_goes(admin: Client) -> None:
    apply(admin, TEXT)
    rows.plan("silver")
    assert verbs(apply(admin, TEXT)) == []
    assert verbs(apply(admin, TEXT, "?prune=true&dry_run=true")) == ["delete plan silver"]
    assert verbs(apply(admin, TEXT, "?prune=true&dry_run=false")) == ["delete plan silver"]
    assert [plan.name for plan in Plan.objects.all()] == ["gold"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("routes: [{path: /x, servcie: billing}]", "did you mean 'service'?"),
        ("routes: [{path: /x, service: none}]", "none"),
        ("plans: [", "not YAML"),
        ("- 1", "mapping"),
        ("a: " + "[" * 100_000, "nested too deep"),
    ],
)
def test_apply__bad_document__400_that_says_where_and_nothing_written(
    admin: Client, text: str, told: str
) -> None:
    body = problem(apply(admin, f"plans: {{gold: {{requests_per_minute: 1}}}}\n{text}"), 400)
    assert told in str(body["errors"]) or text == "- 1"
    assert not Plan.objects.exists()
    assert not Configuration.objects.filter(version__gt=0).exists()


def test_apply__body_that_is_none_no_text_or_too_long__400_and_413(admin: Client, settings: Any) -> None:
    assert "mapping" in str(problem(apply(admin, ""), 400)["errors"])
    assert "UTF-8" in problem(apply(admin, b"\xff\xfe"), 400)["detail"]
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    problem(apply(admin, TEXT), 413)


@pytest.mark.parametrize(("query", "at"), [("?prun=true", "/prun"), ("?prune=yes", "/prune")])
def test_apply__switch_that_means_nothing__400(admin: Client, query: str, at: str) -> None:
    assert pointers(apply(admin, TEXT, query)) == [at]
    assert not Route.objects.exists()


def test_apply__if_match__of_an_older_version__412_and_nothing_written(admin: Client) -> None:
    apply(admin, TEXT)
    mine = send(admin, "GET", "export")["ETag"]
    rows.plan("silver")
    for query in ("", "?dry_run=true"):
        problem(apply(admin, "plans: {gold: {requests_per_minute: 1}}", query, If_Match=mine), 412)
    now = send(admin, "GET", "export")["ETag"]
    done = apply(admin, "plans: {gold: {requests_per_minute: 1}}", If_Match=now)
    assert verbs(done) == ["update plan gold"]
    assert done["ETag"] == send(admin, "GET", "export")["ETag"] != now


def test_export__yaml_without_secrets__applied_it_changes_nothing(admin: Client) -> None:
    apply(admin, TEXT)
    answer = send(admin, "GET", "export")
    assert answer["Content-Type"].startswith(YAML)
    assert SECRET not in answer.content.decode()
    assert config.diff(config.load(answer.content.decode()), prune=True) == []
    assert verbs(apply(admin, answer.content, "?prune=true")) == []


def test_export__client_that_takes_json_alone__406(admin: Client) -> None:
    answer = admin.get(f"{BASE}/export", headers={"Accept": "application/json"})
    problem(answer, 406)


# --- revisions -----------------------------------------------------------------------------------------------------------


def test_revisions__newest_first__who_and_what(admin: Client) -> None:
    send(admin, "PUT", "plans/gold", {"requests_per_minute": 60})
    send(admin, "PATCH", "plans/gold", {"requests_per_minute": 61})
    newest, first = send(admin, "GET", "revisions").json()["results"]
    assert newest["version"] == first["version"] + 1 == Configuration.objects.get().version
    assert (newest["actor"], newest["source"], newest["counts"]) == ("some-admin", "api", {"update": 1})
    whole = send(admin, "GET", f"revisions/{newest['version']}").json()
    (change,) = whole["changes"]
    assert whole == newest | {"changes": [change]}
    assert (change["verb"], change["kind"], change["name"]) == ("update", "plan", "gold")
    assert (change["before"], change["after"]) == ({"requests_per_minute": 60}, {"requests_per_minute": 61})
    problem(send(admin, "GET", "revisions/999"), 404)
    problem(send(admin, "POST", "revisions", {}), 405)


def test_revision__key__named_by_the_end_of_its_digest(admin: Client) -> None:
    digest = "0123456789abcdef" * 4
    change = {"kind": "key", "name": digest, "before": None, "after": {"consumer": "robot", "secret": "s"}}
    Revision.objects.create(version=7, actor="ada", source="cli", changes=[change])
    whole = send(admin, "GET", "revisions/7")
    assert whole.json()["changes"][0]["name"] == "…89abcdef"
    assert whole.json()["changes"][0]["after"] == {"consumer": "robot", "secret": "***"}
    assert digest not in whole.content.decode()


def test_rollback__earlier_version__the_configuration_of_then_as_a_new_version(admin: Client) -> None:
    send(admin, "PUT", "plans/gold", {"requests_per_minute": 60})
    version = Configuration.objects.get().version
    send(admin, "PATCH", "plans/gold", {"requests_per_minute": 61})
    send(admin, "PUT", "plans/silver", {"requests_per_minute": 1})
    answer = send(admin, "POST", f"revisions/{version}/rollback")
    assert (answer.status_code, answer.json()) == (200, {"version": version + 3})
    assert names(send(admin, "GET", "plans")) == ["gold"]
    assert Plan.objects.get().requests_per_minute == 60
    problem(send(admin, "POST", "revisions/999/rollback"), 404)
    assert not ApiKey.objects.exists()
