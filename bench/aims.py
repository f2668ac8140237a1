"""The aims for the suite's speed and use of resources, compared with the figures of a run."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from bench.figures import Aim, Case, Download, Measured, Rolled, Spread
from deploy.progress import format_size

_JUDGED_MODEL = "model-250000000"
_JUDGED_DOWNLOAD = 230_000_000
UNCHANGED_SECONDS = 2.0
TIMES_FASTER = 5.0
TIMES_A_PUT = 1.3
TIMES_THE_LIBRARY = 2.0
SUITE_MEMORY = 150_000_000
LISTING_SECONDS = 0.5
STEADY_RATE = 20.0
# The head of a model's layer has its golden cases; the system reads a little ahead.
HEAD = 2_000_000
# The headers of the requests that ask a registry which blobs it has.
REQUESTS = 10_000


def judge(measured: Measured) -> tuple[Aim, ...]:
    """Return the aims that this run's figures cover."""
    return tuple(_aims(measured))


def _aims(measured: Measured) -> Iterator[Aim]:
    for case in measured.cases:
        if case.name == "unchanged":
            yield from _unchanged(case)
        elif case.name == "code":
            yield from _code(case)
        elif case.name == _JUDGED_MODEL:
            yield _model(case)
    if measured.transfer:
        ratio = median(measured.transfer.ratios)
        promise = (
            f"pushing {format_size(measured.transfer.size)} takes at most {TIMES_A_PUT} times "
            "one plain streamed PUT"
        )
        yield Aim(promise=promise, found=f"{ratio:.2f} times", met=ratio <= TIMES_A_PUT)
    if measured.cases:
        yield _memory(measured.cases)
    for rolled in measured.loads:
        yield from _rolled(rolled)
    download = measured.azure.download if measured.azure else None
    if download and download.size == _JUDGED_DOWNLOAD:
        yield _download(download)
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
    result = f"{format_size(stored)}, and {format_size(received)} of requests"
    yield Aim(
        promise="nothing changed: 0 bytes uploaded",
        found=result,
        met=stored == 0 and received <= REQUESTS,
    )


def _code(case: Case) -> Iterator[Aim]:
    read = max(case.weights_read, default=None)
    result = (
        f"{format_size(read)} of {format_size(case.model)}"
        if read is not None
        else "not seen: `TMPDIR` is in memory"
    )
    yield Aim(
        promise="code changed: no byte of the model is read",
        found=result,
        met=read is not None and read <= HEAD,
    )
    # The registry's storage would not show bytes that it received and already had.
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


def _download(download: Download) -> Aim:
    times = median(download.ratios)
    promise = (
        f"downloading {format_size(download.size)} from Azurite is {TIMES_THE_LIBRARY:.0f} times "
        "as fast as by azure-storage-blob"
    )
    return Aim(promise=promise, found=f"{times:.1f} times", met=times >= TIMES_THE_LIBRARY)


def _memory(cases: tuple[Case, ...]) -> Aim:
    largest = max(cases, key=lambda case: case.model).model
    peak = max(run.peak for case in cases for run in case.suite)
    promise = (
        f"memory of the suite stays below {format_size(SUITE_MEMORY)}, "
        f"with models of up to {format_size(largest)}"
    )
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
