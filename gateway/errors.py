"""The gateway's own exceptions: each is caught by somebody."""

from __future__ import annotations


class GatewayError(Exception):
    """Something the gateway was asked to do cannot be done."""


class BadRequest(GatewayError):
    """The client's request is refused while it is being read; the connection closes after the answer.

    code: the reason for machines. status: of the answer.
    """

    def __init__(self, code: str, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.code, self.detail, self.status = code, detail, status


class BadBody(GatewayError):
    """A request's body cannot be edited. status: of the answer."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.detail, self.status = detail, status


class PluginFailed(GatewayError):
    """A plugin that is not to be gone on without did not do its work. Its message names the plugin, not the reason."""


class TrafficUnavailable(GatewayError):
    """The traffic figures are kept in Redis, which does not answer."""

    def __init__(self) -> None:
        super().__init__("the traffic figures are kept in Redis, which does not answer")


class InvalidDocument(GatewayError):
    """The configuration document is wrong. problems: one line each, beginning with the line and the path to the key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class RollbackRefused(GatewayError):
    """The configuration cannot be brought back to that version."""
