"""`python -m examples.mail_sink --port 1025 --dir DIR`: an SMTP server that keeps each message as a file.

Refuses the recipients listed in DIR/refused.txt (one per line) with 550. The file is read for every recipient, so an
address that is taken off the list is accepted at once. No Django: it stands for somebody else's mail server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

REFUSED = "poison@example.com"


class Sink:
    """aiosmtpd's handler."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.refused = folder, folder / "refused.txt"

    def prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.refused.exists():
            self.refused.write_text(f"{REFUSED}\n")

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.lower() in self._refused():
            return f"550 5.1.1 {address} is refused here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        await asyncio.to_thread(self._store, content)
        return "250 OK: stored"

    def _refused(self) -> set[str]:
        try:
            lines = self.refused.read_text().splitlines()
        except FileNotFoundError:
            return set()
        return {line.strip().lower() for line in lines if line.strip()}

    def _store(self, content: bytes) -> None:
        """Under a name that sorts by time, complete or not at all."""
        stem = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}"
        unfinished = self.folder / f"{stem}.part"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
        unfinished.rename(self.folder / f"{stem}.eml")


async def serve(host: str, port: int, sink: Sink) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def session() -> Any:
        return SMTP(sink, hostname="mail-sink", enable_SMTPUTF8=True, loop=loop)

    server = await loop.create_server(session, host, port)
    print(
        f"mail sink listens on {host}:{server.sockets[0].getsockname()[1]}, keeps {sink.folder}", flush=True
    )
    await stop.wait()
    server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.mail_sink", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1025, help="0 = a free one")
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    sink = Sink(options.dir)
    try:
        sink.prepare()
        asyncio.run(serve(options.host, options.port, sink))
    except OSError as error:
        print(f"error: mail sink: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
