"""Transformations of a route, compiled: what is done to a request on its way to the target and to the response on its
way back. Nothing here reads or writes a socket; whoever calls it buffers the bodies that are to be edited.

    Edits.request_head → Edits.request_body → target → Edits.response_head → Edits.response_body

Bodies are edited when their content type says JSON (`wants_body`). The caller sets Content-Length from what it gets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import edit_specs, exact_json
from .edit_specs import PHASES, Part
from .errors import BadBody
from .head_edits import header_pairs, query_pairs
from .heads import Headers, RequestHead, ResponseHead, joined, without

__all__ = ["PHASES", "Edits", "RequestHead", "ResponseHead", "Spec", "compile", "problems", "wants_body"]

# They speak of the body as it was before the edit.
_DIGESTS = frozenset(b"content-digest content-md5 digest repr-digest".split())
_STALE = _DIGESTS | {b"accept-ranges", b"last-modified"}
# A part of a body and a compressed one cannot be edited, so the target is asked for the whole and plain one.
_NEGOTIATED = frozenset(
    b"accept-encoding if-range range want-content-digest want-digest want-repr-digest".split()
)


@dataclass(frozen=True, slots=True)
class Spec:
    """One transformation as its row or the YAML has it; see edit_specs for the shape."""

    request: Mapping[str, Any] = field(default_factory=dict)
    response: Mapping[str, Any] = field(default_factory=dict)


def problems(spec: object, phase: str, parameters: Collection[str] | None = None) -> list[str]:
    """What is wrong with one phase of a transformation, each beginning with the path to its key.

    parameters: the placeholders of the route's path; None where several routes use it, then {path.…} is not checked.
    """
    return edit_specs.read(spec, phase, parameters)[1]


def compile(transforms: Sequence[Spec]) -> Edits | None:
    """The edits in order, None when there is nothing to do. Raises ValueError for specs that have problems."""
    requests: list[Part] = []
    responses: list[Part] = []
    for spec in transforms:
        for phase, found, parts in (
            ("request", spec.request, requests),
            ("response", spec.response, responses),
        ):
            part, wrong = edit_specs.read(found, phase)
            if wrong:
                raise ValueError("; ".join(wrong))
            if found:
                parts.append(part)
    return Edits(tuple(requests), tuple(responses)) if requests or responses else None


def wants_body(content_type: bytes | None) -> bool:
    """Whether a body of this type is edited: application/json and anything that ends with +json (RFC 6839).

    Of several types one is enough: whoever reads the last one must not get past the edits by the first.
    """
    if content_type is None:
        return False
    kinds = [one.partition(b";")[0].strip().lower() for one in content_type.split(b",")]
    return any(
        kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))
        for kind in kinds
    )


def content_type(headers: Headers) -> bytes | None:
    """All that the message says, joined."""
    return b",".join(value for name, value in headers if name.lower() == b"content-type") or None


class Edits:
    """The flags say which of the four need to be called at all. Placeholders read a message as it was when the
    transformation that they stand in began; in bodies, as its head is by then."""

    __slots__ = (
        "_requests", "_responses", "edits_request_body", "edits_request_head", "edits_response_body",
        "edits_response_head",
    )  # fmt: skip

    def __init__(self, requests: tuple[Part, ...], responses: tuple[Part, ...]) -> None:
        self._requests, self._responses = requests, responses
        self.edits_request_body = any(part.body is not None for part in requests)
        self.edits_response_body = any(part.body is not None for part in responses)
        self.edits_request_head = bool(requests) or self.edits_response_body
        self.edits_response_head = bool(responses)

    def request_head(self, head: RequestHead) -> None:
        """Raises routing.BadPath when a value from the client would make a path that could mean two things."""
        if self.edits_request_body and wants_body(content_type(head.headers)):
            head.headers = without(head.headers, _DIGESTS)
        for part in self._requests:
            path = head.path if part.path is None else part.path(head)
            query, headers = head.query, head.headers
            if part.query is not None:
                query = b"&".join(part.query.edited(query_pairs(query), head, None))
            if part.headers is not None:
                headers = part.headers.edited(header_pairs(headers), head, None)
            head.path, head.query, head.headers = path, query, headers
        if self.edits_response_body:
            head.headers = [*without(head.headers, _NEGOTIATED), (b"Accept-Encoding", b"identity")]

    def request_body(self, body: bytes, head: RequestHead) -> bytes:
        """The body edited. Raises BadBody for what is not JSON or cannot be read: going on with it would go past the
        edits."""
        if not body:
            return body
        if _is_encoded(head):
            raise BadBody("The body is compressed; send it plain.", 415)
        try:
            return _edited(body, self._requests, head, None)
        except (ValueError, RecursionError) as error:
            raise BadBody("The body is not JSON, or nested too deeply.") from error

    def response_head(self, head: ResponseHead, request: RequestHead) -> None:
        if self.edits_response_body and wants_body(content_type(head.headers)) and not _is_encoded(head):
            head.headers = [_weakened(header) for header in without(head.headers, _STALE)]
        for part in self._responses:
            status, headers = part.statuses.get(head.status, head.status), head.headers
            if part.headers is not None:
                headers = part.headers.edited(header_pairs(headers), request, head)
            head.status, head.headers = status, headers

    def response_body(self, body: bytes, head: ResponseHead, request: RequestHead) -> bytes:
        """The body edited; as it is, with `head.untouched` saying why, where it cannot be read."""
        if not body:
            return body
        if head.status == 206 or _is_encoded(head):
            head.untouched = "partial" if head.status == 206 else "encoded"
            return body
        try:
            return _edited(body, self._responses, request, head)
        except (ValueError, RecursionError):
            head.untouched = "not JSON"
        except BadBody:
            head.untouched = "not editable"
        return body


def _edited(
    body: bytes, parts: tuple[Part, ...], request: RequestHead, response: ResponseHead | None
) -> bytes:
    root = exact_json.loads(body)
    for part in parts:
        if part.body is not None:
            part.body.apply(root, request, response)
    return exact_json.dumps(root)


def _is_encoded(head: RequestHead | ResponseHead) -> bool:
    return (joined(head.headers, b"content-encoding") or "identity").strip().lower() != "identity"


def _weakened(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """An edited body is not the same byte for byte, which a strong entity tag would promise (RFC 9110 section 8.8)."""
    name, value = header
    return (name, b"W/" + value) if name.lower() == b"etag" and value.startswith(b'"') else header
