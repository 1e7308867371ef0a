"""Field checks of the models that need more than one expression. Run by `clean`, not as `validators`: a migration
would have to import ours."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Collection
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

from foundation import roles, url_guard
from gateway import (
    dial,
    document,
    edits,
    health,
    jwks,
    lookups,
    plugins,
    routing,
    secret_box,
    tokens,
)
from gateway.conf import conf
from gateway.origins import check_socket, read

Check = Callable[[Any], None]

name = RegexValidator(
    r"^[A-Za-z0-9/{][A-Za-z0-9/{}._:*\[\]~-]*\Z", "Letters, digits, and . _ - : / after the first character."
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_HASH_ON = re.compile(r"ip|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SERVER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_TARGET = re.compile(r"/[\x21-\x22\x24-\x7e]*")  # a path and its query, without a fragment
_DEEPEST_JSON = 30  # below what a document may nest, as it has more around it
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
        if routing.HOST.fullmatch(value) is None:
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
    try:
        health.statuses(value)
    except ValueError as error:
        raise ValidationError(str(error)) from error


def path(value: str, kind: str) -> None:
    try:
        normal = routing.check_path(value, kind)
    except ValueError as error:
        raise ValidationError(str(error)) from error
    if normal != value:
        raise ValidationError(f"Write it without the slash at the end: {normal}")


def target(url: str, *, is_used: bool) -> None:
    """http://host:port, https://host:port or unix:/path, and one that we may connect to, where it is used: what the
    settings came to forbid can still be turned off."""
    try:
        origin = read(url)
        if not url.startswith(f"{origin.scheme}:"):  # not the same target twice, and as the database has it
            raise ValueError(f"write {url.partition(':')[0]!r} in lower case")
        if not is_used:
            return
        if origin.scheme == "unix":
            check_socket(origin.path, conf().UNIX_SOCKET_DIRS)
        else:
            _guarded(url_guard.check, url)
    except ValueError as error:
        raise ValidationError(str(error)) from error


def key_set(url: str) -> None:
    """Where an issuer publishes its keys."""
    try:
        if url:
            _guarded(jwks.check_url, url)
    except url_guard.Refused as error:
        raise ValidationError(str(error)) from error


def _guarded(check: Callable[..., Any], url: str) -> None:
    # A name that does not resolve today is a target that is down, not a wrong one; the address used is checked again.
    with contextlib.suppress(url_guard.Unresolved):
        check(url, resolve=lookups.addresses)


def public_key(algorithm: str, pem: str) -> None:
    try:
        if pem and algorithm in tokens.ALGORITHMS:  # its own check says so of another
            tokens.Issuer("", algorithm, pem.encode()).check()
    except ValueError as error:
        raise ValidationError(str(error)) from error


def sealed(secret: str) -> None:
    """A secret as it is stored. A weak one is for trying things out."""
    try:
        opened = secret_box.open_(secret)
    except secret_box.Sealed as error:
        raise ValidationError(f"{error}, or give the issuer another one.") from error
    weak = document.weakness(opened) if settings.PRODUCTION else ""
    if weak:
        raise ValidationError(f"The secret is {weak}.")


def authorities(pem: str) -> None:
    if not pem:  # the system's: to load them takes 30 ms, and nobody's PEM is checked by it
        return
    try:
        dial.context(pem)
    except ValueError as error:
        raise ValidationError(str(error)) from error


def server_name(value: str) -> None:
    if value and _SERVER_NAME.fullmatch(value) is None:
        raise ValidationError("A host name, as in the target's certificate.")


def health_path(value: str) -> None:
    """It goes into a request as it is."""
    if value and _TARGET.fullmatch(value) is None:
        raise ValidationError("A path such as /healthz, with its query if need be, in visible ASCII.")


def header_value(value: str) -> None:
    if not (value.isascii() and value.isprintable()):
        raise ValidationError("Visible ASCII and spaces.")


def plain_json(value: Any, at: str = "", depth: int = 0) -> None:
    """What every database, a document and an edge's copy on disk can hold."""
    if depth > _DEEPEST_JSON:
        raise ValidationError("Nested too deep.")
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            plain_json(key, at, depth)
            plain_json(item, f"{at}.{key}".removeprefix("."), depth + 1)
    elif isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValidationError(f"{at!r}: a text has no NUL character and no half of one.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValidationError(f"{at!r}: {value} is not a number that JSON has.")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValidationError(f"{at!r}: a whole number has 64 bits.")


def edits_of(phase: str, spec: Any, route: Any) -> None:
    """One phase of a transformation. route: the row it belongs to, None for a whole service, whose routes differ in
    their placeholders."""
    plain_json(spec)
    parameters = routing.placeholders(route.path, route.path_kind) if route and route.path else None
    wrong = edits.problems(spec, phase, parameters)
    if wrong:
        raise ValidationError(wrong)


def plugin(path: str, its_settings: Any) -> None:
    """Raises ValidationError of the fields `plugin` and `settings`."""
    wrong: dict[str, list[str]] = {}
    for problem in plugins.problems(path, its_settings, conf().PLUGINS):
        field, _, told = problem.partition(": ")
        wrong.setdefault(field, []).append(told)
    if wrong:
        raise ValidationError(wrong)


def _words(values: Any, what: str, known: Collection[str] | None = None) -> None:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        such = f", such as {sorted(known)[:2]}" if known else ""
        raise ValidationError(f"A list of {what}s{such}.")
    unknown = [value for value in values if known is not None and value not in known]
    if unknown:
        raise ValidationError(f"{unknown[0]!r} is not a {what}: use {', '.join(sorted(known or ()))}.")
