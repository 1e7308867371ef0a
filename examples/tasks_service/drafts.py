"""What a client may write about a task, checked before the database sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator

MAX_TITLE = 200
MAX_EMAIL = 254
_FIELDS = {"title", "done", "assignee_email"}


class Malformed(ValueError):
    """The body is not a JSON object."""


class Invalid(ValueError):
    """The object's members are wrong; errors: a JSON pointer and a text for each."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("The task is not valid.")
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Draft:
    title: str
    assignee_email: str
    done: bool = False


def read(body: bytes) -> Draft:
    """Raises Malformed or Invalid."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("The body is not JSON.") from error
    if not isinstance(given, dict):
        raise Malformed("The body is not a JSON object.")
    errors = list(_errors(given))
    if errors:
        raise Invalid([{"pointer": f"/{name}", "detail": text} for name, text in errors])
    return Draft(given["title"].strip(), given["assignee_email"], given.get("done", False))


def _errors(given: dict[str, Any]) -> list[tuple[str, str]]:
    found = [(name, "is not a field of a task") for name in sorted(set(given) - _FIELDS)]
    title, email = given.get("title"), given.get("assignee_email")
    # Printable: a line break would end the mail's subject line, and PostgreSQL stores no NUL.
    if not isinstance(title, str) or not title.strip() or len(title) > MAX_TITLE or not title.isprintable():
        found.append(("title", f"is a line of 1 to {MAX_TITLE} characters"))
    if not isinstance(email, str) or len(email) > MAX_EMAIL or not _is_address(email):
        found.append(("assignee_email", "is an email address"))
    if not isinstance(given.get("done", False), bool):
        found.append(("done", "is true or false"))
    return found


def _is_address(text: str) -> bool:
    try:
        EmailValidator()(text)
    except ValidationError:
        return False
    return True
