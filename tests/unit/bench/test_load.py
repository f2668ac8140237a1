from __future__ import annotations

import pytest

from bench.load import Answer, percentile, summarise


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0.1, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: int) -> None:
    """It is the nearest rank, not a value between two."""
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == value


def test_failures_have_no_latency() -> None:
    """Fast errors and wrong responses must not make a server look fast."""
    answers = [
        Answer(0, 0.010, 200, "m"),
        Answer(0, 0.030, 200, "m"),
        Answer(0, 0.001, 503, ""),
        Answer(0, 0.002, 200, "m", "not right"),
    ]
    burst = summarise(answers, 2.0)

    assert (burst.requests, burst.failures, burst.rate) == (2, 2, 1.0)
    assert [burst.p50, burst.p99] == pytest.approx([10.0, 30.0])


def test_a_server_that_never_answers_is_no_error_of_the_benchmark() -> None:
    """Its rate is 0, and its failures are counted."""
    burst = summarise([Answer(0, 1.0, 0, "")], 1.0)

    assert (burst.rate, burst.failures) == (0.0, 1)
