"""The charts of the report; the only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import report
from bench.aims import SUITE_MEMORY
from bench.figures import Case, Measured, Rolled, Served, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUITE = "#1b6ca8"
_PUSHED = "#7fb2d9"
_DOCKER = "#c9843a"
_COLOURS = ("#1b6ca8", "#7fb2d9", "#5a9e6f", "#c9843a", "#8c8c8c")
_STAGES = {
    "docker build": "#c9843a",
    "docker push": "#e6c79c",
    "start and fetch": "#1b6ca8",
    "build": "#7fb2d9",
    "join": "#333333",
    "load and smoke test": "#5a9e6f",
    "push": "#0b3c5d",
    "roll out": "#a8cfb4",
    "verify and end": "#b8b8b8",
}


def draw(measured: Measured, folder: Path) -> None:
    """Write the charts of the parts that were measured."""
    if measured.cases:
        _releases(measured.cases, folder / report.RELEASES)
        _stages(measured.cases, folder / report.STAGES)
        _memory(measured.cases, folder / report.MEMORY)
    if measured.served:
        _serving(measured.served, folder / report.SERVING)
    if measured.loads:
        _rolled(measured.loads, folder / report.LOAD)


def _releases(cases: Sequence[Case], target: Path) -> None:
    figure, axes = _figure(9, 1.1 + 0.9 * len(cases))
    series = (
        (
            "docker build + docker push",
            _DOCKER,
            [[run.seconds for run in case.docker] for case in cases],
        ),
        ("whole release", _SUITE, [[run.seconds for run in case.suite] for case in cases]),
        (
            "the suite, until pushed",
            _PUSHED,
            [[run.pushed for run in case.suite] for case in cases],
        ),
    )
    for row, (label, colour, values) in enumerate(series):
        _bars(axes, row, len(series), values, label, colour)
    _label(axes, [case.title for case in cases], "seconds; the line spans all repetitions")
    _save(figure, target)


def _memory(cases: Sequence[Case], target: Path) -> None:
    figure, axes = _figure(9, 1.1 + 0.8 * len(cases))
    series = (
        (
            "the engine during docker build + push",
            _DOCKER,
            [[(run.engine_peak or 0) / 1e6 for run in case.docker] for case in cases],
        ),
        ("the suite", _SUITE, [[run.peak / 1e6 for run in case.suite] for case in cases]),
    )
    for row, (label, colour, values) in enumerate(series):
        _bars(axes, row, len(series), values, label, colour)
    axes.axvline(SUITE_MEMORY / 1e6, color="#8c8c8c", linestyle=":", label="aim")
    _label(axes, [case.title for case in cases], "maximum memory, MB")
    _save(figure, target)


def _bars(
    axes: Axes, row: int, rows: int, values: Sequence[Sequence[float]], label: str, colour: str
) -> None:
    spreads = [Spread.of(repetitions) for repetitions in values]
    height = 0.8 / rows
    places = [index + (row - (rows - 1) / 2) * height for index in range(len(values))]
    medians = [spread.median for spread in spreads]
    ends = [
        [spread.median - spread.least for spread in spreads],
        [spread.most - spread.median for spread in spreads],
    ]
    bars = axes.barh(
        places,
        medians,
        height,
        label=label,
        color=colour,
        xerr=ends,
        error_kw={"elinewidth": 1, "ecolor": "#333333"},
    )
    axes.bar_label(
        bars, [f" {median_value:.1f}" for median_value in medians], fontsize=8, padding=4
    )


def _stages(cases: Sequence[Case], target: Path) -> None:
    figure, axes = _figure(9, 1.5 + 0.75 * len(cases))
    rows = [
        (f"{case.title}\n{who}", report.stage_medians(runs))
        for case in cases
        for who, runs in (("docker", case.docker), ("suite", case.suite))
    ]
    left = [0.0] * len(rows)
    for name, colour in _STAGES.items():
        widths = [stages.get(name, 0.0) for _, stages in rows]
        axes.barh(range(len(rows)), widths, 0.7, left=left, label=name, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    _label(axes, [title for title, _ in rows], "seconds, medians of each stage")
    _save(figure, target)


def _serving(served: Sequence[Served], target: Path) -> None:
    pictures = list(dict.fromkeys(item.picture for item in served))
    servers = list(dict.fromkeys(item.server for item in served))
    figure, grid = _grid(2, len(pictures))
    for column, picture in enumerate(pictures):
        of_picture = [item for item in served if item.picture == picture]
        grid[0][column].set_title(picture)
        for server, colour in zip(servers, _COLOURS, strict=False):
            of_server = [item for item in of_picture if item.server == server]
            at = range(len(of_server))
            grid[0][column].plot(
                at,
                [median(burst.rate for burst in item.bursts) for item in of_server],
                "o-",
                label=server,
                color=colour,
            )
            grid[1][column].plot(
                at,
                [median(burst.p50 for burst in item.bursts) for item in of_server],
                "o-",
                color=colour,
            )
            grid[1][column].plot(
                at,
                [median(burst.p99 for burst in item.bursts) for item in of_server],
                "^:",
                color=colour,
            )
        clients = list(dict.fromkeys(item.clients for item in of_picture))
        _axes_of_load(grid[0][column], "requests a second", clients)
        _axes_of_load(grid[1][column], "milliseconds: p50 (line), p99 (dotted)", clients)
    grid[0][0].legend(fontsize=7)
    _save(figure, target)


def _rolled(rolled: Sequence[Rolled], target: Path) -> None:
    figure, grid = _grid(len(rolled), 1, width=11)
    for item, (axes,) in zip(rolled, grid, strict=True):
        for number, rollout in enumerate(item.rollouts):
            axes.axvspan(
                rollout.begin,
                rollout.end,
                color=_PUSHED,
                alpha=0.35 if number % 2 else 0.2,
                linewidth=0,
            )
            axes.text(
                rollout.begin,
                0.98,
                f" {rollout.name}",
                transform=axes.get_xaxis_transform(),
                rotation=90,
                fontsize=6,
                va="top",
            )
        at = [second.at for second in item.seconds]
        axes.plot(
            at,
            [second.p99 for second in item.seconds],
            "-",
            color=_DOCKER,
            linewidth=1,
            label="p99 of each second",
        )
        axes.plot(
            at, [second.p50 for second in item.seconds], "-", color=_SUITE, linewidth=1, label="p50"
        )
        rate = f"{item.rolling.rate:.0f} requests a second, {item.failed} failed"
        axes.set_title(f"{item.target}, {item.load}: {rate}; rollouts are shaded", fontsize=9)
        axes.set_ylabel("milliseconds")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
    grid[-1][0].set_xlabel("seconds")
    figure.legend(
        *grid[0][0].get_legend_handles_labels(), fontsize=8, loc="outside lower right", ncols=2
    )
    _save(figure, target)


def _axes_of_load(axes: Axes, label: str, clients: Sequence[int]) -> None:
    axes.set_xticks(range(len(clients)), [str(count) for count in clients])
    axes.set_xlabel("clients at once")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)


def _label(axes: Axes, titles: Iterable[str], what: str) -> None:
    labels = list(titles)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(what)
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _grid(rows: int, columns: int, width: float = 5) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, 3.6 * rows), layout="constrained")
    return figure, [
        [figure.add_subplot(rows, columns, 1 + row * columns + column) for column in range(columns)]
        for row in range(rows)
    ]


def _save(figure: Figure, target: Path) -> None:
    # Without the name of the program that drew it, the same figures give the same file.
    figure.savefig(target, dpi=110, metadata={"Software": None})
