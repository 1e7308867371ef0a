from __future__ import annotations

import string
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_app import connections
from cache_app.globs import compile_glob, literal_prefix
from tests.depth import examples

KEYS = ["a", "b", "ab", "abc", "a-c", "a]", "]", "[a]", "a*c", "a?c", "a\\c", "^a", "-", "é", "aé", "a\nb", "x:1:user:7", "x:12:user:77", "aaaaab"]  # fmt: skip
PATTERNS = [
    "*", "**", "?", "??", "a*", "*b", "a*b*", "[ab]", "[^a]*", "[a-c]?c", "[c-a]b", "a\\*c", "a\\?c", "a\\\\c", "\\", "a\\",
    "[a", "[a-", "[a-]", "[]", "[^]", "[", "[^", "[\\]a]", "[\\", "a[^]c", "x:1:*", "x:?:user:*", "x:*:user:7", "", "é", "a?", "a??",
    "*a*a*b", "[]a]", "[^-]", "a[*]c", "[[]a]", "{a,b}", "a.c", "a+",
]  # fmt: skip


@pytest.fixture(scope="module")
def counted() -> Iterator[str]:
    """A key of our own by whose name nothing else matches."""
    name = f"test:globs:{uuid.uuid4().hex}"
    yield name
    connections.client().delete(name)


def in_valkey(name: str, pattern: str, keys: list[str]) -> list[str]:
    """Which of the keys the server's own matcher takes: HSCAN MATCH on a hash of them."""
    client = connections.client()
    client.delete(name)
    client.hset(name, mapping=dict.fromkeys(keys, "1"))
    return sorted(field.decode() for field, _ in client.hscan_iter(name, match=pattern, count=1000))


def ours(pattern: str, keys: list[str]) -> list[str]:
    return sorted(filter(compile_glob(pattern), keys))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_compile_glob__each_rule__as_valkey(counted: str, pattern: str) -> None:
    assert ours(pattern, KEYS) == in_valkey(counted, pattern, KEYS)


texts = st.text(alphabet="ab-]^\\é*?[", min_size=1, max_size=6)
globs = st.text(alphabet="ab-]^\\é*?[", max_size=8)


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(globs, st.lists(texts, min_size=1, max_size=12, unique=True))
def test_compile_glob__any_pattern__as_valkey(counted: str, pattern: str, keys: list[str]) -> None:
    assert ours(pattern, keys) == in_valkey(counted, pattern, keys)


def test_compile_glob__many_stars__does_not_explode() -> None:
    assert not compile_glob("*a" * 50 + "*b")("a" * 5_000)


@settings(max_examples=examples(150), deadline=None)
@given(globs, texts)
def test_literal_prefix__every_match__begins_with_it(pattern: str, key: str) -> None:
    if compile_glob(pattern)(key):
        assert key.startswith(literal_prefix(pattern))


def test_literal_prefix__escapes_and_signs__text_up_to_the_first_sign() -> None:
    assert literal_prefix("x:1:user:*") == "x:1:user:"
    assert literal_prefix("a\\*b?c") == "a*b"
    assert literal_prefix(string.ascii_letters) == string.ascii_letters
