"""The transformation of one call: edits and plugins, in both directions. The doors buffer bodies and move bytes.

request → (its body) → target → response → (its body)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .calls import Refusal
from .edits import Edits, content_type, wants_body
from .errors import BadBody, PluginFailed
from .heads import Headers, RequestHead, ResponseHead
from .hooks import Hooks
from .plugins import Failure, Reply
from .routing import BadPath

PLUGIN_REPLY = "plugin_reply"


@dataclass(frozen=True, slots=True)
class Transforms:
    """What a route does to its calls: one of the two at least. names: of the transformations, in order. untouched:
    told why a response's body was not edited though it should have been."""

    edits: Edits | None = None
    hooks: Hooks | None = None
    names: tuple[str, ...] = ()
    untouched: Callable[[str], None] = lambda why: None


class Transformation:
    """head: the request as its target will see it, once `request` has been called. said: the target's own status, 0
    before its response."""

    __slots__ = ("_edits", "_hooks", "_response", "_untouched", "head", "said")

    def __init__(self, transforms: Transforms, head: RequestHead) -> None:
        self._edits, self._hooks, self.head = transforms.edits, transforms.hooks, head
        self._untouched = transforms.untouched
        self._response = ResponseHead()
        self.said = 0

    @property
    def wants_request_body(self) -> bool:
        edits = self._edits
        return edits is not None and edits.edits_request_body and wants_body(content_type(self.head.headers))

    def request(self, body: bytes | None) -> tuple[Refusal | None, bytes | None]:
        """(an answer to give instead, the body). body: where it is wanted, else None."""
        reply, body = self.edit(body)
        return reply or self.plug(), body

    def edit(self, body: bytes | None) -> tuple[Refusal | None, bytes | None]:
        """`request` without the plugins: nobody's code but ours, so any thread may do it."""
        try:
            if self._edits is not None:
                if self._edits.edits_request_head:
                    self._edits.request_head(self.head)
                if body is not None:
                    body = self._edits.request_body(body, self.head)
        except BadBody as error:
            return Refusal(error.status, "body_malformed", error.detail), None
        except BadPath as error:
            return Refusal(400, "path_ambiguous", f"The path becomes ambiguous: {error}."), None
        return None, body

    def plug(self) -> Refusal | None:
        try:
            reply = self._hooks.on_request(self.head) if self._hooks is not None else None
        except PluginFailed as error:
            return Refusal(502, "plugin_failed", str(error))
        return None if reply is None else _refusal(reply, PLUGIN_REPLY)

    def response(self, status: int, headers: Headers) -> ResponseHead:
        """The head for the client. Raises PluginFailed."""
        self.said = status
        self._response = response = ResponseHead(status, headers)
        if self._hooks is not None:
            self._hooks.on_response(self.head, response)
        if self._edits is not None and self._edits.edits_response_head:
            self._edits.response_head(response, self.head)
        return response

    @property
    def wants_response_body(self) -> bool:
        edits = self._edits
        if edits is None or not edits.edits_response_body:
            return False
        return wants_body(content_type(self._response.headers))

    def response_body(self, body: bytes) -> bytes:
        assert self._edits is not None  # noqa: S101  (it wanted the body)
        edited = self._edits.response_body(body, self._response, self.head)
        if self._response.untouched:
            self._untouched(self._response.untouched)
        return edited

    def too_large(self) -> None:
        """The response's body goes on as it is, as it is not to be held."""
        self._untouched("too large")

    def instead_of(self, refusal: Refusal) -> Refusal:
        """What a plugin answers in place of a failure that is open to it, or the failure."""
        if self._hooks is None or not refusal.is_open:
            return refusal
        reply = self._hooks.on_error(self.head, Failure(refusal.status, refusal.code, refusal.detail))
        return refusal if reply is None else _refusal(reply, refusal.code)


def request_head(
    method: str, uri: bytes, headers: Headers, params: Mapping[str, str], client_ip: str, request_id: str,
    consumer: tuple[str, str],
) -> RequestHead:  # fmt: skip
    """uri: in origin form. consumer: name and id, "" for nobody."""
    path, _, query = uri.partition(b"?")
    return RequestHead(method, path, query, headers, params, client_ip, request_id, *consumer)


def _refusal(reply: Reply, code: str) -> Refusal:
    headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-type"}
    kind = next((value for name, value in reply.headers.items() if name.lower() == "content-type"), "")
    return Refusal(reply.status, code, "", tuple(headers.items()), body=reply.body, content_type=kind)
