from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.figures import Report
from bench.sandbox import BENCH_LABEL
from tests.missing import lacking

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


def labelled() -> set[str]:
    """Return what any run of the benchmark has created in the engine."""
    names: set[str] = set()
    for kind in (("container", "ls", "-a"), ("volume", "ls"), ("network", "ls"), ("image", "ls")):
        command = ["docker", *kind, "-q", "--filter", f"label={BENCH_LABEL}"]
        names.update(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        )
    return names


@pytest.fixture(scope="module", name="before")
def _before() -> set[str]:
    return labelled()


@pytest.fixture(scope="module", name="folder")
def _folder(before: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report of all parts, measured once on small models."""
    folder = tmp_path_factory.mktemp("report")
    main(["--quick", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module", name="report")
def _report(folder: Path) -> Report:
    return Report.from_json((folder / "report.json").read_bytes())


def test_every_case_is_measured_both_ways(report: Report) -> None:
    """Each case has figures of the suite and of docker."""
    cases = {case.name: case for case in report.measured.cases}

    assert list(cases) == ["first", "unchanged", "code", "model-30000000"]
    for case in cases.values():
        assert len(case.suite) == len(case.docker) == 1
        assert all(run.seconds > 0 and run.peak > 10_000_000 for run in (*case.suite, *case.docker))


def test_the_stages_of_a_release_are_all_recognised(report: Report) -> None:
    """The log lines of a release end its stages."""
    first = report.measured.cases[0].suite[0]

    assert list(first.stages) == [
        "start and fetch",
        "build",
        "join",
        "load and smoke test",
        "push",
        "roll out",
        "verify and end",
    ]
    assert sum(first.stages.values()) == pytest.approx(first.seconds)


def test_bytes_are_counted_where_they_arrive(report: Report) -> None:
    """A new model stores its size, by both ways; no change stores nothing."""
    cases = {case.name: case for case in report.measured.cases}

    model = cases["model-30000000"]
    assert all(29_000_000 < run.stored < 32_000_000 for run in model.suite)
    assert all(20_000_000 < run.stored < 32_000_000 for run in model.docker)
    assert all(run.received > run.stored for run in model.suite)
    assert [run.stored for run in cases["unchanged"].suite] == [0]
    assert all(run.stored < 1_000_000 for run in cases["code"].suite)


def test_new_code_does_not_read_the_model(report: Report) -> None:
    """It is known to be unchanged without that."""
    code = next(case for case in report.measured.cases if case.name == "code")
    if not code.weights_read:
        lacking(
            "reads of the model's files cannot be observed here",
            "have the cache on a disk, rather than in memory",
        )
    assert max(code.weights_read) < 5_000_000


def test_every_server_answers_every_load_without_a_failure(report: Report) -> None:
    """There are five servers, two pictures, and two numbers of clients."""
    assert len({item.server for item in report.measured.served}) == 5
    assert len(report.measured.served) == 20
    assert all(
        burst.requests > 0 and burst.failures == 0
        for item in report.measured.served
        for burst in item.bursts
    )


def test_rollouts_under_load_lose_no_request(report: Report) -> None:
    """A new model and new code are rolled out; each response is correct."""
    (rolled,) = report.measured.rolled
    assert [rollout.name for rollout in rolled.rollouts] == ["new model", "new code"]
    assert rolled.rest.requests > 0
    assert rolled.rolling.requests > 20
    assert (rolled.rest.failures, rolled.rolling.failures, rolled.mixed) == (0, 0, 0)


def test_the_first_token_on_azure_is_measured(report: Report) -> None:
    """The download is not, where Azurite is not installed; a scenario has it."""
    azure = report.measured.azure

    assert azure is not None
    assert [token.requests for token in azure.tokens] == [2]
    assert all(token.first > token.imports > 0.0 for token in azure.tokens)


def test_the_report_is_written_with_its_charts(folder: Path) -> None:
    """JSON is for programs, Markdown and charts are for people."""
    text = (folder / "report.md").read_text(encoding="utf-8")
    pictures = {path.name for path in folder.glob("*.png")}

    assert len(pictures) == 5
    assert all(f"({name})" in text for name in pictures)


def test_nothing_stays_in_the_engine(before: set[str], report: Report) -> None:
    """Containers, volumes, networks and images of the benchmark are removed."""
    assert report.measured.cases
    assert labelled() <= before
