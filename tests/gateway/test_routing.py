from __future__ import annotations

import pytest

from gateway.routing import BadPath, Router, allowed, check_template, is_reserved, normalise


def router(*templates: str) -> Router[str]:
    return Router((template, template) for template in templates)


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
    assert routes.match(path) == expected


def test_router__longer_match_behind_a_placeholder__wins_over_a_shorter_literal() -> None:
    routes = router("/a/b", "/a/{x}/c", "/a/{x}/{y}/d")
    assert routes.match(b"/a/b/c/z") == "/a/{x}/c"
    assert routes.match(b"/a/b/q/d") == "/a/{x}/{y}/d"
    assert routes.match(b"/a/b/q") == "/a/b"


def test_router__root_route__serves_everything_but_what_is_reserved() -> None:
    routes = router("/", "/api/v1/{x}/y")
    assert routes.match(b"/anything/else") == "/"
    for path in (
        b"/admin",
        b"/admin/login",
        b"/gateway/health",
        b"/api/v1/queue/y",
        b"/api/v1/gateway/token",
    ):
        assert routes.match(path) is None, path
    assert routes.match(b"/administrators") == "/"


def test_router__two_templates_for_the_same_paths__refused() -> None:
    with pytest.raises(ValueError, match="same paths"):
        router("/a/{x}", "/a/{y}")


def test_router__agrees_with_a_brute_force_matcher() -> None:
    templates = ("/a", "/a/b", "/a/{x}", "/a/{x}/c", "/{y}/b/c", "/a/b/{z}/d", "/q/{rest...}", "/q/r")
    routes = router(*templates)
    words = ("a", "b", "c", "d", "q", "r")
    paths = [f"/{i}/{j}/{k}/{m}" for i in words for j in words for k in words for m in words]
    paths += [f"/{i}/{j}" for i in words for j in words] + [f"/{i}" for i in words]
    for path in paths:
        expected = max((score(t, path), t) for t in templates)
        found = routes.match(path.encode())
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
        assert routes.match(normalise(path)) == "/tasks/archive"


@pytest.mark.parametrize(
    "template", ["x", "/a//b", "/a/../b", "/a/{x}y", "/{rest...}/a", "/a%2f", "/admin", "/gateway/x", "/a b"]
)
def test_check_template__not_a_route_path__value_error(template: str) -> None:
    with pytest.raises(ValueError):
        check_template(template)


def test_check_template__slash_at_the_end__dropped() -> None:
    assert check_template("/a/") == "/a"
    assert check_template("/") == "/"


def test_is_reserved__segment_boundary__counts() -> None:
    assert is_reserved(b"/api/v1/cache")
    assert not is_reserved(b"/api/v1/cached")


def test_allowed__get__brings_head() -> None:
    assert allowed(frozenset({"GET"}), "HEAD")
    assert not allowed(frozenset({"POST"}), "HEAD")
    assert allowed(frozenset(), "PATCH")
    assert not allowed(frozenset(), "TRACE")
