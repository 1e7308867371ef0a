from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import edits, kong, openapi
from gateway.errors import InvalidDocument
from gateway.imported import Imported

FILES = Path(__file__).parent / "files"


@pytest.fixture(scope="module")
def carried() -> Imported:
    return kong.read((FILES / "kong.yml").read_text())


@pytest.fixture(scope="module")
def pets() -> Imported:
    return openapi.read((FILES / "openapi.yaml").read_text())


def route(imported: Imported, name: str) -> dict[str, Any]:
    return next(route for route in imported.document["routes"] if route["name"] == name)


def of_kong(services: str = "", url: str = "http://s.internal:81", **more: Any) -> Imported:
    """One service `s` with this YAML inside it."""
    head = '_format_version: "3.0"\nservices:\n- {name: s, url: "' + url + '", '
    return kong.read(head + services + "}\n" + yaml.safe_dump(more) if more else head + services + "}\n")


def noted(imported: Imported, text: str) -> bool:
    return any(text in note for note in imported.notes)


# --- Kong ---


def test_kong__services__targets_of_their_upstream_with_weights_as_small_as_they_get(
    carried: Imported,
) -> None:
    assert carried.document["services"] == {
        "tasks": {
            "strategy": "weighted",
            "targets": [
                {"url": "http://10.0.0.1:8080", "weight": 2},
                "http://10.0.0.2:8080",
                {"url": "http://10.0.0.3:8000", "state": "off"},
            ],
            "health": {"path": "/healthz"}, "connect_timeout": 2.0, "response_timeout": 15.0, "retry": {"retries": 3},
        },
        "billing": {"targets": ["https://billing.internal:8443"]},
    }  # fmt: skip
    assert noted(carried, "services[2] (line 82): service mail is not carried over: tcp://")


def test_kong__a_route_with_two_paths__two_routes(carried: Imported) -> None:
    assert route(carried, "tasks-v1") == {
        "name": "tasks-v1", "hosts": ["api.example.com", "*.example.org"], "methods": ["GET", "POST"],
        "path": "/api/tasks", "path_kind": "prefix", "service": "tasks", "host_header": "preserve", "auth_required": True,
        "hide_credentials": True, "scopes": ["gold-or-silver"],
        "rate_limit": {"requests_per_hour": 1000, "requests_per_minute": 300, "burst_limit": 5, "counted_by": "key",
                       "on_store_down": "deny"},
        "transforms": [{"name": "tasks-v1-path",
                        "request": {"path": {"strip_prefix": "/api/tasks", "add_prefix": "/base"}}}],
    }  # fmt: skip
    assert route(carried, "tasks-v1-2")["path"] == "/legacy/tasks"
    assert noted(carried, "services[0].routes[0].methods (line 18): PURGE: not served here")


def test_kong__patterns_headers_and_transformers__carried_over(carried: Imported) -> None:
    first, second = route(carried, "task-by-id"), route(carried, "task-by-id-2")
    assert (first["path"], first["path_kind"]) == (r"/tasks/(?P<id>\d+)/(?P<rest>.*)", "regex")
    assert (first["headers"], second["headers"]) == ({"X-Version": "1"}, {"X-Version": "2"})
    request, response = first["transforms"]
    assert request["request"] == {
        "headers": {
            "remove": ["X-Debug"], "rename": {"X-Old": "X-New"}, "add": {"X-Agent": "{header.user-agent} {{x}}"},
            "append": {"X-Many": "1"},
        },
        "query": {"remove": ["debug"], "add": {"from": "kong"}},
        "body": {"remove": ["a\\.b"], "add": {"meta": "{query.m}"}},
        "path": {"replace": {"pattern": r"/tasks/(?P<id>\d+)/(?P<rest>.*).*", "with": "/v2/{id}/{rest}"}},
    }  # fmt: skip
    assert response["response"] == {
        "headers": {"remove": ["Server"]},
        "body": {"remove": ["secret"], "add": {"n": 1, "ok": True, "t": "$(x)"}},
    }
    assert noted(carried, "config.add.headers[1] (line 51): $(os.time()) is not carried over")
    assert noted(
        carried,
        "config.replace.headers[0] (line 49): not carried over: request.headers.replace.host: host is",
    )


def test_kong__transforms__are_ones_that_our_edits_take(carried: Imported) -> None:
    specs = [t for r in carried.document["routes"] for t in r.get("transforms", ())]
    assert len(specs) == 6
    for spec in specs:
        assert edits.problems(spec.get("request", {}), "request") == []
        assert edits.problems(spec.get("response", {}), "response") == []
    compiled = edits.compile(
        [edits.Spec(spec.get("request", {}), spec.get("response", {})) for spec in specs[2:4]]
    )
    head = edits.RequestHead(path=b"/tasks/17/a/b")
    assert compiled is not None
    compiled.request_head(head)
    assert head.path == b"/v2/17/a/b"


