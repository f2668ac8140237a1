"""The bodies of requests, each bounded in bytes and in time, and all of them in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request

from app.problems import RequestError
from app.settings import Settings


class Room:
    """The bytes that all bodies may take in memory together."""

    def __init__(self, most: int) -> None:
        self.left = most

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Open a share, empty at first; all that it took is free again at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self.left += share.taken


class Share:
    """What one body takes of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.taken = 0

    def take(self, count: int) -> None:
        """Take so many bytes more.

        Raises:
            RequestError: There is no room for them.
        """
        if count > self._room.left:
            detail = "Too many bytes wait to be scored."
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=1, unread=True)
        self._room.left -= count
        self.taken += count


async def read(request: Request, share: Share, settings: Settings) -> bytes:
    """Return the body of a request in JSON.

    Raises:
        RequestError: It is of another type, too large, too slow or not whole.
    """
    _check_type(request)
    if int(request.headers.get("content-length", "0")) > settings.max_body_bytes:
        raise _too_large(settings)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.read_seconds):
            async for piece in request.stream():
                if len(body) + len(piece) > settings.max_body_bytes:
                    raise _too_large(settings)
                share.take(len(piece))
                body += piece
    except (TimeoutError, ClientDisconnect):
        detail = "The body did not arrive whole and in time."
        raise RequestError(HTTPStatus.REQUEST_TIMEOUT, detail, unread=True) from None
    return bytes(body)


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        detail = "The Content-Type must be application/json."
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, unread=True)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        detail = "No Content-Encoding is understood."
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, unread=True)


def _too_large(settings: Settings) -> RequestError:
    detail = f"The body must have at most {settings.max_body_bytes} bytes."
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, unread=True)
