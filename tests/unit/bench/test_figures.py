from __future__ import annotations

import json
from typing import Any

import pytest

from bench.figures import (
    Burst,
    Cost,
    Download,
    FirstToken,
    Measured,
    Report,
    Spread,
    Transfer,
)
from tests.unit.bench.examples import measured, run


def test_a_spread_is_the_median_the_minimum_and_the_maximum() -> None:
    """One slow repetition changes the maximum, not the median."""
    assert Spread.of([3.0, 1.0, 20.0]) == Spread(median=3.0, least=1.0, most=20.0)


def test_the_time_until_pushed_has_no_smoke_test_and_no_rollout() -> None:
    """Start, fetch, build, join and push count; stages that did not run count nothing."""
    assert run(
        stages={"start and fetch": 1.0, "load and smoke test": 4.0, "push": 0.5, "roll out": 3.0}
    ).pushed == pytest.approx(1.5)
    assert run().pushed == pytest.approx(2.0)


def test_transfers_are_compared_pair_by_pair() -> None:
    """Each upload is compared with the PUT of the same turn."""
    assert Transfer(size=1, suite=(1.0, 3.0), put=(2.0, 2.0)).ratios == (0.5, 1.5)


def test_downloads_are_compared_pair_by_pair() -> None:
    """Each download of the library is compared with that of the suite in the same turn."""
    assert Download(size=1, suite=(1.0, 2.0), library=(3.0, 5.0)).ratios == (3.0, 2.5)


def test_the_first_token_has_the_imports_of_the_login() -> None:
    """The login after it, in the same process, has none."""
    token = FirstToken(process=0.9, cold=0.4, warm=0.1, requests=2)

    assert token.first == pytest.approx(0.8)
    assert token.imports == pytest.approx(0.3)


def test_a_rate_is_requests_by_seconds() -> None:
    """Failed requests do not count."""
    assert Burst(requests=30, failures=5, seconds=2.0, p50=1.0, p99=2.0).rate == 15.0


def test_a_report_can_be_read_from_its_json() -> None:
    """A later program reads it."""
    report = Report(measured=measured(), aims=())

    assert Report.from_json(json.dumps(report.model_dump(mode="json"))) == report
    assert Measured.from_json(measured().to_json()) == measured()


def _cost(**changes: Any) -> Cost:
    values: dict[str, Any] = {name: getattr(run(), name) for name in Cost.model_fields}
    return Cost(**(values | changes))


def test_costs_in_a_row_add_up() -> None:
    """Time and bytes are sums, memory is a maximum; what is unknown of both stays unknown."""
    both = _cost(seconds=1.0, peak=5, read=10, engine_peak=None) + _cost(
        seconds=2.0, peak=7, read=None, engine_peak=9
    )

    assert (both.seconds, both.peak, both.read, both.engine_peak) == (3.0, 7, 10, 9)
    assert both.cpu == 2 * run().cpu
    unseen = _cost(written=None, engine_cpu=None, engine_peak=None)
    assert (
        (unseen + unseen).written,
        (unseen + unseen).engine_cpu,
        (unseen + unseen).engine_peak,
    ) == (None, None, None)


def test_parts_of_a_later_run_replace_the_earlier_ones() -> None:
    """The others keep their figures; each part has the time of its last run."""
    first = measured()
    second = measured(at="later", listing=(9.0,), served=(), cases=())
    joined = first.with_parts_of(second, ["listing", "serving"])

    assert (joined.cases, joined.rolled, joined.at) == (first.cases, first.rolled, first.at)
    assert (joined.listing, joined.served) == ((9.0,), ())
    assert {part: taken.at for part, taken in joined.later.items()} == {
        "listing": "later",
        "serving": "later",
    }
    again = joined.with_parts_of(measured(at="last"), ["serving"])
    assert {part: taken.at for part, taken in again.later.items()} == {
        "listing": "later",
        "serving": "last",
    }
    assert Measured.from_json(again.to_json()) == again
