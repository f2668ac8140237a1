from __future__ import annotations

import json
from typing import Any

import pytest

from app import scoring
from app.classifier import Guess
from app.problems import RequestError
from app.scoring import Scores


@pytest.mark.parametrize(
    "body", [{"input": ["a", "b"]}, {"input": '["a", "b"]'}, {"input": ["a", "b"], "more": None}]
)
def test_both_forms_of_the_list_are_read(body: dict[str, Any]) -> None:
    """The list of pictures may be a list, or JSON in a string; other keys do not matter."""
    assert scoring.read_body(json.dumps(body).encode(), 2) == ["a", "b"]


@pytest.mark.parametrize(
    ("raw", "status", "field"),
    [
        (b"", 400, None),
        (b"[]", 400, None),
        (b"null", 400, None),
        (b"{}", 400, "input"),
        (b'{"input": null}', 400, "input"),
        (b'{"input": 1}', 400, "input"),
        (b'{"input": {}}', 400, "input"),
        (b'{"input": []}', 400, "input"),
        (b'{"input": "[]"}', 400, "input"),
        (b'{"input": ""}', 400, "input"),
        (b'{"input": "abc"}', 400, "input"),
        (b'{"input": "\\"a\\""}', 400, "input"),
        (b'{"input": "{\\"a\\": 1, \\"a\\": 2}"}', 400, "input"),
        (b'{"input": ["a", ""]}', 400, "input/1"),
        (b'{"input": ["a", 1]}', 400, "input/1"),
        (b'{"input": "[\\"a\\", null]"}', 400, "input/1"),
        (b'{"input": [["a"]]}', 400, "input/0"),
        (b'{"input": ["a"], "input": ["b"]}', 400, None),
        (b'{"input": ["a", "b", "c"]}', 413, "input"),
    ],
)
def test_wrong_bodies_are_refused_by_field(raw: bytes, status: int, field: str | None) -> None:
    """The error carries its status and the path of what is wrong."""
    with pytest.raises(RequestError) as caught:
        scoring.read_body(raw, 2)
    assert (caught.value.status, caught.value.field) == (status, field)


def test_answer_has_the_form_of_the_tutorial() -> None:
    """The result is the guesses of each picture, and the time in words."""
    answer = scoring.format_scores(Scores([[Guess("n07920052 espresso", 95.1)]], 12.34))
    assert answer == {"result": [[[["n07920052 espresso", 95.1]]], "Computed in 12.3 ms"]}