def test_kong__plugins_that_keep_somebody_out__close_the_route(carried: Imported) -> None:
    assert route(carried, "billing")["enabled"] is False
    assert noted(
        carried, "ip-restriction is not carried over, and it may have kept requests out; route billing is off"
    )
    assert noted(carried, "our-own-plugin is not carried over")
    assert route(carried, "reports")["auth_required"] is True  # basic-auth
    assert "enabled" not in route(carried, "task-by-id")  # cors, prometheus


def test_kong__rate_limits__the_most_specific_one_counts(carried: Imported) -> None:
    assert route(carried, "task-by-id")["rate_limit"] == {"requests_per_minute": 60}
    assert route(carried, "billing")["rate_limit"] == {"requests_per_minute": 60}  # its own is not enabled
    assert noted(carried, "rate-limiting is not carried over: it is not enabled")


@pytest.mark.parametrize("limit_by", [["ip"], {"ip": 1}, 7])
def test_kong__limit_by_is_no_text__is_a_note(limit_by: Any) -> None:
    plugin = {"name": "rate-limiting", "config": {"minute": 9, "limit_by": limit_by}}
    made = of_kong(f"routes: [{{name: a, plugins: [{plugin}]}}]")
    assert noted(made, "the limit is counted by caller")
    assert route(made, "a")["rate_limit"] == {"requests_per_minute": 9}


def test_kong__consumers__keys_as_digests_and_groups_as_scopes(carried: Imported) -> None:
    authentication = carried.document["authentication"]
    assert authentication["api_key_header"] == "X-Api-Token"
    assert authentication["api_keys"] == {
        "ann": {
            "key_sha256": [hashlib.sha256(b"ann-secret-key").hexdigest()],
            "plan": "consumer-ann",
            "scopes": ["gold", "gold-or-silver"],
        },
        "partner": {},
    }
    assert carried.document["plans"] == {"consumer-ann": {"requests_per_minute": 300}}
    assert "ann-secret-key" not in carried.text()


def test_kong__jwt_secrets__issuers(carried: Imported) -> None:
    assert carried.document["issuers"] == {
        "partner": {
            "algorithm": "HS256",
            "issuer": "partner-iss",
            "secret": "0123456789abcdef0123456789abcdef",
        }
    }
    assert noted(carried, "consumers[1].jwt_secrets[1] (line 115): not carried over")


def test_kong__everything_else__is_a_note(carried: Imported) -> None:
    for text in (
        "certificates (line 128): not carried over",
        "services[0].write_timeout (line 12): not carried over",
        "consumers[1].basicauth_credentials (line 117): not carried over",
        "consumers[0].keyauth_credentials[1].key (line 104): not carried over: the file does not hold the key itself",
        "paths[0] (line 81): /admin is not carried over: /admin belongs to the platform",
        "config.day (line 35): not carried over",
        "key_claim_name (line 70): not carried over",
    ):
        assert noted(carried, text), text
    assert not noted(carried, "tags")


def test_imported__text__is_the_document_below_its_notes(carried: Imported) -> None:
    text = carried.text()
    assert yaml.safe_load(text) == carried.document
    assert text.count("\n# ") + 1 == len(carried.notes)
    assert "&id" not in text
    assert Imported({}, ("a\nroutes: []",)).text().splitlines()[0] == "# a routes: []"


def test_kong__strip_path_and_base_path__every_combination() -> None:
    made = of_kong("routes: [{name: a, paths: [/a]}, {name: b, paths: [/b], strip_path: false}, {name: c}]")
    assert route(made, "a")["strip_prefix"] is True
    assert "strip_prefix" not in route(made, "b")
    assert route(made, "c")["path"] == "/"
    based = of_kong("routes: [{name: b, paths: [/b], strip_path: false}, {name: c}]", "http://h/x/")
    assert route(based, "b")["transforms"][0]["request"] == {"path": {"add_prefix": "/x"}}
    assert route(based, "c")["transforms"][0]["request"] == {"path": {"add_prefix": "/x"}}
    pattern = of_kong('routes: [{name: a, paths: ["~/a/(x|y[|)])\\\\d+|/b$"]}]')
    assert [r["path"] for r in pattern.document["routes"]] == [r"/a/(x|y[|)])\d+.*", "/b"]
    edit = {"replace": {"pattern": r"/a/(x|y[|)])\d+", "with": ""}}
    assert route(pattern, "a")["transforms"][0]["request"] == {"path": edit}


