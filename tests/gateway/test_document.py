"""YAML → entries, and every mistake with its line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway import config, document, rows, words
from gateway.errors import InvalidDocument

from .documents import EXAMPLE, FULL, SEED


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        config.load(text)
    return caught.value.problems


def test_load__the_customers_document__its_entries_in_the_words_of_the_models() -> None:
    loaded = document.load(SEED, production=False)
    assert set(loaded.entries) == {
        ("setting", "gateway"),
        ("issuer", "default"),
        ("consumer", "demo-key"),
        ("key", "cd577fe2561ebff23505db0bb006300c7cdecbd46bc0e03c449afafaca2c25bf"),
        ("service", "localhost:8001"),
        ("target", "localhost:8001 http://localhost:8001"),
        ("plan", "/api/v1/tasks"),
        ("route", "/api/v1/tasks"),
    }
    assert loaded.entries["route", "/api/v1/tasks"] == {
        "path": "/api/v1/tasks",
        "service": "localhost:8001",
        "plan": "/api/v1/tasks",
        "methods": ["GET", "POST", "PUT", "DELETE"],
        "auth_required": True,
        "timeout_s": 30.0,
    }
    assert loaded.api_keys == {"demo-key": "demo-secret"}
    assert loaded.secrets == {"default": "your-secret-key"}
    assert [warning.partition(":")[0] for warning in loaded.warnings] == ["line 2", "line 7"]


def test_load__every_key__a_field_each_that_differs_from_its_default() -> None:
    loaded = config.load(FULL)
    exempt = {"service": set(), "route": {"service", "path", "created_at"}, "transform": {"service", "route"}}
    for entry in (
        ("service", "tasks"),
        ("route", "tasks"),
        ("plan", "gold"),
        ("consumer", "robot"),
        ("issuer", "partner"),
    ):
        usual = rows.initial(entry[0])
        same = {
            name for name, value in loaded.entries[entry].items() if name in usual and usual[name] == value
        }
        assert same - exempt.get(entry[0], set()) <= {"public_key", "signs"}, entry
        assert set(usual) <= set(loaded.entries[entry]) | {"secret"}
    assert loaded.entries["transform", "a"]["position"] == 0
    assert loaded.entries["transform", "b"]["position"] == 7
    assert loaded.entries["key", "b" * 64]["expires_at"] == "2100-01-31T00:00:00+00:00"
    assert loaded.entries["target", "tasks unix:/run/tasks.sock"]["state"] == "draining"


def test_load__older_names__taken_with_a_warning() -> None:
    text = 'upstreams: {u: {targets: ["http://127.0.0.1:1"]}}\nroutes:\n  - {path: /x, upstream: u}\n'
    loaded = config.load(text)
    assert loaded.entries["route", "/x"]["service"] == "u"
    assert loaded.warnings == (
        "line 1: upstreams: an older name of 'services'",
        "line 3: routes[0].upstream: an older name of 'service'",
    )
    assert problems(text.replace("targets", "tragets"))[0].startswith(
        "line 1: upstreams.u.tragets: unknown key"
    )


def test_load__off_without_quotes__is_the_word() -> None:
    loaded = config.load("services: {a: {targets: [{url: 'http://127.0.0.1:1', state: off}]}}")
    assert loaded.entries["target", "a http://127.0.0.1:1"]["state"] == "off"


def test_load__anchors_and_merge_keys__as_if_written_out() -> None:
    text = """\
defaults: &usual
routes:
  - &first {path: /a, target_url: "http://127.0.0.1:1", timeout: 5}
  - {<<: *first, path: /b}
  - {<<: *first, path: /c, timeout: 6}
