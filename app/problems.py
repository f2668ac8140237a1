"""Errors as answers: every one is an ``application/problem+json`` document (RFC 9457)."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

_log = logging.getLogger("app")

_DETAILS = {
    404: "Nothing is served at this path; /openapi.json lists what is.",
    405: "This path does not take this method; the Allow header lists those that it takes.",
}


class RequestError(Exception):
    """A request cannot be served as it is.

    Attributes:
        status: HTTP status of the answer.
        detail: What is wrong, in a sentence for the caller.
        field: Path of the wrong value in the body, such as ``input/1``; None where the body is not at fault.
        retry_after: Seconds after which the same request may be served; None where it would fare no better.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.retry_after = retry_after


def answer(status: int, detail: str, field: str | None = None) -> Response:
    """Make the answer that reports one problem."""
    phrase = HTTPStatus(status).phrase
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "detail": detail,
    }
    if field is not None:
        problem["field"] = field
    return Response(json.dumps(problem) + "\n", status, content_type="application/problem+json")


def register(app: Flask) -> None:
    """Have every error of the application answered as a problem."""
    app.register_error_handler(RequestError, _refused)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unforeseen)


def _refused(error: RequestError) -> Response:
    response = answer(error.status, error.detail, error.field)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    response = answer(
        status, _DETAILS.get(status) or error.description or HTTPStatus(status).phrase
    )
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def _unforeseen(error: Exception) -> Response:
    # What happened is for the log only: its text could tell a caller of paths and versions.
    _log.error("unforeseen error", exc_info=error)
    return answer(500, "The request could not be served; the log of the application says why.")
