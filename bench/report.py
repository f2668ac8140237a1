"""The report for people: Markdown with the charts next to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from statistics import median

from bench.figures import (
    FIELDS,
    Arrival,
    Burst,
    Case,
    Machine,
    Measured,
    OnAzure,
    Report,
    Rolled,
    Run,
    Served,
    Spread,
    Taken,
)
from deploy.progress import format_size

RELEASES = "releases.png"
STAGES = "stages.png"
MEMORY = "memory.png"
SERVING = "serving.png"
LOAD = "load.png"


def markdown(report: Report) -> str:
    """Return the whole report."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    measured = report.measured
    yield from ("# Figures", "", _taken(measured))
    yield from ("[How to run and read this](../08-benchmark.md).", "", *_machine(measured.machine))
    yield from (
        "",
        "Figures are medians, with minimum and maximum in brackets. The two ways took turns.",
    )
    yield from _later(measured)
    yield ""
    yield from (
        "## Aims",
        "",
        *_table(
            ("promise", "found", "met"),
            ((aim.promise, aim.found, "yes" if aim.met else "**no**") for aim in report.aims),
        ),
    )
    if measured.cases:
        yield from _releases(measured.cases)
    yield from _others(measured)
    if measured.served:
        yield from _serving(measured.served)
    if measured.loads:
        yield from _rolled(measured.loads)
    if measured.cluster:
        yield from _arrivals(measured.cluster.arrivals)
    if measured.azure:
        yield from _azure(measured.azure)


def _taken(taken: Taken) -> str:
    minutes = f"{taken.took / 60:.0f} minutes"
    return f"Taken {taken.at} at commit {taken.commit} by `{taken.command}`, in {minutes}."


def _later(measured: Measured) -> Iterator[str]:
    """Yield a paragraph for each other run in which parts were measured."""
    runs = list(dict.fromkeys(measured.later[part] for part in FIELDS if part in measured.later))
    for taken in runs:
        parts = ", ".join(part for part in FIELDS if measured.later.get(part) == taken)
        machine = taken.machine
        differs = machine != measured.machine
        hardware = f"{machine.cores} cores, {machine.processor}; {machine.system}"
        other = f" On another machine: {hardware}." if differs else ""
        yield from ("", f"Measured later: {parts}. {_taken(taken)}{other}")


def _machine(machine: Machine) -> Iterator[str]:
    yield from _table(
        ("", ""),
        (
            ("system", machine.system),
            ("processor", f"{machine.cores} cores, {machine.processor}"),
            ("memory", format_size(machine.memory)),
            ("Python", machine.python),
            ("container engine", machine.engine),
            ("docker command line", machine.docker),
        ),
    )


def _releases(cases: Iterable[Case]) -> Iterator[str]:
    cases = tuple(cases)
    yield from ("", "## Releases", "", f"![seconds]({RELEASES})", "")
    yield (
        "*Pushed* is the time until the registry has the image; a *whole release* also has the "
        "smoke test, the rollout and the golden cases."
    )
    yield ""
    header = (
        "case",
        "pushed",
        "whole release",
        "docker build + push",
        "sent by the suite",
        "sent by docker push",
    )
    yield from _table(header, (_times(case) for case in cases))
    yield from ("", f"![memory]({MEMORY})", "")
    costs = (
        "case",
        "suite: memory",
        "suite: processor",
        "engine meanwhile",
        "docker's memory",
        "docker's processor",
        "engine meanwhile",
    )
    yield from _table(costs, (_costs(case) for case in cases))
    yield from ("", "## Where the time goes", "", f"![stages]({STAGES})", "")
    for case in cases:
        yield f"- {case.title}: {_stage_times(case.suite)}."
        yield f"  By docker: {_stage_times(case.docker)}."


def _stage_times(runs: tuple[Run, ...]) -> str:
    return "; ".join(f"{stage} {seconds:.2f} s" for stage, seconds in stage_medians(runs).items())


def _times(case: Case) -> tuple[str, ...]:
    return (
        case.title,
        _seconds(run.pushed for run in case.suite),
        _seconds(run.seconds for run in case.suite),
        _seconds(run.seconds for run in case.docker),
        format_size(median(run.received for run in case.suite)),
        format_size(median(run.received for run in case.docker)),
    )


def _costs(case: Case) -> tuple[str, ...]:
    return (case.title, *_cost(case.suite), *_cost(case.docker))


def _cost(runs: tuple[Run, ...]) -> tuple[str, ...]:
    times = [run.engine_cpu for run in runs if run.engine_cpu is not None]
    peaks = [run.engine_peak for run in runs if run.engine_peak is not None]
    engine = f"{median(times):.1f} s, {format_size(max(peaks))}" if times and peaks else "not seen"
    return (
        format_size(max(run.peak for run in runs)),
        f"{median(run.cpu for run in runs):.1f} s",
        engine,
    )


