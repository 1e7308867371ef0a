"""Who signs our own tokens, the simplejwt classes that use it, and the DRF authentication that accepts what
it signed.

The signing issuer is the JwtIssuer row with `signs`, else the site's own (settings.JWT_SECRET). Verification
is tokens.py's on both doors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.contrib.auth import get_user_model
from rest_framework import authentication, exceptions
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.tokens import AccessToken as SimpleAccessToken
from rest_framework_simplejwt.tokens import RefreshToken as SimpleRefreshToken

from foundation import roles

from . import cuts, revocations, secret_box, tokens
from .auth import subject_of
from .callers import OWN_ISSUER, default_issuer
from .conf import conf
from .holder import Holder
from .models import JwtIssuer

log = structlog.get_logger(__name__)

REALM = "brain"
holder = Holder()  # this process's view of the configuration, for everything that is not the edge


@dataclass(frozen=True, slots=True)
class Signer:
    """simplejwt's token backend (encode, decode, get_leeway) over tokens.py. issuer: the key; expiry_s: of
    access tokens."""

    issuer: tokens.Issuer
    expiry_s: int

    def encode(self, payload: dict[str, Any]) -> str:
        claims = payload | {"iss": self.issuer.issuer or OWN_ISSUER}
        if self.issuer.audience:
            claims["aud"] = self.issuer.audience
        return tokens.sign(claims, self.issuer.algorithm, self.issuer.key)

    def decode(self, token: str | bytes, verify: bool = True) -> dict[str, Any]:
        """The claims of a refresh token. Raises TokenBackendError."""
        text = token.encode() if isinstance(token, str) else token
        try:
            claims = self.verifier().verify(text, _wall(), token_type=SimpleRefreshToken.token_type)[1]
        except tokens.Rejected as error:
            raise TokenBackendError("the token is not accepted") from error
        if is_revoked(self.issuer, claims, text):
            raise TokenBackendError("the token is revoked")
        return claims

    def verifier(self) -> tokens.Verifier:
        return tokens.Verifier([self.issuer], leeway_s=conf().JWT_LEEWAY_S)

    def get_leeway(self) -> timedelta:
        return timedelta(seconds=conf().JWT_LEEWAY_S)


class SigningUnavailable(exceptions.APIException):
    """No token can be signed or checked: the secret that does it cannot be opened."""

    status_code = 503
    default_code = "signing_unavailable"
    default_detail = "Tokens cannot be signed at the moment."


def signer() -> Signer:
    """Read from the database, so that a new secret signs at once. Raises SigningUnavailable."""
    row = JwtIssuer.objects.filter(signs=True, enabled=True).first()
    if row is None:
        return Signer(default_issuer(), int(SimpleAccessToken.lifetime.total_seconds()))
    try:
        key = row.key()
    except secret_box.Sealed as error:
        log.error("signing_unavailable", issuer=row.name, error=str(error))
        raise SigningUnavailable from error
    return Signer(tokens.Issuer(row.name, row.algorithm, key, row.issuer, row.audience), row.expiry_s)


class _Signed:
    """What our two token classes share: the backend, chosen once a token."""

    _signer: Signer | None = None

    def get_token_backend(self) -> Any:
        if self._signer is None:
            self._signer = signer()
        return self._signer


class AccessToken(_Signed, SimpleAccessToken):
    pass


class RefreshToken(_Signed, SimpleRefreshToken):
    access_token_class = AccessToken

    @classmethod
    def for_user(cls, user: Any, at: datetime | None = None) -> RefreshToken:
        """at: a moment before this user was looked at (api/tokens.py); None: now."""
        token: Any = super().for_user(user)
        token.set_iat(at_time=at)
        token.set_exp(lifetime=timedelta(seconds=conf().REFRESH_LIFETIME_S))
        token["sub"] = str(user.pk)
        return token

    def access_for(self, user: Any, at: datetime | None = None) -> AccessToken:
        """An access token with the roles that the user holds now: a refresh does not carry old ones on. at: as for
        for_user."""
        access = AccessToken()
        access.set_iat(at_time=at)
        lifetime = timedelta(seconds=access.get_token_backend().expiry_s)
        access.set_exp(lifetime=lifetime)
        access["user_id"] = access["sub"] = str(user.pk)
        access["username"] = user.get_username()
        access["roles"] = sorted(roles.of(user))
        return access


class BearerAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer <token>` signed by ourselves, for an active user. API keys are for routes, not
    for the API."""

    def authenticate(self, request: Request) -> tuple[Any, str] | None:
        header = authentication.get_authorization_header(request)
        scheme, _, token = header.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        token = token.strip()
        try:
            issuer, claims = signer().verifier().verify(token, _wall())
        except (tokens.Rejected, SigningUnavailable) as error:  # the client is told no more of the one
            raise exceptions.AuthenticationFailed("The token is not accepted.") from error
        if is_revoked(issuer, claims, token):
            raise exceptions.AuthenticationFailed("The token is revoked.")
        user = get_user_model().objects.filter(pk=user_pk(subject_of(claims)), is_active=True).first()
        if user is None:
            raise exceptions.AuthenticationFailed("The token's user does not exist or is not active.")
        return user, token.decode("latin-1")

    def authenticate_header(self, request: Request) -> str:
        return f'Bearer realm="{REALM}"'


def is_revoked(issuer: tokens.Issuer, claims: dict[str, Any], token: bytes) -> bool:
    """By the rows. claims: verified."""
    return revocations.is_revoked(issuer.name, claims.get("jti"), token) or cuts.is_cut(
        issuer.name, subject_of(claims), claims.get("iat")
    )


def user_pk(subject: Any) -> int | None:
    return int(subject) if isinstance(subject, str) and subject.isdecimal() and len(subject) < 19 else None


def _wall() -> float:
    return time.time()  # noqa: TID251  (tokens expire in wall time)
