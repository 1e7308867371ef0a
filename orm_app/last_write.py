"""Read-your-writes from one request of a client to its next: a signed cookie with the moment of its last write.

The moment is by the primary's clock, as another process of another machine may serve the next request.
"""

from __future__ import annotations

import math
from time import monotonic

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import replicas
from .conf import conf
from .topology import topology
from .work import Unit

COOKIE = "brain_last_write"
_READING = ("GET", "HEAD", "OPTIONS")


def since(request: HttpRequest) -> float | None:
    """What this request's reads must see, by time.monotonic(); None: nothing in particular."""
    if not topology().replicas:
        return None
    if (
        request.method not in _READING
    ):  # it reads a row to change it: an old one would undo what others have written
        return monotonic()
    value = request.COOKIES.get(COOKIE)
    if not value:
        return None
    try:
        moments = parse(_signer().unsign(value))
    except (BadSignature, ValueError):
        return None
    return max((replicas.moment_here(primary, moment) for primary, moment in moments.items()), default=None)


def remember(response: HttpResponseBase, unit: Unit) -> None:
    """After the request's commits."""
    keep_s = conf().READ_YOUR_WRITES_S
    written = sorted(unit.written & topology().replicas.keys()) if keep_s else []
    if not written:
        return
    text = ",".join(f"{primary}:{_told(replicas.moment_of(primary))}" for primary in written)
    response.set_cookie(
        COOKIE,
        _signer().sign(text),
        max_age=math.ceil(keep_s),
        httponly=True,
        secure=settings.SESSION_COOKIE_SECURE,
        samesite="Lax",
    )


def parse(text: str) -> dict[str, float | None]:
    """`default:1764171234.5,orders:`; None: this process could not say when. Raises ValueError."""
    pairs = [part.rpartition(":") for part in text.split(",")]
    return {primary: float(moment) if moment else None for primary, _, moment in pairs}


def _told(moment: float | None) -> str:
    return "" if moment is None else f"{moment:.6f}"


def _signer() -> Signer:
    return Signer(salt="orm_app.last_write")
