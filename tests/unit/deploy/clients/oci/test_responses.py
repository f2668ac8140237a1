"""Small responses of a registry: how much of them is read, and what they mean."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import requests

from deploy.clients.oci.responses import (
    MAX_BYTES,
    error_text,
    is_full,
    load_body,
    parse_token,
)

ENOSPC = 28
EIO = 5


class Raw:
    """A body of urllib3 that arrives in pieces, and the number of bytes that were read."""

    def __init__(self, *pieces: bytes, endless: bool = False) -> None:
        self._pieces = list(pieces)
        self._endless = endless
        self.taken = 0
        self.closed = False

    def read1(self, amount: int, *, decode_content: bool) -> bytes:
        piece = self._pieces[0] if self._endless else self._pieces.pop(0) if self._pieces else b""
        self.taken += len(piece[:amount])
        return piece[:amount]

    def close(self) -> None:
        self.closed = True

    def release_conn(self) -> None:
        """Release the connection."""


def answer(raw: Raw, status: int = 500) -> requests.Response:
    """Return a response whose body has not been read."""
    response = requests.Response()
    response.status_code = status
    response.raw = cast("Any", raw)
    return response


def loaded_response(document: object, status: int = 500) -> requests.Response:
    """Return a response with a JSON body that has arrived."""
    response = answer(
        Raw(json.dumps(document).encode() if not isinstance(document, bytes) else document), status
    )
    load_body(response, 10)
    return response


def refusal(detail: object) -> dict[str, object]:
    """Return the body of a refusal."""
    return {"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": detail}]}


def test_the_start_of_an_endless_body_is_loaded() -> None:
    """Its connection is closed, because more bytes would arrive."""
    raw = Raw(bytes(100_000), endless=True)
    endless = answer(raw)
    load_body(endless, 10)
    assert len(endless.content) == raw.taken == MAX_BYTES
    assert raw.closed


def test_a_body_is_loaded_once() -> None:
    """The content stays, though no more bytes can be read."""
    once = answer(Raw(b"abc"))
    load_body(once, 10)
    load_body(once, 10)
    assert once.content == b"abc"


def test_a_broken_body_is_empty_and_closed() -> None:
    """No bytes can follow."""

    class Breaking(Raw):
        def read1(self, amount: int, *, decode_content: bool) -> bytes:
            raise ConnectionResetError

    raw = Breaking()
    broken = answer(raw)
    with pytest.raises(ConnectionResetError):
        load_body(broken, 10)
    assert broken.content == b""
    assert raw.closed


def test_the_registrys_own_errors_are_shown() -> None:
    """Each error is a line with its detail; a long text is cut."""
    two = {
        "errors": [
            {"code": "DENIED", "message": "no"},
            {"code": "UNKNOWN", "message": "unknown error", "detail": {"Err": 28}},
        ]
    }
    assert error_text(loaded_response(two)) == '  DENIED: no\n  UNKNOWN: unknown error {"Err": 28}'
    assert len(error_text(loaded_response(refusal("x" * 10_000)))) == 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"errors": 7}',
        b'{"errors": [7, null]}',
        b"[" * 100_000,
    ],
)
def test_a_body_without_errors_has_no_text(body: bytes) -> None:
    """No content of a server or a proxy is a crash."""
    assert error_text(loaded_response(body)) == ""
    assert not is_full(loaded_response(body))
    assert parse_token(loaded_response(body)) is None


@pytest.mark.parametrize(
    ("status", "detail", "full"),
    [
        (
            500,
            {
                "DriverName": "filesystem",
                "Enclosed": {"Op": "write", "Path": "/var/lib/registry/x", "Err": ENOSPC},
            },
            True,
        ),
        (
            500,
            {
                "DriverName": "filesystem",
                "Enclosed": {"Op": "write", "Path": "/var/lib/registry/x", "Err": EIO},
            },
            False,
        ),
        (500, {"DriverName": "filesystem", "Enclosed": "no space"}, False),
        (500, {"Enclosed": None}, False),
        (500, ["no space left"], False),
        (507, None, True),
    ],
)
def test_a_registry_without_space_is_known_by_its_codes(
    status: int, detail: object, full: bool
) -> None:
    """The status or the error number of the system decides, not the text."""
    assert is_full(loaded_response(refusal(detail), status)) is full


@pytest.mark.parametrize(
    ("document", "token"),
    [
        ({"token": "a"}, "a"),
        ({"access_token": "b"}, "b"),
        ({"token": "a", "access_token": "b"}, "a"),
        ({"token": 7}, None),
        ({"other": "a"}, None),
    ],
)
def test_a_token_may_have_either_of_two_names(document: object, token: str | None) -> None:
    """The specification has one name, some services the other."""
    assert parse_token(loaded_response(document, 200)) == token
