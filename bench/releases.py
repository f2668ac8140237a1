"""Releases by the suite next to `docker build` and `docker push`, in turns.

The one that goes first changes with each repetition.
"""

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
from bench.sandbox import Sandbox
from deploy.model import manifest
from deploy.progress import format_seconds
from sample import standin

log = logging.getLogger(__name__)

# The suite logs a line at the end of each stage; its first word names the stage.
_ENDS = {
    "model": "start and fetch",
    "code": "build",
    "image": "join",
    "smoke": "load and smoke test",
    "push": "push",
    "serves": "roll out",
}
_REST = "verify and end"
_CHANGED_FILE = "app/routes.py"


@dataclass(frozen=True)
class Contenders:
    """The two ways, on one sandbox."""

    sandbox: Sandbox
    baseline: Baseline

    @classmethod
    def create(cls, sandbox: Sandbox, folder: Path) -> Contenders:
        """Return the two ways on a sandbox, with a build context in a folder."""
        return cls(sandbox, Baseline.create(sandbox, folder))


def measure_first(contenders: Contenders, turn: int) -> tuple[Run, Run]:
    """Measure both ways from the start: empty caches, an empty registry, no containers."""
    contenders.baseline.build_cached_stages()
    contenders.baseline.link_model(contenders.sandbox.model_manifest())
    return _pair(
        turn,
        lambda: release_by_suite(contenders.sandbox),
        lambda: contenders.baseline.release("first"),
    )


def measure_unchanged(contenders: Contenders, turns: int) -> Case:
    """Measure both ways again, without a change."""
    model = contenders.sandbox.model_manifest()
    pairs = [
        _pair(
            turn,
            lambda: release_by_suite(contenders.sandbox),
            lambda: contenders.baseline.release("again"),
        )
        for turn in range(turns)
    ]
    return _case("unchanged", "nothing changed", model_size(model), pairs)


def measure_code(contenders: Contenders, turns: int) -> Case:
    """Measure both ways after a change of the code, and whether the suite reads the model."""
    model = contenders.sandbox.model_manifest()
    watched = (
        contenders.sandbox.cached_layer(model),
        contenders.sandbox.stored_file(max(model.files, key=lambda entry: entry.size)),
    )
    read: list[int] = []

    def release() -> Run:
        for path in watched:
            meters.evict(path)
        # On a file system in memory, evicting has no effect, and reads cannot be observed.
        observable = not sum(map(meters.resident, watched))
        run = release_by_suite(contenders.sandbox)
        if observable:
            read.append(sum(map(meters.resident, watched)))
        return run

    pairs = []
    for turn in range(turns):
        _change_code(contenders.sandbox, turn)
        contenders.baseline.copy_code()
        pairs.append(_pair(turn, release, partial(contenders.baseline.release, f"code-{turn}")))
    return _case("code", "code changed", model_size(model), pairs, tuple(read))


def measure_model(contenders: Contenders, size: int, turns: int, base: Path, folder: Path) -> Case:
    """Measure both ways with a new model of some size, which answers as the one before."""
    pairs = []
    for turn in range(turns):
        new = folder / f"standin-{size}-{turn}"
        standin.write(new, size=size, seed=turn, base=base)
        contenders.sandbox.invoke("model.publish", "--directory", str(new))
        shutil.rmtree(new)
        contenders.baseline.link_model(contenders.sandbox.model_manifest())
        pairs.append(
            _pair(
                turn,
                lambda: release_by_suite(contenders.sandbox),
                partial(contenders.baseline.release, f"model-{size}-{turn}"),
            )
        )
    model = model_size(contenders.sandbox.model_manifest())
    return _case(f"model-{size}", f"model changed, {size / 1e6:.0f} MB", model, pairs)


def release_by_suite(sandbox: Sandbox) -> Run:
    """Run `invoke release` as a person would."""
    before = sandbox.read_counters()
    result = sandbox.invoke("release")
    traffic = sandbox.read_counters() - before
    return Run(
        **dict(result.cost),
        stored=traffic.stored,
        received=traffic.received,
        sent=traffic.sent,
        stages=dict(stages(result.lines, result.cost.seconds)),
    )


def stages(lines: Sequence[tuple[float, str]], end: float) -> Iterator[tuple[str, float]]:
    """Yield the seconds of each stage of a release, from the times of its log lines."""
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


def _pair(turn: int, suite: Callable[[], Run], docker: Callable[[], Run]) -> tuple[Run, Run]:
    if turn % 2:
        docker_run = docker()
        suite_run = suite()
    else:
        suite_run = suite()
        docker_run = docker()
    log.info(
        "    suite %s, docker build and push %s",
        format_seconds(suite_run.seconds),
        format_seconds(docker_run.seconds),
    )
    return suite_run, docker_run


def _case(
    name: str, title: str, size: int, pairs: Sequence[tuple[Run, Run]], read: tuple[int, ...] = ()
) -> Case:
    suite, docker = zip(*pairs, strict=True)
    return Case(name=name, title=title, model=size, suite=suite, docker=docker, weights_read=read)


def first_case(pairs: Sequence[tuple[Run, Run]], size: int) -> Case:
    """Return the case of the first releases, each of which had a sandbox of its own."""
    return _case("first", "first release", size, pairs)


def model_size(model: manifest.ModelManifest) -> int:
    """Return the bytes of a model's files."""
    return sum(entry.size for entry in model.files)


def _change_code(sandbox: Sandbox, turn: int) -> None:
    path = sandbox.application.folder / _CHANGED_FILE
    path.write_text(f"{path.read_text(encoding='utf-8')}\n# {turn}\n", encoding="utf-8")
    sandbox.application.commit(f"code {turn}")
