from __future__ import annotations

import pytest

from gateway import routing
from gateway.routing import (
    Asked,
    BadPath,
    Router,
    Rule,
    allowed,
    check_path,
    is_reserved,
    normalise,
    parameters,
)

GET = Asked("GET")


def router(*templates: str) -> Router[str]:
    return Router(Rule(template, template) for template in templates)


def match(routes: Router[str], path: bytes, asked: Asked = GET) -> str | None:
    """As the doors do, and twice: what is remembered says the same."""
    first = routes.known.get(path) or routes.match(path, asked)
    assert (routes.known.get(path) or routes.match(path, asked)) == first
    return first


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/api/v1/tasks", "/api/v1/tasks"),
        (b"/api/v1/tasks/", "/api/v1/tasks"),
        (b"/api/v1/tasks/17", "/api/v1/tasks"),
        (b"/api/v1/tasks/17/notes", "/api/v1/tasks/{id}/notes"),
        (b"/api/v1/tasks/archive", "/api/v1/tasks/archive"),
        (b"/api/v1/tasks/archive/9", "/api/v1/tasks/archive"),
        (b"/api/v1/tasksx", None),
        (b"/api/v1", None),
        (b"/", None),
        (b"/files", None),
        (b"/files/a/b", "/files/{rest...}"),
    ],
)
def test_router__path__longest_match_on_a_segment_boundary(path: bytes, expected: str | None) -> None:
    routes = router("/api/v1/tasks", "/api/v1/tasks/archive", "/api/v1/tasks/{id}/notes", "/files/{rest...}")
    assert match(routes, path) == expected


def test_router__longer_match_behind_a_placeholder__wins_over_a_shorter_literal() -> None:
    routes = router("/a/b", "/a/{x}/c", "/a/{x}/{y}/d")
    assert match(routes, b"/a/b/c/z") == "/a/{x}/c"
    assert match(routes, b"/a/b/q/d") == "/a/{x}/{y}/d"
    assert match(routes, b"/a/b/q") == "/a/b"


def test_router__root_route__serves_everything_but_what_is_reserved() -> None:
    routes = router("/", "/api/v1/{x}/y")
    assert match(routes, b"/anything/else") == "/"
    for path in (
        b"/admin",
        b"/admin/login",
        b"/gateway/health",
        b"/api/v1/queue/y",
        b"/api/v1/gateway/token",
    ):
        assert match(routes, path) is None, path
    assert match(routes, b"/administrators") == "/"


def test_router__agrees_with_a_brute_force_matcher() -> None:
    templates = ("/a", "/a/b", "/a/{x}", "/a/{x}/c", "/{y}/b/c", "/a/b/{z}/d", "/q/{rest...}", "/q/r")
    routes = router(*templates)
    words = ("a", "b", "c", "d", "q", "r")
    paths = [f"/{i}/{j}/{k}/{m}" for i in words for j in words for k in words for m in words]
    paths += [f"/{i}/{j}" for i in words for j in words] + [f"/{i}" for i in words]
    for path in paths:
        expected = max((score(t, path), t) for t in templates)
        found = match(routes, path.encode())
        assert found == (expected[1] if expected[0][0] else None), path


def score(template: str, path: str) -> tuple[int, tuple[int, ...]]:
    """(segments matched, which of them are literal): what is compared to find the longest match."""
    segments, literal = path[1:].split("/"), []
    parts = template[1:].split("/")
    for i, part in enumerate(parts):
        if part.endswith("...}"):
            return (i, tuple(literal)) if len(segments) > i else (0, ())
        if i >= len(segments) or (part[0] != "{" and part != segments[i]):
            return 0, ()
        literal.append(int(part[0] != "{"))
    return len(parts), tuple(literal)


@pytest.mark.parametrize(
    "path",
    [
        b"", b"x", b"/a/../b", b"/a/./b", b"/a/%2e%2e/b", b"/a/%2E./b", b"/a/.", b"//a", b"/a//b", b"/a%2fb", b"/a%5Cb",
        b"/a\\b", b"/a%00", b"/a%0d%0a", b"/a%7f", b"/a%", b"/a%2", b"/a%zz", b"/a/..;x/b", b"/;x/a", b"/a/;",
    ],
)  # fmt: skip
def test_normalise__ambiguous_path__refused(path: bytes) -> None:
    with pytest.raises(BadPath):
        normalise(path)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/a/b", b"/a/b"),
        (b"/a/", b"/a/"),
        (b"/%61rchive", b"/archive"),
        (b"/caf%C3%A9", "/café".encode()),
        (b"/archive;v=1/x", b"/archive/x"),
        (b"/a%252e", b"/a%2e"),
        (b"/a.b/..c", b"/a.b/..c"),
        (b"/", b"/"),
    ],
)
def test_normalise__path__one_spelling(path: bytes, normal: bytes) -> None:
    assert normalise(path) == normal


def test_normalise__spellings_of_a_stricter_route__never_reach_the_wider_one() -> None:
    routes = router("/tasks", "/tasks/archive")
    for path in (b"/tasks/archive", b"/tasks/%61rchive", b"/tasks/archive;x=1", b"/tasks/archive/"):
        assert match(routes, normalise(path)) == "/tasks/archive"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((path, "prefix") for path in (
            "x", "/a//b", "/a/../b", "/a/{x}y", "/{rest...}/a", "/a%2f", "/admin", "/gateway/x", "/a b",
        )),
        ("/a/{x}", "exact"), ("/a/(", "regex"), ("/a/(?=x)", "regex"), ("/a/" + "x" * 200, "regex"), ("a", "regex"),
    ],
)  # fmt: skip
def test_check_path__not_a_route_path__value_error(path: str, kind: str) -> None:
    with pytest.raises(ValueError):
        check_path(path, kind)


