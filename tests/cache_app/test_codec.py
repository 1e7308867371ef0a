from __future__ import annotations

import gzip
import json
import math
import os
import pickle
import struct
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_app.codec import Codec, Description, Meta, Uncacheable, Unreadable
from tests.depth import examples

KEYS = (b"the secret of today", b"the secret of yesterday")
META = Meta(1_760_000_000.25, 1_760_000_300.5, 0.125, {"user:1": 2**63, "t\u00e9am": 1}, 60.0)
BARE = Meta(1000.25, None)
VALUE = {"a": [1, None, "\u00fc", True, 2.5], "b": {"c": "x" * 2000}}
TYPED = {"at": datetime(2026, 1, 1, tzinfo=UTC), "pair": (1, {2}), "text": "x" * 2000}

PLAIN, NAMED, PICKLE = Codec(), Codec("typed"), Codec("pickle", keys=KEYS)
SIGNED = Codec(sign=True, keys=KEYS)
ALL = [
    Codec(serializer, compressor, sign=sign, keys=KEYS if sign or serializer == "pickle" else ())
    for serializer in ("json", "typed", "pickle")
    for compressor in (None, "zstd", "lz4", "gzip")
    for sign in (False, True)
]


def reason(codec: Codec, data: bytes, key: str = "k") -> str:
    with pytest.raises(Unreadable) as caught:
        codec.decode(key, data)
    return caught.value.reason


class Ran:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


# --- there and back


@pytest.mark.parametrize(
    "codec", ALL, ids=lambda codec: f"{codec.serializer}-{codec.compressor}-{codec.is_signing}"
)
@pytest.mark.parametrize("meta", [None, BARE, META], ids=["", "bare", "meta"])
def test_decode__what_encode_wrote__is_the_value_and_what_is_known(codec: Codec, meta: Meta | None) -> None:
    for value in (VALUE, None, False, 0, -5, 2**63 - 1, 2**63, 1.5, "", [], "123"):
        read = codec.decode("k", codec.encode("k", value, meta))
        assert read == (value, meta)
        assert type(read[0]) is type(value)


@pytest.mark.parametrize("serializer", ["typed", "pickle"])
def test_decode__python_types__are_kept(serializer: str) -> None:
    codec = Codec(serializer, "zstd", keys=KEYS)
    assert codec.decode("k", codec.encode("k", TYPED, META)) == (TYPED, META)


def test_decode__json_of_tuple__is_a_list() -> None:
    assert PLAIN.decode("k", PLAIN.encode("k", (1, (2,)))) == ([1, [2]], None)


@pytest.mark.parametrize("writer", ALL[:16], ids=lambda codec: f"{codec.serializer}-{codec.compressor}")
def test_decode__what_another_alias_wrote__is_read(writer: Codec) -> None:
    """Whatever it is compressed with, and signed or not where the reader does not insist."""
    data = writer.encode("k", VALUE, META)
    assert Codec(keys=KEYS).decode("k", data) == (VALUE, META)
    assert (
        PICKLE.decode("k", data) == (VALUE, META)
        if writer.is_signing
        else reason(PICKLE, data) == "signature"
    )


@pytest.mark.parametrize(
    "value", [datetime(2026, 1, 1, tzinfo=UTC), Decimal(1), b"x", {1}, {1: 2}, object(), math.nan]
)
def test_encode__what_json_cannot_hold__raises(value: Any) -> None:
    with pytest.raises(Uncacheable, match=r"value\['a'\]\[0\] is "):
        PLAIN.encode("k", {"a": [value]})


@pytest.mark.parametrize("value", [lambda: 1, (x for x in ()), object])
def test_encode__what_has_no_form__raises(value: Any) -> None:
    with pytest.raises(Uncacheable):
        NAMED.encode("k", [value])
    if value is not object:
        with pytest.raises(Uncacheable):
            PICKLE.encode("k", [value])


# --- the bytes