def test_kong__conditions_that_are_lost__close_the_route_instead_of_widening_it() -> None:
    for lost in (
        "hosts: [api.*]",
        "methods: [PURGE]",
        "snis: [a.example]",
        "sources: [{ip: 10.0.0.1}]",
        "protocols: [grpc]",
        'expression: http.path ^= "/x"',
    ):
        made = of_kong(f"routes: [{{name: a, paths: [/a], {lost}}}]")
        assert route(made, "a")["enabled"] is False, lost
        assert len(made.notes) > 1, lost
    assert noted(of_kong('routes: [{name: a, headers: {x: ["~*v.*"]}}]'), "nor is this route")
    assert noted(of_kong('routes: [{name: a, paths: ["~/(?=x)"]}]'), "no pattern for RE2")


def test_kong__plugins_of_consumers_that_keep_somebody_out__turn_them_off() -> None:
    guard = {"name": "ip-restriction", "config": {"deny": ["10.0.0.0/8"]}}
    made = of_kong(
        "routes: [{name: a, paths: [/a]}, {name: b, paths: [/b]}]",
        consumers=[
            {"username": "ann", "plugins": [guard]},
            {"username": "bob", "plugins": [{"name": "cors"}]},
            {"username": "eve", "groups": [{"name": "barred"}]},
            {"username": "joe"},
            {"username": "max", "groups": [{"name": "limited"}]},
        ],
        consumer_groups=[
            {"name": "barred", "plugins": [guard], "consumers": [{"username": "joe"}]},
            {"name": "limited", "plugins": [{"name": "rate-limiting-advanced"}, {**guard, "enabled": False}]},
        ],
        plugins=[{**guard, "route": "a", "consumer": "bob"}],
    )
    off = {
        name
        for name, one in made.document["authentication"]["api_keys"].items()
        if one.get("enabled") is False
    }
    assert off == {"ann", "eve", "joe"}
    assert [one.get("enabled") for one in made.document["routes"]] == [False, None]
    assert noted(made, "what may have kept joe out is not carried over; it is off until you turn it on")


def test_kong__service_or_route_that_is_off__stays_off() -> None:
    assert route(of_kong("enabled: false, routes: [{name: a}]"), "a")["enabled"] is False


def test_kong__older_format__a_path_with_other_characters_is_a_pattern() -> None:
    text = '_format_version: "2.1"\nservices: [{name: s, url: "http://s", routes: [{name: a, paths: [/a/\\d+]}]}]'
    assert route(kong.read(text), "a")["path"] == r"/a/\d+.*"


def test_kong__top_level_routes_and_scoped_plugins__found_by_name() -> None:
    made = of_kong(
        "enabled: true",
        routes=[
            {"name": "a", "service": {"name": "s"}, "paths": ["/a"]},
            {"name": "lost", "service": "none"},
        ],
        plugins=[
            {"name": "key-auth", "route": "a"},
            {"name": "acl", "service": "s", "config": {"deny": ["bad"]}},
            {"name": "cors", "service": "s", "consumer": "ann"},
        ],
    )
    assert (route(made, "a")["auth_required"], route(made, "a")["enabled"]) == (True, False)
    assert made.document["authentication"]["api_key_header"] == "apikey"
    assert noted(made, ": route lost is not carried over")
    assert noted(made, "cors is not carried over: it belongs to more than one thing at once")


def test_kong__key_auth_and_jwt_with_anonymous__open() -> None:
    plugin = "{name: key-auth, config: {anonymous: somebody}}"
    made = of_kong(f"routes: [{{name: a, paths: [/a], plugins: [{plugin}]}}]")
    assert route(made, "a")["auth_required"] is False
    assert noted(made, "anonymous (line 3): the route is open")