def _others(measured: Measured) -> Iterator[str]:
    transfer = measured.transfer
    if transfer:
        yield from ("", "## A layer to the registry", "")
        ways = {"the suite": transfer.suite, "one plain PUT": transfer.put}
        yield from _transfers(transfer.size, ways)
    if measured.listing:
        yield from ("", "## `invoke --list`", "", _seconds(measured.listing))


def _transfers(size: int, ways: Mapping[str, tuple[float, ...]]) -> Iterator[str]:
    """Yield a table of the times and rates at which some ways move the same bytes."""
    yield from _table(
        (format_size(size), "seconds", "MB a second"),
        (
            (way, _seconds(times), f"{size / median(times) / 1e6:.0f}")
            for way, times in ways.items()
        ),
    )


def _azure(azure: OnAzure) -> Iterator[str]:
    yield from ("", "## On Azure", "")
    tokens = azure.tokens
    yield from _table(
        ("until the first token", "imports in that", "another identity", "requests"),
        [
            (
                _seconds(token.first for token in tokens),
                _seconds(token.imports for token in tokens),
                f"{median(token.warm for token in tokens) * 1000:.0f} ms",
                str(max(token.requests for token in tokens)),
            )
        ],
    )
    download = azure.download
    if download:
        yield ""
        ways = {"the suite": download.suite, "azure-storage-blob": download.library}
        yield from _transfers(download.size, ways)


def _serving(served: tuple[Served, ...]) -> Iterator[str]:
    yield from ("", "## Serving", "", f"![serving]({SERVING})", "")
    header = ("picture", "clients", "server", "requests a second", "p50 ms", "p99 ms", "failed")
    yield from _table(header, (_serving_row(item) for item in served))


def _serving_row(item: Served) -> tuple[str, ...]:
    bursts = item.bursts
    rates = Spread.of(burst.rate for burst in bursts)
    return (
        item.picture,
        str(item.clients),
        item.server,
        f"{rates.median:.1f} ({rates.least:.1f} to {rates.most:.1f})",
        f"{median(burst.p50 for burst in bursts):.0f}",
        f"{median(burst.p99 for burst in bursts):.0f}",
        str(sum(burst.failures for burst in bursts)),
    )


def _rolled(rolled: tuple[Rolled, ...]) -> Iterator[str]:
    yield from ("", "## Rollouts under load", "", f"![load]({LOAD})", "")
    yield "Clients send requests continuously, before rollouts and during many in a row."
    yield (
        "A response is mixed up if its model may not serve at that time, "
        "or if it has the result of another model."
    )
    yield ""
    header = (
        "target",
        "load",
        "clients",
        "requests",
        "a second",
        "failed",
        "mixed up",
        "p50, p99 at rest, ms",
        "p50, p99 in rollouts, ms",
    )
    yield from _table(header, (_load_row(item) for item in rolled))
    yield ""
    names = list(dict.fromkeys(rollout.name for item in rolled for rollout in item.rollouts))
    columns = ("rollout, seconds", *(f"{item.target}, {item.load}" for item in rolled))
    yield from _table(
        columns, ((name, *(_durations(item, name) for item in rolled)) for name in names)
    )


def _arrivals(arrivals: tuple[Arrival, ...]) -> Iterator[str]:
    yield from ("", "### New replicas on the cluster", "")
    yield (
        f"From the apply until a replica answers, of {len(arrivals)} replicas "
        "whose node had an older image of the application."
    )
    yield ""
    header = ("seconds", "node found, image pulled", "model loaded", "ready for requests", "in all")
    columns = (
        [item.started for item in arrivals],
        [item.loaded for item in arrivals],
        [item.ready for item in arrivals],
    )
    spreads = (
        [Spread.of(column) for column in (*columns, [item.total for item in arrivals])]
        if arrivals
        else []
    )
    row = (f"{item.median:.1f} ({item.least:.1f} to {item.most:.1f})" for item in spreads)
    yield from _table(header, [("a replica", *row)] if arrivals else [])


def _load_row(item: Rolled) -> tuple[str, ...]:
    counts = (f"{item.sent:,}", f"{item.rolling.rate:.0f}", str(item.failed), str(item.mixed))
    return (
        item.target,
        item.load,
        str(item.clients),
        *counts,
        _latencies(item.rest),
        _latencies(item.rolling),
    )


def _latencies(burst: Burst) -> str:
    return f"{burst.p50:.0f}, {burst.p99:.0f}"


def _durations(item: Rolled, name: str) -> str:
    return ", ".join(
        f"{rollout.end - rollout.begin:.1f}" for rollout in item.rollouts if rollout.name == name
    )


def stage_medians(runs: tuple[Run, ...]) -> dict[str, float]:
    """Return the median of each stage that any of the runs has, in order."""
    names = dict.fromkeys(name for run in runs for name in run.stages)
    return {name: median(run.stages.get(name, 0.0) for run in runs) for name in names}


def _seconds(values: Iterable[float]) -> str:
    spread = Spread.of(values)
    return f"{spread.median:.2f} s ({spread.least:.2f} to {spread.most:.2f})"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
