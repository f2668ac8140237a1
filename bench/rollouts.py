"""Rollouts in a row under load: what clients see meanwhile, whichever target the application runs on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from bench.application import Done, TaskFailed
from bench.figures import Rolled, Rollout, Second
from bench.load import Answer, Load, percentile, summed

log = logging.getLogger(__name__)

# The sample's two models take this picture for different things, so that each answer tells which of them gave it.
PICTURE = "chelsea.jpg"
# Of the rest before the first rollout, the share that does not count: whatever is loaded on a first request is loaded then.
_WARM_UP = 0.1
_UNDONE = 60
_CODE = "app/routes.py"
_ENTRY = "app/application.py"
# Right in the smoke test and wrong behind the front door, for the golden cases alone: clients keep their answers.
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


class Released(Protocol):
    """As much of an application as rolling it out needs."""

    @property
    def folder(self) -> Path:
        """Where its files are."""

    def commit(self, message: str) -> str:
        """Commits them."""

    def ok(self, *arguments: str, **variables: str) -> Done:
        """Runs a task that must succeed."""

    def invoke(self, *arguments: str, **variables: str) -> Done:
        """Runs a task to its end."""


@dataclass(frozen=True)
class Step:
    """A rollout, and how to bring it about; it returns when all of it is done."""

    name: str
    take: Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """The loads, by name: clients at once, and seconds between an answer and the next request; the rest before the first rollout."""

    loads: tuple[tuple[str, int, float], ...]
    rest: float
    steps: int


@dataclass(frozen=True)
class Span:
    """A rollout's time, in monotonic seconds, the models that served before and after it, and how long the former answers on."""

    name: str
    begin: float
    end: float
    before: str
    after: str
    lingers: float = 0.0


def under(
    load: Load,
    target: str,
    name: str,
    steps: Iterable[Step],
    rest: float,
    lingers: Callable[[Span], float] = lambda _: 0.0,
) -> Rolled:
    """Takes one step after the other while a load asks, and holds every answer against what may serve at that moment.

    Args:
        load: not begun yet; keeps of an answer what the model says.
        target: where the application runs.
        name: the load's.
        steps: each begins when the one before is done.
        rest: seconds of load before the first.
        lingers: tells, when all is over, for how many seconds after a rollout connections that clients keep may have been answered
            by the release before.
    """
    spans: list[Span] = []
    with load:
        time.sleep(_WARM_UP * rest)
        begin = time.monotonic()
        time.sleep(rest)
        serving = load.once()
        says = {serving.model: serving.said}
        for step in steps:
            before = serving.model
            started = time.monotonic()
            step.take()
            ended = time.monotonic()
            serving = load.once()
            says.setdefault(serving.model, serving.said)
            spans.append(Span(step.name, started, ended, before, serving.model))
            log.info(
                "    %s, %s: %.1f s, %d answers so far",
                name,
                step.name,
                ended - started,
                len(load.answers),
            )
    return _rolled(
        load, target, name, begin, [replace(span, lingers=lingers(span)) for span in spans], says
    )


def _rolled(
    load: Load, target: str, name: str, begin: float, spans: Sequence[Span], says: Mapping[str, str]
) -> Rolled:
    answers = [answer for answer in load.answers if answer.at >= begin]
    first = spans[0].begin
    last = spans[-1].end
    return Rolled(
        target=target,
        load=name,
        clients=load.clients,
        pause=load.pause,
        mixed=sum(not fits(answer, spans, says) for answer in answers if answer.right),
        rest=summed([answer for answer in answers if answer.at < first], first - begin),
        rolling=summed([answer for answer in answers if first <= answer.at < last], last - first),
        rollouts=tuple(
            Rollout(name=span.name, begin=span.begin - begin, end=span.end - begin)
            for span in spans
        ),
        seconds=tuple(_seconds(answers, begin, last)),
    )


