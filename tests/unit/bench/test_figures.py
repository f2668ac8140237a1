from __future__ import annotations

import json

import pytest

from bench.figures import Burst, Measured, Report, Spread, Transfer
from tests.unit.bench.examples import measured, run


def test_a_spread_is_the_median_and_the_ends() -> None:
    """One slow repetition moves an end, not the middle."""
    assert Spread.of([3.0, 1.0, 20.0]) == Spread(median=3.0, least=1.0, most=20.0)


def test_a_run_is_pushed_without_what_tries_it_out_or_makes_it_serve() -> None:
    """Starting, fetching, building, joining and pushing count; stages that did not happen count nothing."""
    assert run(stages={"start and fetch": 1.0, "load and smoke test": 4.0, "push": 0.5, "roll out": 3.0}).pushed == pytest.approx(1.5)
    assert run().pushed == pytest.approx(2.0)


def test_transfers_are_compared_pair_by_pair() -> None:
    """Each upload is held against the PUT of the same turn."""
    assert Transfer(size=1, suite=(1.0, 3.0), put=(2.0, 2.0)).ratios == (0.5, 1.5)


def test_a_rate_is_requests_by_seconds() -> None:
    """Requests that failed are no requests answered."""
    assert Burst(requests=30, failures=5, seconds=2.0, p50=1.0, p99=2.0).rate == 15.0


def test_a_report_is_the_same_as_json_and_back() -> None:
    """What is written can be read again by a later program."""
    report = Report(measured=measured(), aims=())

    assert Report.from_json(json.dumps(report.model_dump(mode="json"))) == report
    assert Measured.from_json(measured().to_json()) == measured()
