"""A real SMTP server on this host that takes letters, and answers as its script says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = b"alerts", b"p4ssw0rd"


class MailServer:
    """answers: what the next letters' RCPT are answered, and "hang": no answer to DATA until `close`; 250 when none is left.

    refused: these addresses, with 550.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: list[str] = []
        self.refused: set[str] = set()
        self.letters: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.logins = 0
        self._tls, self._loop, self._released = tls, asyncio.new_event_loop(), asyncio.Event()
        self._server = self._loop.run_until_complete(self._loop.create_server(self._session, "127.0.0.1", 0))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ended(self) -> None:
        self._released.set()
        self._server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _session(self) -> SMTP:
        tls: dict[str, Any] = {}
        if self._tls:
            tls = {"tls_context": self._tls, "require_starttls": True, "auth_required": True}
        return SMTP(self, hostname="mail.test", authenticator=self._authenticate, loop=self._loop, **tls)

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any
    ) -> AuthResult:
        is_known = given == LoginPassword(USER, PASSWORD)
        self.logins += is_known
        return AuthResult(success=is_known, handled=False)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return f"550 5.1.1 {address} is refused here"
        if self.answers and self.answers[0] != "hang":
            return self.answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answers:
            self.answers.pop(0)
            await self._released.wait()
        self.recipients.append(envelope.rcpt_tos)
        self.letters.append(
            BytesParser(EmailMessage, policy=default).parsebytes(envelope.original_content or b"")
        )
        return "250 OK"


@contextlib.contextmanager
def mail_server(tls: ssl.SSLContext | None = None) -> Iterator[MailServer]:
    one = MailServer(tls)
    try:
        yield one
    finally:
        one.close()
