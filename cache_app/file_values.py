"""One big value in one file: written beside its place and renamed into it, so that no name ever stands for half a value.

What a power failure leaves under a name is told by the checksum; the key inside tells a file that was moved.
The end of the value's life in the file serves one purpose: the index can be built anew from the files.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import zlib
from dataclasses import dataclass

from .file_rows import checksum_of

_MAGIC = b"BCV1"
_FIXED = struct.Struct(
    ">4sIQId"
)  # magic, length of the key, length of the value, checksum of both, written at
_END = struct.Struct(">dI")  # end of life, checksum of everything before it
_HEAD_BYTES = _FIXED.size + _END.size
_MAX_KEY_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of itself. Times are seconds since the epoch; expires_at None = for ever."""

    key: bytes
    size_bytes: int  # of the value
    checksum: int
    written_at: float
    expires_at: float | None


def write(path: str, payload: bytes, head: Head) -> None:
    """Raises OSError and leaves nothing behind then. The directory is made with the first of its files."""
    made = half_written(path)
    try:
        opened = _created(made)
        try:
            _write_all(opened, _packed(head), payload)
        finally:
            os.close(opened)
        os.rename(made, path)
    except BaseException:
        remove(path)
        raise


def read(path: str, key: bytes) -> bytes | None:
    """The value; None where the file is gone, is another key's, or is not whole."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        data = _read_all(opened, os.fstat(opened).st_size)
    finally:
        os.close(opened)
    if len(data) < _HEAD_BYTES:
        return None
    magic, key_bytes, size_bytes, check, _ = _FIXED.unpack_from(data)
    start = _HEAD_BYTES + key_bytes
    if magic != _MAGIC or data[_HEAD_BYTES:start] != key or len(data) != start + size_bytes:
        return None
    payload = data[start:]
    return payload if checksum_of(key, payload) == check else None


def head(path: str) -> Head | None:
    """None for what is not a whole file of this format. Does not read the value."""
    try:
        with open(path, "rb", buffering=0) as file:
            fixed = file.read(_HEAD_BYTES)
            magic, key_bytes, size_bytes, check, written_at = _FIXED.unpack_from(fixed)
            expires_at, seal = _END.unpack_from(fixed, _FIXED.size)
            if magic != _MAGIC or key_bytes > _MAX_KEY_BYTES or seal != zlib.crc32(fixed[:-4]):
                return None
            if os.fstat(file.fileno()).st_size != _HEAD_BYTES + key_bytes + size_bytes:
                return None
            key = file.read(key_bytes)
    except (FileNotFoundError, struct.error):
        return None
    return Head(key, size_bytes, check, written_at, None if expires_at == math.inf else expires_at)


def change_end(path: str, expires_at: float | None) -> None:
    """Note the new end of life in the file, as far as it is there."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b", buffering=0) as file:
        fixed = file.read(_FIXED.size)
        os.pwrite(file.fileno(), _end(fixed, expires_at), _FIXED.size)


def remove(path: str) -> None:
    """With what a killed process may have left beside it."""
    for name in (path, half_written(path)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def half_written(path: str) -> str:
    return f"{path}.tmp"


def _created(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        # Without its parent: where the whole cache was removed, the index has to be made anew first.
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(path), 0o700)
        return os.open(path, flags, 0o600)


def _packed(head: Head) -> bytes:
    fixed = _FIXED.pack(_MAGIC, len(head.key), head.size_bytes, head.checksum, head.written_at)
    return fixed + _end(fixed, head.expires_at) + head.key


def _end(fixed: bytes, expires_at: float | None) -> bytes:
    end = math.inf if expires_at is None else expires_at
    return _END.pack(end, zlib.crc32(fixed + struct.pack(">d", end)))


def _write_all(opened: int, start: bytes, payload: bytes) -> None:
    written = os.writev(opened, (start, payload))  # less than all where the disk is just getting full
    rest = memoryview(start + payload)[written:] if written < len(start) + len(payload) else memoryview(b"")
    while rest:
        rest = rest[os.write(opened, rest) :]


def _read_all(opened: int, size_bytes: int) -> bytes:
    data = os.read(opened, size_bytes)
    while len(data) < size_bytes and (more := os.read(opened, size_bytes - len(data))):
        data += more
    return data
