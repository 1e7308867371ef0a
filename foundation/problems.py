"""Errors in the field's own form, application/problem+json (RFC 9457), from DRF views, plain views and Django itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.serializers.json import DjangoJSONEncoder
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseForbidden,
    HttpResponseGone,
    HttpResponseNotAllowed,
    HttpResponseNotFound,
    HttpResponseServerError,
)
from django.http.response import HttpResponseBase
from django.views import defaults
from rest_framework import exceptions

from . import request_id as request_ids
from .middleware import Around

if TYPE_CHECKING:
    from .middleware import Finish

CONTENT_TYPE = "application/problem+json"

# What Django and its views answer with by themselves. A view that builds its own body (the proxy that passes on an
# upstream's error page) uses HttpResponse or a stream, and is left alone.
_BARE = (
    HttpResponseBadRequest,
    HttpResponseForbidden,
    HttpResponseNotFound,
    HttpResponseNotAllowed,
    HttpResponseGone,
    HttpResponseServerError,
)
_DETAILS = {
    400: "The request cannot be understood.",
    403: "This is not allowed.",
    404: "There is nothing at this address.",
    405: "The method is not allowed here.",
    410: "What was here is gone.",
    500: "Something went wrong on our side. The request id helps to find it in the logs.",
}


def document(
    status: int,
    *,
    title: str | None = None,
    detail: str | None = None,
    type: str = "about:blank",
    instance: str | None = None,
    request_id: str | None = None,
    **extensions: Any,
) -> dict[str, Any]:
    """The members of RFC 9457 section 3.1, without the ones that are None, then the extensions.

    With the type `about:blank` the title is the status' own phrase (section 4.2.1).
    """
    members = {
        "type": type,
        "title": title or _phrase(status),
        "status": status,
        "detail": detail,
        "instance": instance,
        "request_id": request_id,
    }
    return {name: value for name, value in (members | extensions).items() if value is not None}


def response(
    request: HttpRequest,
    status: int,
    *,
    detail: str | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> HttpResponse:
    """A problem about `request`: `instance` is its path, `request_id` the current one."""
    members = {"instance": request.path, "request_id": request_ids.current()} | members
    body = json.dumps(document(status, detail=detail, **members), cls=DjangoJSONEncoder)
    return HttpResponse(body, status=status, content_type=CONTENT_TYPE, headers=dict(headers or {}))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown error"


# --- DRF -------------------------------------------------------------------------------------------------------------
def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """REST_FRAMEWORK["EXCEPTION_HANDLER"]. Anything that is not an HTTP error goes on to Django, which logs it."""
    # Here, because rest_framework.views imports the settings' authentication classes, which may import this module.
    from rest_framework.views import exception_handler as translate

    if isinstance(exc, RequestDataTooBig):  # Django's own answer is a bare 400
        request = context["request"]
        most = f"{settings.DATA_UPLOAD_MAX_MEMORY_SIZE:,} bytes"
        detail = f"The body is larger than {most} (DATA_UPLOAD_MAX_MEMORY_SIZE)."
        return response(getattr(request, "_request", request), 413, detail=detail)
    drawn = translate(exc, dict(context))
    if drawn is None:
        return None
    headers = {
        name: drawn[name] for name in ("WWW-Authenticate", "Retry-After", "Allow") if drawn.has_header(name)
    }
    request = context["request"]
    if isinstance(exc, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    members: dict[str, Any] = {"detail": _detail(exc, drawn.status_code)}
    if isinstance(exc, exceptions.ValidationError):
        members = {"detail": "The request has invalid fields.", "errors": _errors(exc.get_full_details())}
    return response(getattr(request, "_request", request), drawn.status_code, headers=headers, **members)


def _detail(exc: Exception, status: int) -> str:
    told = getattr(exc, "detail", None)
    return str(told) if told else _DETAILS.get(status, _phrase(status))


def _errors(details: Any, pointer: str = "") -> list[dict[str, str]]:
    """DRF's nested details as a flat list; pointer: a JSON Pointer (RFC 6901) into the request's body, "" for all of it."""
    if (
        isinstance(details, dict)
        and set(details) == {"message", "code"}
        and not isinstance(details["code"], dict | list)
    ):
        return [{"pointer": pointer, "detail": str(details["message"]), "code": str(details["code"])}]
    if isinstance(details, dict):
        return [e for key, value in details.items() for e in _errors(value, _step(pointer, str(key)))]
    nested = any(isinstance(item, dict) and "message" not in item for item in details)
    return [
        e for i, item in enumerate(details) for e in _errors(item, f"{pointer}/{i}" if nested else pointer)
    ]


def _step(pointer: str, key: str) -> str:
    if key == "non_field_errors":
        return pointer
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"


# --- plain views -----------------------------------------------------------------------------------------------------
class ProblemMiddleware(Around):
    """Turns Django's own error pages into problems for whoever did not ask for HTML, and always under /api/."""

    def around(self, request: HttpRequest) -> AbstractContextManager[Finish]:
        return nullcontext(lambda answer: _restated(request, answer))


def _restated(request: HttpRequest, answer: HttpResponseBase) -> HttpResponseBase:
    if not isinstance(answer, _BARE) or wants_html(request):
        return answer
    if answer.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
        return answer
    kept = {
        name: answer[name] for name in ("Allow", "Retry-After", "WWW-Authenticate") if answer.has_header(name)
    }
    problem = response(request, answer.status_code, detail=_DETAILS.get(answer.status_code), headers=kept)
    problem.cookies = answer.cookies
    return problem


def wants_html(request: HttpRequest) -> bool:
    """A browser says text/html by name; `*/*` (curl, most libraries) is not asking for a page."""
    if request.path.startswith("/api/"):
        return False
    if request.path == "/admin" or request.path.startswith("/admin/"):
        return True
    return any((kind.main_type, kind.sub_type) == ("text", "html") for kind in request.accepted_types)


# --- the site's handler400 … handler500 --------------------------------------------------------------------------------
def handler400(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    return defaults.bad_request(request, exception) if wants_html(request) else _problem(request, 400)


def handler403(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    return defaults.permission_denied(request, exception) if wants_html(request) else _problem(request, 403)


def handler404(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    return defaults.page_not_found(request, exception) if wants_html(request) else _problem(request, 404)


def handler500(request: HttpRequest) -> HttpResponseBase:
    return defaults.server_error(request) if wants_html(request) else _problem(request, 500)


def _problem(request: HttpRequest, status: int) -> HttpResponse:
    return response(request, status, detail=_DETAILS[status])
