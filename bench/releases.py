"""Releases by the suite beside `docker build` and `docker push`, in turns: one goes first in one repetition, the other in the next."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import meters
from bench.baseline import Baseline
from bench.figures import Case, Run
from bench.ground import Ground
from deploy.model import manifest
from deploy.progress import format_seconds
from sample import standin

log = logging.getLogger(__name__)

# The suite says a line at the end of each stage, and the line's first word tells which.
_ENDS = {
    "model": "start and fetch",
    "code": "build",
    "image": "join",
    "smoke": "load and smoke test",
    "push": "push",
    "serves": "roll out",
}
_REST = "verify and end"
_TOUCHED = "app/routes.py"


@dataclass(frozen=True)
class Rivals:
    """The two ways, on one ground."""

    ground: Ground
    baseline: Baseline

    @classmethod
    def on(cls, ground: Ground, folder: Path) -> Rivals:
        """The ground and a build context in a folder."""
        return cls(ground, Baseline.made(ground, folder))


def first(rivals: Rivals, turn: int) -> tuple[Run, Run]:
    """Both ways from nothing: empty caches of the suite's, an empty registry, no containers."""
    rivals.baseline.warm()
    rivals.baseline.lay_model(rivals.ground.published())
    return _pair(turn, lambda: suite(rivals.ground), lambda: rivals.baseline.release("first"))


def unchanged(rivals: Rivals, turns: int) -> Case:
    """Both ways again, with nothing new."""
    found = rivals.ground.published()
    pairs = [
        _pair(turn, lambda: suite(rivals.ground), lambda: rivals.baseline.release("again"))
        for turn in range(turns)
    ]
    return _case("unchanged", "nothing changed", weight(found), pairs)


def code(rivals: Rivals, turns: int) -> Case:
    """A line of the application changes; the model stays, and whether the suite reads it is watched."""
    found = rivals.ground.published()
    watched = (
        rivals.ground.layer(found),
        rivals.ground.file(max(found.files, key=lambda entry: entry.size)),
    )
    read: list[int] = []

    def released() -> Run:
        for path in watched:
            meters.evict(path)
        # Where files live in memory nothing is forgotten, and nothing can be told.
        told = not sum(map(meters.resident, watched))
        run = suite(rivals.ground)
        if told:
            read.append(sum(map(meters.resident, watched)))
        return run

    pairs = []
    for turn in range(turns):
        _touch(rivals.ground, turn)
        rivals.baseline.lay_code()
        pairs.append(_pair(turn, released, partial(rivals.baseline.release, f"code-{turn}")))
    return _case("code", "code changed", weight(found), pairs, tuple(read))


def model(rivals: Rivals, size: int, turns: int, base: Path, folder: Path) -> Case:
    """A new model of some size comes, which answers as the one before."""
    pairs = []
    for turn in range(turns):
        new = folder / f"standin-{size}-{turn}"
        standin.write(new, size=size, seed=turn, base=base)
        rivals.ground.invoke("model.publish", "--directory", str(new))
        shutil.rmtree(new)
        rivals.baseline.lay_model(rivals.ground.published())
        pairs.append(
            _pair(
                turn,
                lambda: suite(rivals.ground),
                partial(rivals.baseline.release, f"model-{size}-{turn}"),
            )
        )
    found = weight(rivals.ground.published())
    return _case(f"model-{size}", f"model changed, {size / 1e6:.0f} MB", found, pairs)


def suite(ground: Ground) -> Run:
    """Runs `invoke release` as a person would."""
    before = ground.tally()
    ended = ground.invoke("release")
    moved = ground.tally() - before
    return Run(
        **dict(ended.cost),
        stored=moved.stored,
        received=moved.received,
        sent=moved.sent,
        stages=dict(stages(ended.lines, ended.cost.seconds)),
    )


def stages(lines: Sequence[tuple[float, str]], end: float) -> Iterator[tuple[str, float]]:
    """How long each stage of a release took, by the times of the lines it said."""
    ends: dict[str, float] = {}
    for at, line in lines:
        words = line.split()
        if len(words) > 1 and words[1] in _ENDS and words[0] == "·":
            ends[words[1]] = at
    last = 0.0
    for word, stage in _ENDS.items():
        if word in ends:
            yield stage, ends[word] - last
            last = ends[word]
    yield _REST, end - last


def _pair(turn: int, mine: Callable[[], Run], other: Callable[[], Run]) -> tuple[Run, Run]:
    if turn % 2:
        theirs = other()
        ours = mine()
    else:
        ours = mine()
        theirs = other()
    log.info(
        "    suite %s, docker build and push %s",
        format_seconds(ours.seconds),
        format_seconds(theirs.seconds),
    )
    return ours, theirs


def _case(
    name: str, title: str, size: int, pairs: Sequence[tuple[Run, Run]], read: tuple[int, ...] = ()
) -> Case:
    mine, other = zip(*pairs, strict=True)
    return Case(name=name, title=title, model=size, suite=mine, docker=other, weights_read=read)


def firsts(pairs: Sequence[tuple[Run, Run]], size: int) -> Case:
    """The case of the first releases, each of which had a ground of its own."""
    return _case("first", "first release", size, pairs)


def weight(found: manifest.ModelManifest) -> int:
    """The bytes of a model's files."""
    return sum(entry.size for entry in found.files)


def _touch(ground: Ground, turn: int) -> None:
    path = ground.application.folder / _TOUCHED
    path.write_text(f"{path.read_text(encoding='utf-8')}\n# {turn}\n", encoding="utf-8")
    ground.application.commit(f"code {turn}")
