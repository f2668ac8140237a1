from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.__main__ import FULL, PARTS, QUICK, merge_report, require_disk_space, write
from bench.aims import judge
from bench.figures import Report
from tests.unit.bench.examples import measured


def test_a_disk_that_is_too_small_ends_the_run_at_its_start(tmp_path: Path) -> None:
    """A full disk during the run would spoil all figures."""
    huge = dataclasses.replace(FULL, models=((10**15, 1000),))

    with pytest.raises(SystemExit, match="TMPDIR"):
        require_disk_space(tmp_path, huge)


def test_a_full_run_measures_what_the_aims_need() -> None:
    """It has 250 MB and 1 GB, and every case more than once."""
    assert [size for size, _ in FULL.models] == [250_000_000, 1_000_000_000]
    assert (
        min(
            FULL.first,
            FULL.unchanged,
            FULL.code,
            FULL.pushes,
            FULL.listing,
            FULL.download[1],
            *(turns for _, turns in FULL.models),
        )
        > 1
    )
    assert FULL.load.clients == (1, 4, 16)
    assert FULL.download[0] == 230_000_000
    assert QUICK.models[0][0] < 50_000_000


def test_a_report_is_written_for_programs_and_for_people(tmp_path: Path) -> None:
    """The folder is created; JSON can be read again, Markdown shows the charts."""
    report = Report(measured=measured(), aims=judge(measured()))
    write(report, tmp_path / "new" / "folder")

    assert Report.from_json((tmp_path / "new" / "folder" / "report.json").read_bytes()) == report
    assert "releases.png" in (tmp_path / "new" / "folder" / "report.md").read_text(encoding="utf-8")


def test_some_parts_are_merged_into_the_existing_report(tmp_path: Path) -> None:
    """The others keep their figures; a full run, or a first one, is a report of its own."""
    old = measured(at="old")
    new = measured(at="new", listing=(7.0,), cases=())
    assert merge_report(new, ["listing"], tmp_path) == new
    write(Report(measured=old, aims=()), tmp_path)

    found = merge_report(new, ["listing"], tmp_path)
    assert (found.at, found.cases, found.listing, found.later["listing"].at) == (
        "old",
        old.cases,
        (7.0,),
        "new",
    )
    assert merge_report(new, [], tmp_path) == new


def test_every_part_can_be_measured_alone() -> None:
    """Rollouts under load are one part; those on a cluster another."""
    assert set(PARTS) == {
        "releases",
        "pushes",
        "serving",
        "load",
        "cluster",
        "azure",
        "listing",
    }
    assert (FULL.rollouts.steps, len(FULL.rollouts.loads)) == (10, 2)
