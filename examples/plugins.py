"""Two plugins of the gateway, as a team would write them; tests/examples/test_plugins.py is how they are tested.

BRAIN = {"GATEWAY": {"PLUGINS": ("examples.plugins.SignRequests", "examples.plugins.FeatureFlag")}}
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from gateway.plugins import Failure, Reply, Request, Response


class SignRequests:
    """Signs what is sent to the target, so that it takes requests from the gateway only.

    key_file: holds at least 32 bytes. The key is in a file because a row's settings are shown in the admin.
    """

    def __init__(self, key_file: str, header: str = "X-Gateway-Signature") -> None:
        self._key = Path(key_file).read_bytes().strip()
        if len(self._key) < 32:
            raise ValueError("the key has fewer than 32 bytes")
        self._header = header

    def on_request(self, request: Request) -> None:
        signed = b"\n".join(
            (request.method.encode(), request.path, request.query, request.request_id.encode())
        )
        request.set_header(self._header, hmac.new(self._key, signed, hashlib.sha256).hexdigest())

    def on_response(self, request: Request, response: Response) -> None:
        response.remove_header("X-Powered-By")


@dataclass
class FeatureFlag:
    """Opens a route for some consumers before it opens for all. A dataclass checks the names of its settings."""

    flag: str
    consumers: list[str]
    is_open: bool = False

    def on_request(self, request: Request) -> Reply | None:
        if self.is_open or request.consumer_name in self.consumers:
            return None
        return Reply(403, f"{self.flag} is not open for you yet.\n".encode(), {"Content-Type": "text/plain"})

    def on_error(self, request: Request, failure: Failure) -> Reply | None:
        """Whoever tries out something new may be told what went wrong."""
        if request.consumer_name not in self.consumers:
            return None
        return Reply(
            failure.status, f"{failure.code}: {failure.detail}\n".encode(), {"Content-Type": "text/plain"}
        )
