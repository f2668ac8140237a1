from __future__ import annotations

import re

from bench.aims import judged
from bench.figures import Report
from bench.report import markdown, middles
from tests.unit.bench.examples import case, measured, run


def _shown(**changes: object) -> str:
    found = measured(**changes)
    return markdown(Report(measured=found, aims=judged(found)))


def test_the_report_tells_what_it_was_measured_on() -> None:
    """Machine, date, commit and command, so that anybody can repeat it."""
    text = _shown()

    for words in ("2026-11-22 11:17 UTC", "0123456789ab", "`python -m bench`", "2 cores", "Docker 20.10", "10 minutes"):
        assert words in text


def test_figures_are_shown_with_their_ends() -> None:
    """A median alone hides how steady it was."""
    text = _shown(cases=(case("unchanged", suite=(run(seconds=1.0, stored=0), run(seconds=1.2, stored=0), run(seconds=1.9, stored=0))),))

    assert "1.20 s (1.00 to 1.90)" in text


def test_a_missed_aim_stands_out() -> None:
    """It is not to be read over."""
    assert "| `invoke --list` takes less than 0.5 s | 0.90 s | **no** |" in _shown(listing=(0.9,))


def test_every_table_has_as_many_cells_in_each_row() -> None:
    """A row of another width breaks the page."""
    widths = [[line.count("|") for line in table.splitlines()] for table in re.findall(r"(?:^\|.*\n)+", _shown(), re.MULTILINE)]

    assert len(widths) == 6
    assert all(len(set(width)) == 1 for width in widths)


def test_an_engine_that_cannot_be_seen_is_said_to_be() -> None:
    """Where it runs elsewhere, it has no figures, and no zeros either."""
    hidden = run(engine_cpu=None, engine_peak=None)

    assert "not seen" in _shown(cases=(case("first", suite=(hidden,), docker=(hidden,)),))


def test_parts_that_were_left_out_have_no_headings() -> None:
    """A run of one part gives a short page."""
    text = _shown(cases=(), transfer=None, served=())

    assert "## Releases" not in text
    assert "## Serving" not in text
    assert "`invoke --list`" in text


def test_the_middle_of_a_stage_counts_runs_that_skipped_it() -> None:
    """A stage that only one of three runs had took no time in the middle."""
    runs = (run(stages={"push": 3.0, "build": 1.0}), run(stages={"build": 2.0}), run(stages={"build": 6.0}))

    assert middles(runs) == {"push": 0.0, "build": 2.0}
