"""Responses that the edge makes itself."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

import orjson

from foundation import problems

from .calls import HeaderPairs


def head(status: int, content_type: str, size_bytes: int, headers: HeaderPairs, *, keep: bool) -> bytes:
    pairs = [*headers]
    if not any(name.lower() == "date" for name, _ in headers):
        pairs.insert(0, ("Date", formatdate(usegmt=True)))
    if content_type:
        pairs.insert(1, ("Content-Type", content_type))
    if status not in (204, 304):
        pairs.append(("Content-Length", str(size_bytes)))
    if not keep:
        pairs.append(("Connection", "close"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"HTTP/1.1 {status} {_phrase(status)}\r\n{lines}\r\n".encode("latin-1")


def problem(status: int, code: str, detail: str, request_id: str) -> bytes:
    return orjson.dumps(problems.document(status, detail=detail, request_id=request_id, code=code))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
