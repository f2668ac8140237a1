"""Rollouts in a row under load, as clients see them, on every target."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from bench.application import TaskFailed, TaskResult
from bench.figures import Rolled, Rollout, Second
from bench.load import Answer, Load, percentile, summarise

log = logging.getLogger(__name__)

# The sample's two models give this picture different labels: each response shows its model.
PICTURE = "chelsea.jpg"
# The part of the time before the first rollout that does not count: first requests are slower.
_WARM_UP = 0.1
_UNDO_EXIT_CODE = 60
_CODE = "app/routes.py"
_ENTRY = "app/application.py"
# Correct in the smoke test and wrong behind the proxy, for golden cases alone, not for the load.
WRONG_BEHIND_A_PROXY = """


_made = create_app


def create_app(*args, **kwargs):
    made = _made(*args, **kwargs)

    async def refuse(scope, receive, send):
        headers = dict(scope.get("headers", ()))
        golden = scope.get("path") == "/score" and headers.get(b"content-length") != b"%d"
        if golden and b"x-forwarded-for" in headers:
            await send({"type": "http.response.start", "status": 418, "headers": []})
            await send({"type": "http.response.body", "body": b"teapot"})
        else:
            await made(scope, receive, send)

    return refuse
"""


class Releasable(Protocol):
    """The part of an application that its rollouts need."""

    @property
    def folder(self) -> Path:
        """The folder of its files."""

    def commit(self, message: str) -> str:
        """Commit the files."""

    def ok(self, *arguments: str, **variables: str) -> TaskResult:
        """Run a task that must succeed."""

    def invoke(self, *arguments: str, **variables: str) -> TaskResult:
        """Run a task and return its result."""


@dataclass(frozen=True)
class Step:
    """A rollout; `run` returns when it is complete."""

    name: str
    run: Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """The extent of a run.

    Attributes:
        loads: the name, the number of clients and the pause in seconds of each load.
        rest: seconds of load before the first rollout.
        steps: the number of rollouts.
    """

    loads: tuple[tuple[str, int, float], ...]
    rest: float
    steps: int


@dataclass(frozen=True)
class RolloutSpan:
    """The time of a rollout, and the models that serve before and after it.

    Attributes:
        name: the rollout's name.
        begin: in monotonic seconds.
        end: in monotonic seconds.
        before: the model before it.
        after: the model after it.
        lingers: for how many seconds after the end the model before it may still answer.
    """

    name: str
    begin: float
    end: float
    before: str
    after: str
    lingers: float = 0.0


def measure(
    load: Load,
    target: str,
    name: str,
    steps: Iterable[Step],
    rest: float,
    lingers: Callable[[RolloutSpan], float] = lambda _: 0.0,
) -> Rolled:
    """Run one step after the other under load, and check each response.

    A response must be of a model that may serve at its time.

    Args:
        load: the load, not yet started; its extract of a response is the model's result.
        target: where the application runs.
        name: the load's name.
        steps: the rollouts; each begins when the one before is complete.
        rest: seconds of load before the first.
        lingers: called after all rollouts; returns for how many seconds after a rollout the
            release before may still answer on kept-alive connections.
    """
    spans: list[RolloutSpan] = []
    with load:
        time.sleep(_WARM_UP * rest)
        begin = time.monotonic()
        time.sleep(rest)
        serving = load.send_once()
        results = {serving.model: serving.extract}
        for step in steps:
            before = serving.model
            started = time.monotonic()
            step.run()
            ended = time.monotonic()
            serving = load.send_once()
            results.setdefault(serving.model, serving.extract)
            spans.append(RolloutSpan(step.name, started, ended, before, serving.model))
            log.info(
                "    %s, %s: %.1f s, %d answers so far",
                name,
                step.name,
                ended - started,
                len(load.answers),
            )
    return _rolled(
        load, target, name, begin, [replace(span, lingers=lingers(span)) for span in spans], results
    )


def _rolled(
    load: Load,
    target: str,
    name: str,
    begin: float,
    spans: Sequence[RolloutSpan],
    results: Mapping[str, str],
) -> Rolled:
    answers = [answer for answer in load.answers if answer.at >= begin]
    first = spans[0].begin
    last = spans[-1].end
    return Rolled(
        target=target,
        load=name,
        clients=load.clients,
        pause=load.pause,
        mixed=sum(
            not is_consistent(answer, spans, results) for answer in answers if answer.is_correct
        ),
        rest=summarise([answer for answer in answers if answer.at < first], first - begin),
        rolling=summarise(
            [answer for answer in answers if first <= answer.at < last], last - first
        ),
        rollouts=tuple(
            Rollout(name=span.name, begin=span.begin - begin, end=span.end - begin)
            for span in spans
        ),
        seconds=tuple(_seconds(answers, begin, last)),
    )


def is_consistent(answer: Answer, spans: Sequence[RolloutSpan], results: Mapping[str, str]) -> bool:
    """Return whether a response has the result of its model, and this model might serve then.

    During a rollout these are the models before and after it, otherwise the one that serves. No
    other result is known.
    """
    current = [
        span
        for span in spans
        if span.begin <= answer.at + answer.seconds and answer.at <= span.end + span.lingers
    ]
    past = [span for span in spans if span.end < answer.at]
    allowed = {model for span in current for model in (span.before, span.after)} or {
        past[-1].after if past else spans[0].before
    }
    return answer.model in allowed and results.get(answer.model) == answer.extract


def _seconds(answers: Sequence[Answer], begin: float, end: float) -> Iterator[Second]:
    for at in range(int(end - begin)):
        latencies = [
            1000 * answer.seconds
            for answer in answers
            if answer.is_correct and at <= answer.at - begin < at + 1
        ]
        p50, p99 = (
            (percentile(latencies, 50), percentile(latencies, 99)) if latencies else (0.0, 0.0)
        )
        yield Second(at=float(at), requests=len(latencies), p50=p50, p99=p99)


@dataclass(frozen=True)
class Deployer:
    """A deployer of the sample application, of which both models are in the store.

    Args:
        application: the application.
        body: the body of the load's requests, which wrong code must not affect.
        variables: environment variables of the suite.
        options: options of each task.
        wrong: code that is correct in the smoke test and wrong where it serves, except for a body
            of this length.
    """

    application: Releasable
    body: bytes
    variables: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    wrong: str = WRONG_BEHIND_A_PROXY

    def release(self, version: int, **variables: str) -> None:
        """Release the newest code with a model."""
        self.application.ok(
            "release",
            *self.options,
            "--model",
            f"imagenet@{version}",
            **self.variables,
            **variables,
        )

    def change(self, version: int, line: str, **variables: str) -> None:
        """Change the code, and release it with a model."""
        path = self.application.folder / _CODE
        path.write_text(
            f"{path.read_text(encoding='utf-8')}\n# {line}, {time.time()}\n", encoding="utf-8"
        )
        self.application.commit(line)
        self.release(version, **variables)

    def roll_back(self, *which: str, **variables: str) -> None:
        """Roll back to the previous release, or to its model or code alone."""
        self.application.ok("rollback", *self.options, *which, **self.variables, **variables)

    def release_wrong_code(self, **variables: str) -> None:
        """Release wrong code, which must be undone, and fix the code.

        Raises:
            TaskFailed: it was not undone.
        """
        path = self.application.folder / _ENTRY
        good = path.read_text(encoding="utf-8")
        path.write_text(good + self.wrong % len(self.body), encoding="utf-8")
        self.application.commit("wrong")
        result = self.application.invoke("release", *self.options, **self.variables, **variables)
        path.write_text(good, encoding="utf-8")
        self.application.commit("good again")
        if result.code != _UNDO_EXIT_CODE:
            output = f"{result.out}\n{result.err}"
            raise TaskFailed(f"a release that had to be undone ended with {result.code}\n{output}")


def ten_rollouts(deployer: Deployer) -> tuple[Step, ...]:
    """Return ten rollouts, which start from the first model.

    They are new models, new code, both, rollbacks, and two wrong releases that are undone.
    """
    return (
        Step("new model", lambda: deployer.release(2)),
        Step("new code", lambda: deployer.change(2, "new code")),
        Step("new model and code", lambda: deployer.change(1, "new model and code")),
        Step("model taken back", lambda: deployer.roll_back("--only", "model")),
        Step("code taken back", lambda: deployer.roll_back("--only", "code")),
        Step("wrong, undone", deployer.release_wrong_code),
        Step("older model, newest code", lambda: deployer.release(1)),
        Step("both taken back", deployer.roll_back),
        Step("wrong again, undone", deployer.release_wrong_code),
        Step("newest of both", lambda: deployer.release(2)),
    )


def first_label(text: bytes) -> str:
    """Return the label of the first picture in a response of the sample application."""
    return str(json.loads(text)["result"][0][0][0][0])
