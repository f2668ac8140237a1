"""Errors as responses: each is an `application/problem+json` document (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

_DETAILS = {
    404: "Nothing is served at this path.",
    405: "This path does not take this method; the Allow header lists those that it takes.",
}


class RequestError(Exception):
    """A request cannot be served as it is.

    Attributes:
        status: HTTP status of the response.
        detail: What is wrong, in a sentence for the client.
        field: Path of the wrong value in the body, such as `input/1`; None where the body is not
            at fault.
        retry_after: Seconds after which the same request may be served; None where it would fare
            no better.
        unread: Whether the body was not read to its end, so that no request can follow it on the
            same connection.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        field: str | None = None,
        *,
        retry_after: int | None = None,
        unread: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.retry_after = retry_after
        self.unread = unread


class Problem(JSONResponse):
    """The response that reports one problem."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        phrase = HTTPStatus(status).phrase
        problem: dict[str, Any] = {"type": "about:blank", "title": phrase}
        problem |= {"status": status, "detail": detail}
        if field is not None:
            problem["field"] = field
        super().__init__(problem, status)


async def report_refusal(_: Request, error: Exception) -> Problem:
    """Return the response to a request that cannot be served."""
    assert isinstance(error, RequestError)  # noqa: S101 - registered for it alone
    problem = Problem(error.status, error.detail, error.field)
    if error.retry_after is not None:
        problem.headers["Retry-After"] = str(error.retry_after)
    if error.unread:
        problem.headers["Connection"] = "close"
    return problem


async def report_http_error(_: Request, error: Exception) -> Problem:
    """Return the response to a request that no path takes."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    problem = Problem(error.status_code, _DETAILS.get(error.status_code, error.detail))
    problem.headers.update(error.headers or {})
    return problem


def report_fault() -> Problem:
    """Return the response to a request that met a fault of the application."""
    detail = "The request could not be served; the log of the application says why."
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
