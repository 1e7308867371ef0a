"""The gateway's own exceptions: each is caught by somebody."""

from __future__ import annotations


class GatewayError(Exception):
    """Something the gateway was asked to do cannot be done."""


class BadRequest(GatewayError):
    """The client's request is refused while it is being read. status: of the answer; the connection closes
    after it."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.detail, self.status = detail, status


class InvalidDocument(GatewayError):
    """The configuration document is wrong. problems: one line each, beginning with the path to the key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
