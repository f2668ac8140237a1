from __future__ import annotations

import json

import pytest

from bench import first_token
from bench.figures import FirstToken


def test_a_login_sends_no_more_requests_than_it_has_to() -> None:
    """One finds where tokens are requested, one requests it; so does each further identity."""
    assert [first_token.log_in()[1] for _ in range(2)] == [2, 2]


def test_the_program_prints_what_the_record_has(capsys: pytest.CaptureFixture[str]) -> None:
    """All but the time of its own process."""
    first_token.main()

    token = FirstToken(process=9.0, **json.loads(capsys.readouterr().out))
    assert token.requests == 2
    assert token.cold > 0.0
    assert token.warm > 0.0