"""
    assert problems(text) == [
        "line 1: defaults: unknown key; known are authentication, issuers, plans, routes, services, upstreams"
    ]
    loaded = config.load(text.replace("defaults: &usual\n", ""))
    timeouts = [loaded.entries["route", path]["timeout_s"] for path in ("/a", "/b", "/c")]
    assert timeouts == [5.0, 5.0, 6.0]


def test_load__weak_secrets_in_production__refused(settings: Any) -> None:
    settings.PRODUCTION = True
    assert [line.rpartition(": ")[0] for line in problems(SEED)] == [
        "line 2: authentication.jwt_secret",
        "line 7: authentication.api_keys.demo-key",
    ]
    assert not config.load(FULL).warnings


def test_load__name_that_the_document_does_not_define__a_warning_with_its_line() -> None:
    loaded = config.load(EXAMPLE.read_text().replace("service: tasks_service", "service: task_service", 1))
    (warning,) = (text for text in loaded.warnings if "service" in text)
    assert warning.endswith(
        "routes[0].service: there is no service 'task_service'; did you mean 'tasks_service'? in this document"
    )


@pytest.mark.parametrize(
    ("was", "becomes", "expected"),
    [
        ("timeout: 30", "timeuot: 30", "line 18: routes[0].timeuot: unknown key; did you mean 'timeout'?"),
        ("timeout: 30", "timeout: soon", "line 18: routes[0].timeout: is a number, not str 'soon'"),
        ("timeout: 30", "timeout: -1", "line 18: routes[0].timeout: Ensure this value is greater than or equal to 0.05."),
        ("timeout: 30", "timeout: .nan", "line 18: not YAML: nan is not a number that JSON has"),
        ("timeout: 30", "timeout: 30\n    cost: 1e99", "line 19: routes[0].cost: is a whole number that is not negative"),
        ("auth_required: true", "auth_required: 1", "line 17: routes[0].auth_required: is true or false, not int 1"),
        ("requests_per_minute: 60", "requests_per_minute: 0", "line 14: routes[0].rate_limit.requests_per_minute: Ensure"),
        ("burst_limit", "burst", "line 16: routes[0].rate_limit.burst: unknown key; did you mean 'burst_limit'?"),
        ("HS256", "none", "line 3: authentication.jwt_algorithm: is one of HS256, HS384, HS512, not str 'none'"),
        ("http://localhost:8001", "ftp://localhost", "line 11: routes[0].target_url: a target is http://host:port"),
        ("http://localhost:8001", "http://169.254.169.254", "line 11: routes[0].target_url: "),
        ("target_url: ", "service: a\n    target_url: ", "line 10: routes[0]: give either target_url or service"),
        ("routes:", "routs:", "line 9: routs: unknown key; did you mean 'routes'?"),
        ('demo-key: "demo-secret"', "demo-key: [7]", "line 7: authentication.api_keys.demo-key: is a mapping, not list"),
        ('"your-secret-key"', "12345", "line 2: authentication.jwt_secret: is a text; put it in quotes, not int"),
        ("timeout: 30", "timeout: 30\n    timeout: 40", "line 19: not YAML: the key 'timeout' stands twice"),
        ("timeout: 30", "timeout: 30\n    roles: [boss]", "line 19: routes[0].roles: 'boss' is not a role"),
        ("timeout: 30", "timeout: 30\n    headers: {X-V: 2}", "line 19: routes[0].headers.X-V: is a text; put it in quotes"),
        ("timeout: 30", "timeout: 30\n    7: 8", "line 19: not YAML: a key that is not a text; put it in quotes"),
        ('"/api/v1/tasks"', '"/admin/x"', "line 10: routes[0].path: /admin/x belongs to the platform"),
        ('"/api/v1/tasks"', '"^/(a|b)"\n    path_kind: regex', "line 10: routes[0].path: a route path starts with '/'"),
        ('"/api/v1/tasks"', '"/(a|b)"\n    path_kind: regex', "line 10: routes[0]: give it a name, as its path cannot be one"),
        ('"X-API-Key"', '"X-API-Key', "line 7: not YAML: did not find expected key while parsing a block mapping that begins on line 2"),
        ("    timeout: 30", "\ttimeout: 30", "line 18: not YAML: a tab; YAML is indented with spaces"),
        ("    timeout: 30", "   timeout: 30", "line 18: not YAML: did not find expected '-' indicator while parsing a block collection that begins on line 10"),
        ("timeout: 30", "timeout: 30\x01", "line 18: not YAML: the character #x0001: control characters are not allowed"),
        ("routes:", "---\nroutes:", "line 9: not YAML: another document begins; a file holds one"),
        ('demo-key: "demo-secret"', "demo-key: 12345678", "line 7: authentication.api_keys.demo-key: is a text; put it in quotes, not int"),
        ('"X-API-Key"', '"X\\0"', "line 5: not YAML: a text has no NUL character"),
        ('"X-API-Key"', '"X Y"', "line 5: authentication.api_key_header: A header's name."),
        ("routes:", "issuers: {x: {signs: true, secret: s}}\nroutes:", "line 9: issuers.x.signs: one issuer signs, and 'default'"),
        ("routes:", "plans: {/api/v1/tasks: {requests_per_hour: 1}}\nroutes:", "line 14: routes[0].rate_limit: the plan '/api/v1/tasks' stands on line 9"),
        ("routes:", 'services: {"localhost:8001": {targets: []}}\nroutes:', "line 12: routes[0].target_url: there is a service 'localhost:8001'"),
        ("routes:", "routes:\n  - {path: /api/v1/tasks/, service: s}", "line 11: routes[1]: the route '/api/v1/tasks' stands on line 10 already"),
    ],
)  # fmt: skip
def test_load__mistake__named_by_its_line_and_the_path_to_its_key(
    was: str, becomes: str, expected: str
) -> None:
    assert SEED.count(was) >= 1
    found = problems(SEED.replace(was, becomes, 1))
    assert any(line.startswith(expected) for line in found), found


def test_load__mistakes_in_secrets__do_not_show_them() -> None:
    said = " ".join(
        problems(SEED.replace('"your-secret-key"', "4711").replace('"demo-secret"', "[demo-secret]"))
    )
    assert "4711" not in said
    assert "demo-secret" not in said


def test_load__several_mistakes__all_named_in_the_order_of_the_lines() -> None:
    text = SEED.replace("HS256", "none").replace("timeout: 30", "timeout: no").replace("burst_limit", "burst")
    assert [line.partition(":")[0] for line in problems(text)] == ["line 3", "line 16", "line 18"]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "1", "routes: 5", "authentication: []", "services: {a: {}}", "services: {a: {targets: [1]}}",
        "routes: [1]", "routes: [{}]", "a: &a [*a]", "? [a]\n: b", "a: !!binary aGk=", "a: !!python/name:os.system",
        "plans: {a: {}}", "\t", "\x01", "a: 2026-13-45", "[" * 200 + "]" * 200,
        "routes: [{path: /x, service: s, transforms: {}}]",
        "routes: [{path: /x, service: s, transforms: [{settings: {a: 2026-01-01}}]}]",
        "authentication: {api_keys: {a: {key_sha256: [short]}}}",
        f"authentication: {{api_keys: {{a: {{key_sha256: [{'1' * 64}]}}}}}}", "authentication: {api_keys: {a: {key_sha256: [null, {}]}}}",
        "authentication: {api_keys: {a: {key: ' '}}}",
        "[" * 100_000, "- " * 50_000, "? " * 50_000, '{"a":' * 20_000,
    ],
)  # fmt: skip
def test_load__not_a_document__problems_and_no_crash(text: str) -> None:
    assert problems(text)


def test_load__aliases_of_aliases__refused_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.reading._MOST_NODES", 10_000)  # as a million takes a while
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 20)}]\n" for i in range(1, 9))
    assert problems(text)[0].endswith("not YAML: nested too deep, or too many values")


def test_docs__the_document_with_every_key__loads_and_has_every_key() -> None:
    """docs/gateway.md"""
    page = (EXAMPLE.parents[1] / "docs" / "gateway.md").read_text()
    block = next(part for part in page.split("```yaml\n")[1:]).partition("```")[0]
    loaded = config.load(block)
    assert not loaded.warnings
    known = {
        key
        for name in ("SERVICE", "TARGET", "ROUTE", "TRANSFORM", "PLAN", "SIGNER", "ISSUER", "CONSUMER", "KEY")
        for key in keys_of(getattr(words, name))
    }
    missing = {key for key in known if not re.search(rf"\b{key}: ", block)}
    assert not missing


def keys_of(known: words.Words) -> set[str]:
    return {
        key
        for name, word in known.items()
        for key in (keys_of(word) if not isinstance(word, words.Word) else {name})
    }