def test_kong__hashing_and_unknown_algorithms() -> None:
    def strategy(**upstream: Any) -> dict[str, Any]:
        upstream |= {"name": "s.internal", "targets": [{"target": "[::1]:81"}, {"target": "10.0.0.1:81"}]}
        return of_kong("enabled: true", upstreams=[upstream]).document["services"]["s"]

    made = strategy(algorithm="consistent-hashing", hash_on="header", hash_on_header="X-User")
    assert (made["strategy"], made["hash_on"]) == ("consistent_hash", "header:X-User")
    assert strategy(algorithm="consistent-hashing", hash_on="consumer")["hash_on"] == "ip"
    assert strategy(algorithm="latency")["strategy"] == "peak_ewma"
    assert strategy()["targets"] == ["http://[::1]:81", "http://10.0.0.1:81"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "_format_version: is missing"),
        ("[]", "_format_version: is missing"),
        ("openapi: 3.0.0", "this is no declarative configuration of Kong"),
        (
            "services: []\n_format_version: '9.9'",
            "_format_version (line 2): '9.9' is not one of 1.1, 2.1, 3.0",
        ),
        ("_format_version: '3.0'\nservices: {}", "services (line 2): is a list, not {}"),
        ("_format_version: '3.0'\nservices:\n- 7", "services[0] (line 3): is a mapping, not 7"),
        (
            "_format_version: '3.0'\nconsumers:\n- tags: []",
            "consumers[0] (line 3): a consumer has a username",
        ),
        ("_format_version: '3.0'\nservices: []\nservices: []", "services (line 3): stands twice"),
        ("a: [", "line 1: not YAML: "),
        ("a: &a [*a, !!python/object:os.system {}]", "line 1: not YAML: "),
    ],
)
def test_kong__another_file__refused_with_key_and_line(text: str, told: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        kong.read(text)
    assert told in str(raised.value)


def test_parse__aliases_of_aliases__do_not_take_for_ever() -> None:
    lines = ["_format_version: '3.0'", "x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 20)]
    assert noted(kong.read("\n".join(lines)), "x19 (line 21): not carried over")


# --- OpenAPI ---


def test_openapi__servers__the_first_is_on_and_the_others_wait(pets: Imported) -> None:
    assert pets.document["services"] == {
        "pet-store": {
            "targets": ["https://eu.example.com", {"url": "https://sandbox.example.com", "state": "off"}]
        }
    }
    assert noted(pets, "servers[2].url (line 9): not carried over")
    assert noted(pets, "servers[0].variables (line 7): stand at their defaults")


def test_openapi__paths__routes_of_their_kind(pets: Imported) -> None:
    assert [(r["name"], r["path"], r["path_kind"], r["methods"]) for r in pets.document["routes"]] == [
        ("/v1/pets:get-head", "/v1/pets", "exact", ["GET", "HEAD"]),
        ("/v1/pets:post", "/v1/pets", "exact", ["POST"]),
        ("/v1/pets/{pet-id}", "/v1/pets/{pet_id}", "template", ["GET"]),
        ("/v1/pets/{id}/photo.{ext}", r"/v1/pets/[^/]+/photo\.[^/]+", "regex", ["GET"]),
        ("/v1/status", "/v1/status", "exact", ["GET"]),
        ("/v1/admin/users", "/v1/admin/users", "exact", ["GET"]),
    ]
    assert noted(pets, "{pet-id} is called {pet_id} here")
    assert noted(pets, "trace (line 23): not carried over")


def test_openapi__security__who_has_to_sign_in_and_with_which_scopes(pets: Imported) -> None:
    found = [(r["auth_required"], r.get("scopes")) for r in pets.document["routes"]]
    assert found == [
        (True, ["pets:read"]), (True, ["pets:read", "pets:write"]), (True, ["pets:read"]),
        (False, None), (False, None), (True, ["pets:read"]),
    ]  # fmt: skip
    assert pets.document["authentication"] == {"api_key_header": "X-Pet-Key"}
    assert noted(pets, "paths./pets.post.security (line 17): its alternatives ask for different scopes")
    assert noted(pets, "paths./status.get.security (line 30): signing in is optional there")
    assert noted(pets, "securitySchemes.session (line 41): an API key in a cookie is not carried over")


def described(**more: Any) -> str:
    top = {
        "openapi": "3.1.0",
        "info": {"title": "Ä"},
        "paths": {"/a": {"get": {}}},
        "servers": [{"url": "http://h:81/"}],
    }
    return yaml.safe_dump(top | more, allow_unicode=True)


def test_openapi__no_server_with_a_host__a_target_has_to_be_given() -> None:
    text = described(servers=[{"url": "/v2"}])
    with pytest.raises(InvalidDocument, match="no server has a host"):
        openapi.read(text)
    made = openapi.read(text, target_url="http://10.0.0.1:80")
    assert made.document["services"] == {"api": {"targets": ["http://10.0.0.1:80"]}}
    assert made.document["routes"][0]["path"] == "/v2/a"


def test_openapi__json_and_reserved_paths() -> None:
    text = '{"openapi": "3.0.0", "info": {}, "servers": [{"url": "http://h"}], "paths": {"/admin/x": {"get": {}}, "/b/": {"put": {}}}}'
    made = openapi.read(text)
    assert [r["path"] for r in made.document["routes"]] == ["/b"]
    assert noted(made, "/admin/x is not carried over: /admin/x belongs to the platform")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("swagger: '2.0'", "swagger (line 1): 2.0 is not OpenAPI 3"),
        ("_format_version: '3.0'", "openapi: is missing"),
        ("openapi: 4.0.0", "openapi (line 1): is missing or not 3.x"),
        (described(paths={}), "is empty"),
        (described(paths=[]), "paths (line 4): is a mapping, not []"),
        (described(paths={"a": {"get": {}}}), "paths.a (line 5): a path starts with '/'"),
        (described(security=[{"nobody": []}]), "'nobody' is not in components.securitySchemes"),
    ],
)
def test_openapi__another_file__refused_with_key_and_line(text: str, told: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        openapi.read(text)
    assert told in str(raised.value)