@pytest.mark.parametrize("codec", [PLAIN, NAMED, PICKLE, SIGNED], ids=lambda codec: codec.serializer)
def test_encode__int__is_digits_for_the_store_to_count_with(codec: Codec) -> None:
    for value in (0, -1, 7, 2**63 - 1, -(2**63)):
        assert codec.encode("k", value) == str(value).encode()
        assert codec.decode("k", codec.encode("k", value)) == (value, None)
    for value, meta in [(True, None), (1.0, None), (2**63, None), (1, BARE)]:
        assert codec.encode("k", value, meta)[0] >= 0xC0


def test_encode__beyond_64_bits__needs_a_type() -> None:
    with pytest.raises(Uncacheable, match="beyond 64 bits"):
        PLAIN.encode("k", 2**64)
    assert NAMED.decode("k", NAMED.encode("k", 2**64)) == (2**64, None)


def test_encode__header__says_how_to_read_the_rest() -> None:
    assert PLAIN.encode("k", {"a": 1}) == b'\xc0{"a":1}'
    assert (
        PLAIN.encode("k", None, BARE)
        == b"\xc1" + struct.pack(">ddffH", 1000.25, math.inf, 0, math.nan, 0) + b"null"
    )
    heads = {
        0xC0: NAMED.encode("k", [1]),
        0xD0: NAMED.encode("k", (1,)),
        0xC2: SIGNED.encode("k", [1]),
        0xE2: PICKLE.encode("k", [1]),
        0xC4: Codec(compressor="zstd").encode("k", "x" * 2000),
        0xC8: Codec(compressor="lz4").encode("k", "x" * 2000),
        0xCC: Codec(compressor="gzip").encode("k", "x" * 2000),
        0xEF: Codec("pickle", "gzip", keys=KEYS).encode("k", "x" * 2000, BARE),
    }
    assert {head: data[0] for head, data in heads.items()} == {head: head for head in heads}


def test_decode__entries_of_the_first_release__are_read() -> None:
    """What is in a cache outlives the code that wrote it: these bytes must not change their meaning."""
    assert PLAIN.decode("k", b'\xc0{"a":1}') == ({"a": 1}, None)
    assert NAMED.decode("k", b'\xd0{"$t":[1,{"$n":"1.10"}]}') == ((1, Decimal("1.10")), None)
    timed = bytes.fromhex("c1408f420000000000408f4a00000000003e8000007fc000000001000100000000000000077431")
    assert PLAIN.decode("k", timed) == (1, Meta(1000.25, 1001.25, 0.25, {"t": 7}))
    for squeezed in (
        "c4000007d228b52ffd60d206550000182278220100ccff000b",
        "c8000007d22f22780100ffffffffffffffbf507878787822",
        "cc000007d2789c53aa1805a360148c8251300a46c190074a008313a9f2",
    ):
        assert PLAIN.decode("k", bytes.fromhex(squeezed)) == ("x" * 2000, None)
    pickled = bytes.fromhex("e28fe73b9ca5dda35c74914c67c8b2e4a480059506000000000000005d944b01612e")
    assert PICKLE.decode("k", pickled) == ([1], None)


@pytest.mark.parametrize("compressor", ["zstd", "lz4", "gzip"])
def test_encode__compressor__only_above_its_threshold_and_when_it_helps(compressor: str) -> None:
    codec = Codec(compressor=compressor, compress_from_bytes=100)
    long, short, dense = "x" * 98, "x" * 97, os.urandom(150).hex()[:200]
    assert codec.encode("k", long)[0] != 0xC0
    assert codec.encode("k", short) == PLAIN.encode("k", short)
    incompressible = list(os.urandom(40))
    assert len(orjson.dumps(incompressible)) >= 100
    for value in (dense, incompressible):
        assert len(codec.encode("k", value)) <= len(PLAIN.encode("k", value))


# --- what must not be read


