from __future__ import annotations

import re

from bench.aims import judge
from bench.figures import Measured, Report
from bench.report import markdown, stage_medians
from tests.unit.bench.examples import case, measured, rolled, run


def _shown(**changes: object) -> str:
    found = measured(**changes)
    return markdown(Report(measured=found, aims=judge(found)))


def test_the_report_tells_what_it_was_measured_on() -> None:
    """Machine, date, commit and command, so that anybody can repeat it."""
    text = _shown()

    for words in (
        "2026-11-22 11:17 UTC",
        "0123456789ab",
        "`python -m bench`",
        "2 cores",
        "Docker 20.10",
        "10 minutes",
    ):
        assert words in text


def test_figures_are_shown_with_their_ends() -> None:
    """A median alone hides how steady it was."""
    text = _shown(
        cases=(
            case(
                "unchanged",
                suite=(
                    run(seconds=1.0, stored=0),
                    run(seconds=1.2, stored=0),
                    run(seconds=1.9, stored=0),
                ),
            ),
        )
    )

    assert "1.20 s (1.00 to 1.90)" in text


def test_a_missed_aim_stands_out() -> None:
    """It is not to be read over."""
    assert "| `invoke --list` takes less than 0.5 s | 0.90 s | **no** |" in _shown(listing=(0.9,))


def test_every_table_has_as_many_cells_in_each_row() -> None:
    """A row of another width breaks the page."""
    widths = [
        [line.count("|") for line in table.splitlines()]
        for table in re.findall(r"(?:^\|.*\n)+", _shown(), re.MULTILINE)
    ]

    assert len(widths) == 8
    assert all(len(set(width)) == 1 for width in widths)


def test_an_engine_that_cannot_be_seen_is_said_to_be() -> None:
    """Where it runs elsewhere, it has no figures, and no zeros either."""
    hidden = run(engine_cpu=None, engine_peak=None)

    assert "not seen" in _shown(cases=(case("first", suite=(hidden,), docker=(hidden,)),))


def test_parts_that_were_left_out_have_no_headings() -> None:
    """A run of one part gives a short page."""
    text = _shown(cases=(), transfer=None, served=(), rolled=())

    assert "## Releases" not in text
    assert "## Serving" not in text
    assert "## Rollouts" not in text
    assert "Measured later" not in text
    assert "`invoke --list`" in text


def test_what_clients_saw_of_rollouts_is_shown() -> None:
    """What was sent, failed and mixed up, at rest and in rollouts, and how long each rollout took."""
    text = _shown(rolled=(rolled("steady", mixed=2),))

    assert "| docker | steady | 4 | 750 | 30 | 0 | 2 | 11, 22 | 33, 44 |" in text
    assert "| new model | 9.5 |" in text
    assert "| taken back | 10.4 |" in text


def test_parts_of_a_later_run_say_when_they_were_measured() -> None:
    """All parts of one run together; and on what, if that was not the machine of the others."""
    text = _joined(measured(at="later", command="python -m bench --only load listing"))
    taken = "Taken later at commit 0123456789ab by `python -m bench --only load listing`, in 10 minutes.\n"
    assert f"Measured later: load, listing. {taken}" in text
    assert "another machine" not in text
    elsewhere = measured().machine.model_copy(update={"cores": 64})
    assert "On another machine: 64 cores, some; Linux." in _joined(measured(machine=elsewhere))


def _joined(other: Measured) -> str:
    found = measured().with_parts_of(other, ["listing", "load"])
    return markdown(Report(measured=found, aims=judge(found)))


def test_the_middle_of_a_stage_counts_runs_that_skipped_it() -> None:
    """A stage that only one of three runs had took no time in the middle."""
    runs = (
        run(stages={"push": 3.0, "build": 1.0}),
        run(stages={"build": 2.0}),
        run(stages={"build": 6.0}),
    )

    assert stage_medians(runs) == {"push": 0.0, "build": 2.0}
