"""What the suite promises of its speed and thrift, held against the figures of a run."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from bench.figures import Aim, Case, Measured, Rolled, Spread
from deploy.progress import format_size

_JUDGED_MODEL = "model-250000000"
UNCHANGED_SECONDS = 2.0
TIMES_FASTER = 5.0
TIMES_A_PUT = 1.3
SUITE_MEMORY = 150_000_000
LISTING_SECONDS = 0.5
STEADY_RATE = 20.0
# The head of a model's layer holds its golden cases; the system reads a little ahead of what is asked for.
HEAD = 2_000_000
# The heads of the requests by which a registry is asked what it holds.
QUESTIONS = 10_000


def judged(measured: Measured) -> tuple[Aim, ...]:
    """The promises that this run's figures can speak to."""
    return tuple(_judged(measured))


def _judged(measured: Measured) -> Iterator[Aim]:
    for case in measured.cases:
        if case.name == "unchanged":
            yield from _unchanged(case)
        elif case.name == "code":
            yield from _code(case)
        elif case.name == _JUDGED_MODEL:
            yield _model(case)
    if measured.transfer:
        ratio = median(measured.transfer.ratios)
        promise = f"pushing {format_size(measured.transfer.size)} takes at most {TIMES_A_PUT} times one plain streamed PUT"
        yield Aim(promise=promise, found=f"{ratio:.2f} times", met=ratio <= TIMES_A_PUT)
    if measured.cases:
        yield _memory(measured.cases)
    for rolled in measured.loads:
        yield from _rolled(rolled)
    if measured.listing:
        middle = median(measured.listing)
        yield Aim(
            promise=f"`invoke --list` takes less than {LISTING_SECONDS} s",
            found=f"{middle:.2f} s",
            met=middle < LISTING_SECONDS,
        )


def _unchanged(case: Case) -> Iterator[Aim]:
    middle = Spread.of(run.seconds for run in case.suite).median
    yield Aim(
        promise=f"nothing changed: less than {UNCHANGED_SECONDS:.0f} s",
        found=f"{middle:.2f} s",
        met=middle < UNCHANGED_SECONDS,
    )
    stored = max(run.stored for run in case.suite)
    received = max(run.received for run in case.suite)
    found = f"{format_size(stored)}, and {format_size(received)} of questions"
    yield Aim(
        promise="nothing changed: 0 bytes uploaded",
        found=found,
        met=stored == 0 and received <= QUESTIONS,
    )


def _code(case: Case) -> Iterator[Aim]:
    read = max(case.weights_read, default=None)
    found = (
        f"{format_size(read)} of {format_size(case.model)}"
        if read is not None
        else "not seen: `TMPDIR` is in memory"
    )
    yield Aim(
        promise="code changed: no byte of the model is read",
        found=found,
        met=read is not None and read <= HEAD,
    )
    # What the registry has stored would not show bytes that it has been sent and had before.
    received = max(run.received for run in case.suite)
    yield Aim(
        promise="code changed: no byte of the model is sent",
        found=f"{format_size(received)} in all",
        met=received < case.model / 10,
    )


def _model(case: Case) -> Aim:
    times = median(
        other.seconds / mine.pushed for mine, other in zip(case.suite, case.docker, strict=True)
    )
    promise = f"{case.title}: pushed {TIMES_FASTER:.0f} times faster than by docker build and push"
    return Aim(promise=promise, found=f"{times:.1f} times", met=times >= TIMES_FASTER)


def _memory(cases: tuple[Case, ...]) -> Aim:
    largest = max(cases, key=lambda case: case.model).model
    peak = max(run.peak for case in cases for run in case.suite)
    promise = f"memory of the suite stays below {format_size(SUITE_MEMORY)}, with models of up to {format_size(largest)}"
    return Aim(promise=promise, found=format_size(peak), met=peak < SUITE_MEMORY)


def _rolled(rolled: Rolled) -> Iterator[Aim]:
    under = f"{len(rolled.rollouts)} rollouts in a row on {rolled.target}, {rolled.load}"
    rate = rolled.rolling.rate
    yield Aim(
        promise=f"{under}: at {STEADY_RATE:.0f} requests a second or more, none fails",
        found=f"{rolled.failed} of {rolled.sent:,} at {rate:.0f} a second",
        met=rolled.failed == 0 and rate >= STEADY_RATE,
    )
    yield Aim(
        promise=f"{under}: no answer is mixed up", found=str(rolled.mixed), met=rolled.mixed == 0
    )
