"""What htmx asks for, which the admin's pages use to renew and to add parts of themselves."""

from __future__ import annotations

from django.http import HttpRequest


def is_part(request: HttpRequest) -> bool:
    """htmx asks for a part of the page that it is in; not, as it may after a step back, for the whole of a page."""
    asked = request.headers
    return asked.get("HX-Request") == "true" and asked.get("HX-History-Restore-Request") != "true"
