"""Compressed bytes behind their size, so that what is read stays within a bound. Pure.

size before compression, four bytes | what the compressor wrote
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable

import lz4.block
import zstandard

MAX_BYTES = 512 * 1024 * 1024  # of one value, decompressed: no entry may make a reader ask for more
ZSTD_LEVEL = 1  # on 10 kB of JSON level 3 takes 1.4 times as long and saves nothing
GZIP_LEVEL = 6

_SIZE = struct.Struct(">I")


class _OfThread(threading.local):
    """A zstandard object serves one thread at a time; a new one for each value would take 1.5 to 2 times as long."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _OfThread()


def compress(compressor: str, body: bytes) -> bytes:
    """compressor: "zstd", "lz4" or "gzip". body: 1 … MAX_BYTES bytes."""
    return _SIZE.pack(len(body)) + _SQUEEZERS[compressor](body)


def decompress(compressor: str, data: bytes) -> bytes:
    """Raises ValueError for what `compress` did not write in full, or for more than MAX_BYTES."""
    if len(data) <= _SIZE.size:
        raise ValueError("truncated")
    (size,) = _SIZE.unpack_from(data)
    if not 0 < size <= MAX_BYTES:
        raise ValueError("no size that we write")
    try:
        body = _STRETCHERS[compressor](data[_SIZE.size :], size)
    except (zstandard.ZstdError, lz4.block.LZ4BlockError, zlib.error, MemoryError) as error:
        raise ValueError("not what the compressor wrote") from error
    if len(body) != size:
        raise ValueError("not as long as it says")
    return body


def _zstd_squeezed(body: bytes) -> bytes:
    return _zstd.compressor.compress(body)


def _zstd_stretched(data: bytes, size: int) -> bytes:
    # The buffer is as large as the frame says, whatever bound is given.
    if zstandard.frame_content_size(data) != size:
        raise ValueError("two sizes")
    return _zstd.decompressor.decompress(data, allow_extra_data=False)


def _lz4_squeezed(body: bytes) -> bytes:
    return bytes(lz4.block.compress(body, store_size=False))


def _lz4_stretched(data: bytes, size: int) -> bytes:
    return bytes(lz4.block.decompress(data, uncompressed_size=size))


def _gzip_squeezed(body: bytes) -> bytes:
    return zlib.compress(body, GZIP_LEVEL)


def _gzip_stretched(data: bytes, size: int) -> bytes:
    reader = zlib.decompressobj()
    body = reader.decompress(data, size + 1)  # one more, so that the checksum at the end is looked at
    if not reader.eof or reader.unused_data:
        raise ValueError("not one whole stream")
    return body


_SQUEEZERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": _zstd_squeezed,
    "lz4": _lz4_squeezed,
    "gzip": _gzip_squeezed,
}
_STRETCHERS: dict[str, Callable[[bytes, int], bytes]] = {
    "zstd": _zstd_stretched,
    "lz4": _lz4_stretched,
    "gzip": _gzip_stretched,
}
