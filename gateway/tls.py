"""The edge's own certificate: read once, and again when its files have changed, for the handshakes that come then.

files → a new context as a whole → taken by the next handshake; what is under way keeps the one it has
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509

log = structlog.get_logger(__name__)

LOOK_S = 2.0  # how often the files are looked at

_Seen = tuple[tuple[int, int, int], ...]  # of each file, when it was written, which and how long it is


class Certificate:
    """cert: a chain in PEM, its own certificate first. key: its key, None: in the same file. `context` is for the
    listener. Raises ValueError with what is wrong with the files."""

    def __init__(self, cert: Path, key: Path | None = None) -> None:
        self._cert, self._key = cert, key or cert
        self._seen = self._look()
        self._newest = self.context = self._load()
        # A context can load other certificates while it is in use, but not two files at once, and one for another kind
        # of key would stand beside the old one.
        self.context.sni_callback = self._choose

    def renew(self, *, at_once: bool = False) -> bool:
        """Take the files again if they have changed; whether they were taken. Files that are no good leave the last
        ones in use. at_once: also if they look unchanged. Blocks."""
        try:
            seen = self._look()
            if seen == self._seen and not at_once:
                return False
            self._seen = seen
            self._newest = self._load()
        except ValueError as error:
            log.error("tls_certificate_kept", error=str(error))
            return False
        log.info("tls_certificate_loaded", not_after=self.not_after)
        return True

    @property
    def not_after(self) -> str:
        """Of the newest one, in ISO 8601."""
        (own, *_) = x509.load_pem_x509_certificates(self._pem)
        return own.not_valid_after_utc.isoformat()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if self._newest is not context:
            connection.context = self._newest

    def _look(self) -> _Seen:
        try:
            found = [file.stat() for file in (self._cert, self._key)]
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
        return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in found)

    def _load(self) -> ssl.SSLContext:
        pem = _read(self._cert, b"CERTIFICATE-----", "certificate")
        _read(self._key, b"PRIVATE KEY-----", "private key")
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        made.set_alpn_protocols(["http/1.1"])
        try:
            x509.load_pem_x509_certificates(pem)
            made.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ValueError(self._told(error)) from error
        self._pem = pem
        return made

    def _told(self, error: Any) -> str:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            return f"{self._key} is not the key of {self._cert}"
        return f"{self._cert} and {self._key} cannot be used: {reason or error}"


def _read(file: Path, mark: bytes, what: str) -> bytes:
    try:
        found = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    if mark not in found:
        raise ValueError(f"{file} holds no {what} in PEM")
    return found


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to be asked for its passphrase")