def test_check_path__slash_at_the_end__dropped() -> None:
    assert check_path("/a/", "prefix") == "/a"
    assert check_path("/", "prefix") == "/"
    assert check_path("/a/", "regex") == "/a/"


def test_is_reserved__segment_boundary__counts() -> None:
    assert is_reserved(b"/api/v1/cache")
    assert not is_reserved(b"/api/v1/cached")


def test_allowed__get__brings_head() -> None:
    assert allowed(frozenset({"GET"}), "HEAD")
    assert not allowed(frozenset({"POST"}), "HEAD")
    assert allowed(frozenset(), "PATCH")
    assert not allowed(frozenset(), "TRACE")


# --- kinds of paths, conditions
# --------------------------------------------------------------------------------------------------
def rules(*given: tuple[str, dict[str, object]]) -> Router[str]:
    """(name, the rule's fields); the first is the oldest."""
    return Router(Rule(name, age=age, **fields) for age, (name, fields) in enumerate(given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/api/v1", "exact"),
        (b"/api/v1/", "prefix"),
        (b"/api/v1/x", "prefix"),
        (b"/api/v1/users/7", "template"),
        (b"/api/v1/users/me", "literal"),
        (b"/api/v1/users/7/x", "prefix"),
        (b"/api/v1/2024-01", "regex"),
        (b"/api/v1/2024-01x", "prefix"),
        (b"/api/v2", None),
    ],
)
def test_router__kinds__the_longest_then_the_most_literal(path: bytes, expected: str | None) -> None:
    routes = rules(
        ("prefix", {"path": "/api/v1"}),
        ("exact", {"path": "/api/v1", "kind": "exact"}),
        ("template", {"path": "/api/v1/users/{id}", "kind": "template"}),
        ("literal", {"path": "/api/v1/users/me", "kind": "exact"}),
        ("regex", {"path": r"/api/v1/\d{4}-\d{2}", "kind": "regex"}),
    )
    assert match(routes, path) == expected


def test_router__hosts__exact_before_the_longer_wildcard_before_any() -> None:
    routes = rules(
        ("any", {"path": "/x"}),
        ("wild", {"path": "/x", "hosts": ("*.example.com",)}),
        ("wilder", {"path": "/x", "hosts": ("*.eu.example.com",)}),
        ("one", {"path": "/x", "hosts": ("api.example.com", "api.example.org")}),
    )
    hosts = {
        "api.example.com": "one", "api.example.org": "one", "a.example.com": "wild", "a.b.example.com": "wild",
        "a.eu.example.com": "wilder", "example.com": "any", "": "any",
    }  # fmt: skip
    for host, expected in hosts.items():
        assert match(routes, b"/x/y", Asked("GET", host)) == expected, host


def test_router__headers__more_conditions_first_then_the_oldest() -> None:
    routes = rules(
        ("plain", {"path": "/x"}),
        ("old", {"path": "/x", "headers": ((b"x-version", b"2"),)}),
        ("young", {"path": "/x", "headers": ((b"x-version", b"2"),)}),
        ("both", {"path": "/x", "headers": ((b"x-version", b"2"), (b"x-beta", b"1"))}),
    )
    version, beta = (b"X-Version", b"2"), (b"X-Beta", b"1")
    assert match(routes, b"/x") == "plain"
    assert match(routes, b"/x", Asked("GET", headers=(version,))) == "old"
    assert match(routes, b"/x", Asked("GET", headers=(beta, version))) == "both"
    assert match(routes, b"/x", Asked("GET", headers=(beta,))) == "plain"


def test_router__condition_that_does_not_hold__a_shorter_path_serves() -> None:
    routes = rules(("short", {"path": "/a"}), ("long", {"path": "/a/b", "hosts": ("one.test",)}))
    assert match(routes, b"/a/b/c", Asked("GET", "one.test")) == "long"
    assert match(routes, b"/a/b/c", Asked("GET", "two.test")) == "short"


def test_router__methods__of_one_path_never_of_a_shorter_one() -> None:
    routes = rules(
        ("all", {"path": "/a"}),
        ("read", {"path": "/a/b", "methods": frozenset({"GET"})}),
        ("write", {"path": "/a/b", "methods": frozenset({"POST"})}),
    )
    assert match(routes, b"/a/b", Asked("GET")) == match(routes, b"/a/b", Asked("HEAD")) == "read"
    assert match(routes, b"/a/b", Asked("POST")) == "write"
    assert match(routes, b"/a/b", Asked("DELETE")) == "read"  # to be refused with 405
    assert routes.methods(b"/a/b", Asked("DELETE")) == {"GET", "POST"}


def test_router__pattern_beside_a_prefix_of_the_same_path__the_patterns_before_what_is_known() -> None:
    routes = rules(("prefix", {"path": "/api"}), ("pattern", {"path": "/api/?.*", "kind": "regex"}))
    for path in (b"/api", b"/api/", b"/api/x"):
        assert match(routes, path) == routes.match(path, GET) == "pattern", path
    assert match(rules(("prefix", {"path": "/api"})), b"/api") == "prefix"


def test_router__remembered_paths__bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_REMEMBERED", 10)
    routes = router("/a/{x}", "/b")
    for i in range(100):
        assert match(routes, b"/a/%d" % i) == "/a/{x}"
        assert len(routes.known) <= 11
    assert match(routes, b"/a/" + b"x" * 300) == "/a/{x}"
    assert b"/a/" + b"x" * 300 not in routes.known
    assert routes.known[b"/b"] == "/b"


def test_parameters__template__what_stands_in_its_places() -> None:
    assert parameters("/a/{id}/{rest...}", b"/a/7/x/y") == {"id": "7", "rest": "x/y"}
    assert parameters("/a", b"/a/7") == {}