@pytest.mark.parametrize("arguments", [("json",), ("typed",), ("pickle", None, 1024, False, KEYS)])
def test_decode__pickle_of_somebody_else__is_never_read(arguments: Any, tmp_path: Path) -> None:
    codec, planted = Codec(*arguments), pickle.dumps(Ran(tmp_path / "ran"))
    assert reason(codec, planted) == "refused"
    for head in (0xE0, 0xE1, 0xE2, 0xE3):
        for middle in (b"", bytes(16), bytes(26), bytes(42)):
            reason(codec, bytes([head]) + middle + planted)
    assert not (tmp_path / "ran").exists()


def test_decode__pickle_with_our_signature__only_where_pickles_are_asked_for(tmp_path: Path) -> None:
    data = PICKLE.encode("k", Ran(tmp_path / "ran"))
    assert reason(Codec(keys=KEYS), data) == "refused"
    assert reason(Codec("typed", sign=True, keys=KEYS), data) == "refused"
    assert not (tmp_path / "ran").exists()
    PICKLE.decode("k", data)
    assert (tmp_path / "ran").exists()


def test_decode__pickle_that_raises__is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "ran").mkdir()
    assert reason(PICKLE, PICKLE.encode("k", Ran(tmp_path / "ran"))) == "corrupt"


def test_decode__signed__only_unchanged_under_its_key_and_secret() -> None:
    data = SIGNED.encode("k", VALUE, META)
    assert SIGNED.decode("k", data) == (VALUE, META)
    assert reason(SIGNED, data, "another") == "signature"
    assert reason(Codec(sign=True, keys=[b"some other secret"]), data) == "signature"
    assert reason(PLAIN, data) == "signature"
    for place in range(len(data)):
        for bit in (1, 128):
            changed = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            assert reason(SIGNED, changed) in ("signature", "foreign", "refused")


@pytest.mark.parametrize(
    "data", [PLAIN.encode("k", [1]), PLAIN.encode("k", [1], BARE), b'{"a":1}', b'"x"', b"null"]
)
def test_decode__unsigned_where_signed_is_asked_for__is_refused(data: bytes) -> None:
    PLAIN.decode("k", data)
    assert reason(SIGNED, data) == "signature"
    assert reason(PICKLE, data) == "signature"


def test_decode__rotation__old_entries_until_the_old_secret_leaves() -> None:
    today, yesterday = KEYS
    old = Codec(sign=True, keys=[yesterday]).encode("k", [1])
    assert Codec(sign=True, keys=[today, yesterday]).decode("k", old) == ([1], None)
    assert reason(Codec(sign=True, keys=[today]), old) == "signature"
    assert Codec(sign=True, keys=[today]).decode("k", Codec(sign=True, keys=KEYS).encode("k", [1])) == (
        [1],
        None,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"serializer": "pickle"},
        {"sign": True},
        {"sign": True, "keys": [b"short"]},
        {"serializer": "yaml"},
        {"compressor": "bzip2"},
        {"serializer": "pickle", "keys": []},
    ],
)
def test_codec__choice_that_is_none__is_a_value_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Codec(**arguments)


# --- others' entries


def test_decode__django_redis_integers_and_json__are_read() -> None:
    for codec in (PLAIN, NAMED):
        for value in (5, -3, 10**30, "text", {"a": [1]}, [1], 1.5, True, None):
            assert codec.decode("k", json.dumps(value).encode()) == (value, None)
    for codec in (SIGNED, PICKLE):
        assert codec.decode("k", b"-12") == (-12, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"12a",
        b"1_000",
        b"+1",
        b" 1x",
        b"007",
        b"-0x",
        b"<html>",
        gzip.compress(b"1", mtime=0),
        b"{",
        b"NaN",
    ],
)
def test_decode__foreign_bytes__are_told_apart(data: bytes) -> None:
    assert reason(PLAIN, data) == "foreign"
    assert reason(NAMED, data) == "foreign"


def test_decode__more_digits_than_python_reads__is_foreign() -> None:
    assert reason(SIGNED, b"1" * 5000) == "signature"
    PLAIN.decode("k", b"1" * 900)


# --- broken entries


