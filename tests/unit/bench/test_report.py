from __future__ import annotations

import re

from bench.aims import judge
from bench.figures import Measured, Report
from bench.report import markdown, stage_medians
from tests.unit.bench.examples import case, measured, on_azure, rolled, run


def report_text(**changes: object) -> str:
    figures = measured(**changes)
    return markdown(Report(measured=figures, aims=judge(figures)))


def test_the_report_names_machine_and_run() -> None:
    """Machine, date, commit and command allow others to repeat it."""
    text = report_text()

    for words in (
        "2026-11-22 11:17 UTC",
        "0123456789ab",
        "`python -m bench`",
        "2 cores",
        "Docker 20.10",
        "10 minutes",
    ):
        assert words in text


def test_figures_have_a_minimum_and_a_maximum() -> None:
    """A median alone hides how steady it was."""
    text = report_text(
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
    """It is bold."""
    assert "| `invoke --list` takes less than 0.5 s | 0.90 s | **no** |" in report_text(
        listing=(0.9,)
    )


def test_every_table_has_as_many_cells_in_each_row() -> None:
    """A row of another width breaks the page."""
    widths = [
        [line.count("|") for line in table.splitlines()]
        for table in re.findall(r"(?:^\|.*\n)+", report_text(), re.MULTILINE)
    ]

    assert len(widths) == 10
    assert all(len(set(width)) == 1 for width in widths)


def test_an_engine_that_is_not_visible_is_reported() -> None:
    """An engine on another machine has no figures, and no zeros either."""
    hidden = run(engine_cpu=None, engine_peak=None)

    assert "not seen" in report_text(cases=(case("first", suite=(hidden,), docker=(hidden,)),))


def test_parts_that_were_left_out_have_no_headings() -> None:
    """A run of one part gives a short page."""
    text = report_text(cases=(), transfer=None, served=(), rolled=(), azure=None)

    assert "## Releases" not in text
    assert "## Serving" not in text
    assert "## Rollouts" not in text
    assert "## On Azure" not in text
    assert "Measured later" not in text
    assert "`invoke --list`" in text


def test_the_report_shows_rollouts_as_clients_saw_them() -> None:
    """It has the requests, failures and mixed responses, and the time of each rollout."""
    text = report_text(rolled=(rolled("steady", mixed=2),))

    assert "| docker | steady | 4 | 750 | 30 | 0 | 2 | 11, 22 | 33, 44 |" in text
    assert "| new model | 9.5 |" in text
    assert "| taken back | 10.4 |" in text


def test_parts_of_a_later_run_have_its_time() -> None:
    """All parts of one run are together, with its machine if that differs."""
    text = merged_report_text(measured(at="later", command="python -m bench --only load listing"))
    command = "`python -m bench --only load listing`"
    taken = f"Taken later at commit 0123456789ab by {command}, in 10 minutes.\n"
    assert f"Measured later: load, listing. {taken}" in text
    assert "another machine" not in text
    other = measured().machine.model_copy(update={"cores": 64})
    assert "On another machine: 64 cores, some; Linux." in merged_report_text(
        measured(machine=other)
    )


def merged_report_text(other: Measured) -> str:
    figures = measured().with_parts_of(other, ["listing", "load"])
    return markdown(Report(measured=figures, aims=judge(figures)))


def test_the_median_of_a_stage_counts_runs_without_it() -> None:
    """A stage of only one of three runs has a median of zero."""
    runs = (
        run(stages={"push": 3.0, "build": 1.0}),
        run(stages={"build": 2.0}),
        run(stages={"build": 6.0}),
    )

    assert stage_medians(runs) == {"push": 0.0, "build": 2.0}


def test_azure_has_the_first_token_and_a_download() -> None:
    """Without Azurite only the token was measured."""
    text = report_text()

    assert "| 0.80 s (0.80 to 0.80) | 0.30 s (0.30 to 0.30) | 100 ms | 2 |" in text
    assert "| azure-storage-blob | 3.00 s (2.50 to 3.50) | 77 |" in text
    assert "azure-storage-blob" not in report_text(azure=on_azure())
