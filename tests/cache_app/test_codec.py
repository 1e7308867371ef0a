from __future__ import annotations

import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_app import codec


@pytest.mark.parametrize("value", [None, 0, False, "", [], {"a": [1, None, "ü"]}, 2**53, 1.5])
@pytest.mark.parametrize("ttl_s", [60.0, None])
def test_encode__json_value__reads_back_with_its_times(value: Any, ttl_s: float | None) -> None:
    data = codec.encode(value, stored_at=1000.25, ttl_s=ttl_s)
    assert codec.decode(data) == codec.Entry(value, 1000.25, ttl_s)


@pytest.mark.parametrize("value", [datetime(2026, 1, 1, tzinfo=UTC), Decimal(1), b"x", {1}, {1: 2}, object()])
def test_encode__what_json_cannot_hold__raises(value: Any) -> None:
    with pytest.raises(codec.Uncacheable):
        codec.encode(value, stored_at=0.0, ttl_s=None)


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b'{"a":1}', b"123", pickle.dumps({"a": 1}), b"\x02" + b"0" * 30]
)
def test_decode__foreign_bytes__are_a_miss(data: bytes) -> None:
    assert codec.decode(data) is None


@given(st.binary(max_size=60))
def test_decode__any_bytes__never_raise(data: bytes) -> None:
    codec.decode(data)


def test_decode__truncated_entry__is_a_miss() -> None:
    data = codec.encode({"a": "text"}, stored_at=1.0, ttl_s=1.0)
    assert all(codec.decode(data[:length]) is None for length in range(len(data)))