@pytest.mark.parametrize(
    "codec", ALL, ids=lambda codec: f"{codec.serializer}-{codec.compressor}-{codec.is_signing}"
)
def test_decode__truncated__is_unreadable(codec: Codec) -> None:
    data = codec.encode(
        "k", {"text": "x" * 3000} if codec.compressor else TYPED if codec.serializer != "json" else [1], META
    )
    for length in range(min(len(data), 200)):
        reason(codec, data[:length])


@settings(max_examples=examples(500), deadline=None)
@given(
    st.binary(max_size=90),
    st.integers(0, 255),
    st.sampled_from([PLAIN, NAMED, PICKLE, SIGNED, Codec(keys=KEYS)]),
)
def test_decode__any_bytes__give_a_value_or_unreadable(data: bytes, head: int, codec: Codec) -> None:
    for tried in (data, bytes([head | 0xC0]) + data):
        codec.describe(tried)
        with suppress(Unreadable):
            codec.decode("k", tried)


@settings(max_examples=examples(500), deadline=None)
@given(st.data(), st.sampled_from(ALL))
def test_decode__flipped_bits__give_a_value_or_unreadable(data: st.DataObject, codec: Codec) -> None:
    value = TYPED if codec.serializer != "json" else VALUE
    entry = bytearray(codec.encode("k", value, META))
    for _ in range(data.draw(st.integers(1, 3))):
        entry[data.draw(st.integers(0, len(entry) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for reader in (codec, PLAIN, NAMED, PICKLE):
        reader.describe(bytes(entry))
        with suppress(Unreadable):
            reader.decode("k", bytes(entry))


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 1000 + b"]" * 1000, b'{"$t":[' * 500 + b"]}" * 500]
)
def test_decode__deep_nesting__is_unreadable_as_typed(body: bytes) -> None:
    assert reason(PLAIN, b"\xd0" + body) == "corrupt"


@pytest.mark.parametrize("field", range(3))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_decode__times_that_are_none__are_corrupt(field: int, value: float) -> None:
    times = [1.0, 2.0, 3.0]
    times[field] = value
    data = b"\xc1" + struct.pack(">ddffH", *times, math.nan, 0) + b"1"
    if (field, value) == (1, math.inf):
        assert PLAIN.decode("k", data)[1] == Meta(1.0, None, 3.0)
    else:
        assert reason(PLAIN, data) == "corrupt"


def test_decode__form_of_a_later_release__is_unreadable() -> None:
    assert reason(PLAIN, b"\xf0[1]") == "corrupt"


# --- what is said of an entry


@pytest.mark.parametrize(
    "codec", ALL, ids=lambda codec: f"{codec.serializer}-{codec.compressor}-{codec.is_signing}"
)
@pytest.mark.parametrize("meta", [None, META], ids=["", "meta"])
def test_describe__ours__without_its_value(codec: Codec, meta: Meta | None) -> None:
    value = TYPED if codec.serializer != "json" else VALUE
    data = codec.encode("k", value, meta)
    wanted = Description(
        codec.serializer, codec.compressor, codec.is_signing, meta is not None, len(data), meta
    )
    assert PLAIN.describe(data) == wanted


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"12", "integer"),
        (pickle.dumps(1), "pickle"),
        (b'{"a":1}', "text"),
        (b"<html>", "foreign"),
        (b"", "foreign"),
        (b"\xf0", "foreign"),
    ],
)
def test_describe__not_ours__is_named(data: bytes, kind: str) -> None:
    assert PLAIN.describe(data) == Description(kind, None, False, False, len(data), None)


def test_describe__truncated__knows_nothing_more() -> None:
    data = PLAIN.encode("k", [1], META)
    assert PLAIN.describe(data[:20]) == Description("json", None, False, True, 20, None)


def test_meta__replaced_field__keeps_the_others() -> None:
    assert replace(META, expires_at=None) == Meta(META.stored_at, None, 0.125, META.tags, 60.0)
    with pytest.raises(AttributeError):
        META.load_s = 1.0  # type: ignore[misc]