def fits(answer: Answer, spans: Sequence[Span], says: Mapping[str, str]) -> bool:
    """Whether an answer says what the model that it names says, and that model might serve while the answer was under way.

    In a rollout the model before it and the one after it may, at rest the one that serves; nothing else is known to say anything.
    """
    met = [
        span
        for span in spans
        if span.begin <= answer.at + answer.seconds and answer.at <= span.end + span.lingers
    ]
    past = [span for span in spans if span.end < answer.at]
    allowed = {model for span in met for model in (span.before, span.after)} or {
        past[-1].after if past else spans[0].before
    }
    return answer.model in allowed and says.get(answer.model) == answer.said


def _seconds(answers: Sequence[Answer], begin: float, end: float) -> Iterator[Second]:
    for at in range(int(end - begin)):
        taken = [
            1000 * answer.seconds
            for answer in answers
            if answer.right and at <= answer.at - begin < at + 1
        ]
        p50, p99 = (percentile(taken, 50), percentile(taken, 99)) if taken else (0.0, 0.0)
        yield Second(at=float(at), requests=len(taken), p50=p50, p99=p99)


@dataclass(frozen=True)
class Deployer:
    """Brings about rollouts of the sample application, of which both models are in the store.

    Args:
        application: what is rolled out.
        body: what the load asks, which wrong code must leave alone.
        variables: of the suite's environment.
        options: of each of its tasks.
        wrong: code that is right when it is tried out and wrong where it serves, but for a body of this length.
    """

    application: Released
    body: bytes
    variables: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    wrong: str = WRONG_BEHIND_A_PROXY

    def release(self, version: int, **variables: str) -> None:
        """Releases the newest code with a model."""
        self.application.ok(
            "release",
            *self.options,
            "--model",
            f"imagenet@{version}",
            **self.variables,
            **variables,
        )

    def change(self, version: int, line: str, **variables: str) -> None:
        """Changes the code, and releases it with a model."""
        path = self.application.folder / _CODE
        path.write_text(
            f"{path.read_text(encoding='utf-8')}\n# {line}, {time.time()}\n", encoding="utf-8"
        )
        self.application.commit(line)
        self.release(version, **variables)

    def back(self, *which: str, **variables: str) -> None:
        """Takes back what served before, or its model or code alone."""
        self.application.ok("rollback", *self.options, *which, **self.variables, **variables)

    def fail(self, **variables: str) -> None:
        """Releases wrong code, which must undo itself; mends the code.

        Raises:
            TaskFailed: it did not.
        """
        path = self.application.folder / _ENTRY
        good = path.read_text(encoding="utf-8")
        path.write_text(good + self.wrong % len(self.body), encoding="utf-8")
        self.application.commit("wrong")
        done = self.application.invoke("release", *self.options, **self.variables, **variables)
        path.write_text(good, encoding="utf-8")
        self.application.commit("good again")
        if done.code != _UNDONE:
            raise TaskFailed(
                f"a release that had to undo itself ended with {done.code}\n{done.out}\n{done.err}"
            )


def ten(deployer: Deployer) -> tuple[Step, ...]:
    """Ten rollouts from the first model on: new models, new code, both, ways back, and two that fail and undo themselves."""
    return (
        Step("new model", lambda: deployer.release(2)),
        Step("new code", lambda: deployer.change(2, "new code")),
        Step("new model and code", lambda: deployer.change(1, "new model and code")),
        Step("model taken back", lambda: deployer.back("--only", "model")),
        Step("code taken back", lambda: deployer.back("--only", "code")),
        Step("wrong, undone", deployer.fail),
        Step("older model, newest code", lambda: deployer.release(1)),
        Step("both taken back", deployer.back),
        Step("wrong again, undone", deployer.fail),
        Step("newest of both", lambda: deployer.release(2)),
    )


def first_label(text: bytes) -> str:
    """What an answer of the sample application takes its first picture for."""
    return str(json.loads(text)["result"][0][0][0][0])
