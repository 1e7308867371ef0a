"""Field checks of the models that need more than one expression. Run by `clean`, not as `validators`: a migration
would have to import ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

from foundation import roles, url_guard
from gateway import routing
from gateway.conf import conf
from gateway.origins import Origin, check_socket, read

Check = Callable[[Any], None]

name = RegexValidator(
    r"^[A-Za-z0-9/{][A-Za-z0-9/{}._:*\[\]~-]*\Z", "Letters, digits, and . _ - : / after the first character."
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_HASH_ON = re.compile(r"ip|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUSES = re.compile(r"[1-5][0-9]{2}(-[1-5][0-9]{2})?(,[1-5][0-9]{2}(-[1-5][0-9]{2})?)*")


def run(checks: dict[str, tuple[Check, Any]]) -> None:
    """Each field's check; raises one ValidationError with what all of them found."""
    wrong = {}
    for field, (check, value) in checks.items():
        try:
            check(value)
        except ValidationError as error:
            wrong[field] = error
    if wrong:
        raise ValidationError(wrong)


def methods(values: Any) -> None:
    _words(values, "method", routing.ANY_METHOD)


def known_roles(values: Any) -> None:
    _words(values, "role", roles.RANKED)


def scopes(values: Any) -> None:
    """RFC 6749 section 3.3: visible ASCII without the quote and the backslash."""
    _words(values, "scope")
    for value in values:
        if not value or not value.isascii() or not value.isprintable() or set(' "\\') & set(value):
            raise ValidationError(f"{value!r} is not a scope: visible ASCII without spaces and quotes.")


def hosts(values: Any) -> None:
    _words(values, "host")
    for value in values:
        if _HOST.fullmatch(value) is None:
            raise ValidationError(
                f"{value!r} is not a host: api.example.com or *.example.com, in lower case."
            )


def headers(values: Any) -> None:
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise ValidationError('A mapping of header names to values, such as {"X-Version": "2"}.')
    for header in values:
        if _TOKEN.fullmatch(header) is None:
            raise ValidationError(f"{header!r} is not the name of a header.")


def hash_on(value: str) -> None:
    if value and _HASH_ON.fullmatch(value) is None:
        raise ValidationError("Write ip, header:NAME or cookie:NAME.")


def statuses(value: str) -> None:
    if _STATUSES.fullmatch(value) is None:
        raise ValidationError("Status codes and ranges of them, such as 200-399 or 200,204.")


def path(value: str, kind: str) -> None:
    try:
        normal = routing.check_path(value, kind)
    except ValueError as error:
        raise ValidationError(str(error)) from error
    if normal != value:
        raise ValidationError(f"Write it without the slash at the end: {normal}")


def target(url: str) -> Origin:
    """http://host:port, https://host:port or unix:/path, and one that the URL guard lets us connect to."""
    try:
        origin = read(url)
    except ValueError as error:
        raise ValidationError(str(error)) from error
    if origin.scheme != "unix":
        _guarded(url)
        return origin
    try:
        check_socket(origin.path, conf().UNIX_SOCKET_DIRS)
    except ValueError as error:
        raise ValidationError(str(error)) from error
    return origin


def guarded_url(url: str) -> None:
    """Any URL that we fetch ourselves."""
    if url:
        _guarded(url)


def _guarded(url: str) -> None:
    try:
        url_guard.check(url, resolve=_resolved)
    except url_guard.Refused as error:
        raise ValidationError(str(error)) from error


def _resolved(host: str, port: int) -> list[str]:
    # A name that does not resolve today is a target that is down, not a wrong one; the address used is checked again.
    try:
        return url_guard.resolve_by_system(host, port)
    except url_guard.Refused:
        return ["1.1.1.1"]


def _words(values: Any, what: str, known: Collection[str] | None = None) -> None:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        such = f", such as {sorted(known)[:2]}" if known else ""
        raise ValidationError(f"A list of {what}s{such}.")
    unknown = [value for value in values if known is not None and value not in known]
    if unknown:
        raise ValidationError(f"{unknown[0]!r} is not a {what}: use {', '.join(sorted(known or ()))}.")
