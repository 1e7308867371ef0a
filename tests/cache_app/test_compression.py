from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cache_app import compression
from cache_app.compression import compress, decompress

ALL = ["zstd", "lz4", "gzip"]
BODY = b'{"name":"user","tags":["a","b"]}' * 200


@pytest.mark.parametrize("compressor", ALL)
@pytest.mark.parametrize("body", [b"x", BODY, os.urandom(3000)], ids=["short", "text", "random"])
def test_decompress__what_compress_wrote__is_the_body(compressor: str, body: bytes) -> None:
    data = compress(compressor, body)
    assert decompress(compressor, data) == body
    assert data[:4] == struct.pack(">I", len(body))


@pytest.mark.parametrize("compressor", ALL)
def test_compress__text__gets_smaller(compressor: str) -> None:
    assert len(compress(compressor, BODY)) < len(BODY) / 10


@pytest.mark.parametrize("compressor", ALL)
def test_decompress__any_prefix_or_suffix__is_a_value_error(compressor: str) -> None:
    data = compress(compressor, BODY)
    for broken in [*(data[:length] for length in range(len(data))), data + b"\0", data + data]:
        with pytest.raises(ValueError):
            decompress(compressor, broken)


@pytest.mark.parametrize("compressor", ALL)
@given(data=st.binary(max_size=80), size=st.integers(0, 5000))
def test_decompress__any_bytes__are_a_value_error_or_as_long_as_they_say(
    compressor: str, data: bytes, size: int
) -> None:
    with suppress(ValueError):
        assert len(decompress(compressor, struct.pack(">I", size) + data)) == size


def bomb(compressor: str, size_bytes: int, said_bytes: int) -> bytes:
    return struct.pack(">I", said_bytes) + compress(compressor, bytes(size_bytes))[4:]


@pytest.mark.parametrize("compressor", ALL)
@pytest.mark.parametrize("said_bytes", [0, 100, 2**24 - 1, 2**24 + 1, compression.MAX_BYTES + 1, 2**32 - 1])
def test_decompress__bomb__is_refused(compressor: str, said_bytes: int) -> None:
    with pytest.raises(ValueError):
        decompress(compressor, bomb(compressor, 2**24, said_bytes))


@pytest.mark.parametrize("compressor", ["zstd", "gzip"])
def test_decompress__bomb_that_says_little__takes_little_memory(compressor: str) -> None:
    data = bomb(compressor, 2**24, 100)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            decompress(compressor, data)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


def test_decompress__zstd_frame_without_its_size__is_refused() -> None:
    writer = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(ValueError):
        decompress("zstd", struct.pack(">I", len(BODY)) + writer.compress(BODY))


def test_decompress__gzip_with_a_wrong_checksum__is_refused() -> None:
    data = zlib.compress(BODY)
    with pytest.raises(ValueError):
        decompress("gzip", struct.pack(">I", len(BODY)) + data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("compressor", ALL)
def test_compress__many_threads__do_not_share_a_context(compressor: str) -> None:
    bodies = [bytes([n]) * 50_000 + os.urandom(50_000) for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        assert (
            list(threads.map(lambda body: decompress(compressor, compress(compressor, body)), bodies))
            == bodies
        )
