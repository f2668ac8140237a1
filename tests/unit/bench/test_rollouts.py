from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import pytest

from bench.application import TaskFailed, TaskResult
from bench.load import Answer, Load
from bench.rollouts import (
    Deployer,
    RolloutSpan,
    Step,
    first_label,
    is_consistent,
    measure,
    ten_rollouts,
)

RESULTS = {"a": "tiger", "b": "tabby"}
SPANS = [
    RolloutSpan("one", 10.0, 20.0, "a", "b"),
    RolloutSpan("two", 21.0, 30.0, "b", "b"),
    RolloutSpan("three", 31.0, 40.0, "b", "a"),
]


@pytest.mark.parametrize(
    ("at", "seconds", "model", "consistent"),
    [
        (5.0, 1.0, "a", True),
        (5.0, 1.0, "b", False),
        (9.0, 2.0, "b", True),
        (15.0, 0.1, "a", True),
        (15.0, 0.1, "b", True),
        (19.9, 0.5, "a", True),
        (20.2, 0.1, "a", False),
        (20.2, 0.1, "b", True),
        (25.0, 0.1, "a", False),
        (30.9, 0.2, "a", True),
        (41.0, 0.1, "a", True),
        (41.0, 0.1, "b", False),
        (5.0, 40.0, "b", True),
        (15.0, 0.1, "c", False),
    ],
)
def test_a_response_must_be_of_a_model_that_may_serve(
    at: float, seconds: float, model: str, *, consistent: bool
) -> None:
    """This is the one that serves, or during a rollout the one before or after."""
    assert (
        is_consistent(
            Answer(at, seconds, 200, model, extract=RESULTS.get(model, "")), SPANS, RESULTS
        )
        is consistent
    )


def test_the_release_before_may_answer_kept_connections_while_it_lingers() -> None:
    """Later responses of it are mixed up."""
    spans = [RolloutSpan("one", 10.0, 20.0, "a", "b", lingers=5.0)]
    assert [
        is_consistent(Answer(at, 0.1, 200, "a", extract="tiger"), spans, RESULTS)
        for at in (24.9, 25.1)
    ] == [
        True,
        False,
    ]


def test_a_response_with_the_result_of_another_model_is_mixed_up() -> None:
    """This is so even if its model may serve."""
    assert not is_consistent(Answer(15.0, 0.1, 200, "a", extract="tabby"), SPANS, RESULTS)


@dataclass
class ScriptedLoad:
    """A load with prepared responses."""

    models: list[str]
    clients: int = 3
    pause: float = 0.5
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def send_once(self) -> Answer:
        model = self.models.pop(0)
        return Answer(time.monotonic(), 0.0, 200, model, extract=RESULTS[model])

    def add(self, model: str, status: int = 200, result: str = "") -> None:
        """Add a response at this time."""
        self.answers.append(
            Answer(time.monotonic(), 0.010, status, model, extract=result or RESULTS[model])
        )


def test_rollouts_are_measured_as_clients_saw_them() -> None:
    """Failures and mixed responses are counted, and each step has its name and time."""
    load = ScriptedLoad(["a", "b", "a"])

    def forth() -> None:
        load.add("a")
        load.add("b", result="tiger")
        load.add("b", 503)

    def back() -> None:
        load.add("b")
        load.add("a")

    load.add("a")
    rolled = measure(
        cast("Load", load), "docker", "steady", [Step("forth", forth), Step("back", back)], rest=0.0
    )

    assert (rolled.target, rolled.load, rolled.clients, rolled.pause) == (
        "docker",
        "steady",
        3,
        0.5,
    )
    assert (rolled.rolling.requests, rolled.rolling.failures, rolled.mixed) == (4, 1, 1)
    assert [rollout.name for rollout in rolled.rollouts] == ["forth", "back"]
    assert (
        0
        <= rolled.rollouts[0].begin
        <= rolled.rollouts[0].end
        <= rolled.rollouts[1].begin
        <= rolled.rollouts[1].end
    )
    assert rolled.rolling.p50 == pytest.approx(10.0)


@pytest.mark.parametrize(("which", "mixed"), [("forth", 0), ("same", 1), ("none", 1)])
def test_the_time_that_a_release_lingers_is_set_for_each_rollout(which: str, mixed: int) -> None:
    """Without it, the release before does not linger."""
    load = ScriptedLoad(["a", "b", "b"])
    steps = [Step("forth", lambda: None), Step("same", lambda: load.add("a"))]
    rolled = measure(
        cast("Load", load),
        "docker",
        "steady",
        steps,
        rest=0.0,
        lingers=lambda span: 60.0 if span.name == which else 0.0,
    )
    assert rolled.mixed == mixed


@dataclass
class RecordedApplication:
    """An application that records its tasks; each release ends with the next exit code."""

    folder: Path
    codes: list[int]
    actions: list[str] = field(default_factory=list)

    def commit(self, message: str) -> str:
        self.actions.append(message)
        return "0" * 40

    def ok(self, *arguments: str, **variables: str) -> TaskResult:
        assert variables == {"HOME": "here"}
        self.actions.append(" ".join(arguments))
        return TaskResult(0, "", "")

    def invoke(self, *arguments: str, **variables: str) -> TaskResult:
        assert variables == {"HOME": "here"}
        entry = (self.folder / "app" / "application.py").read_text(encoding="utf-8")
        wrong = "!= 11" if '!= b"11"' in entry else "nothing"
        self.actions.append(f"{arguments[0]} with {wrong}")
        return TaskResult(self.codes.pop(0), "", "why")


@pytest.fixture(name="application")
def _application(tmp_path: Path) -> RecordedApplication:
    (tmp_path / "app").mkdir()
    for name in ("application.py", "routes.py"):
        (tmp_path / "app" / name).write_text("good = True\n", encoding="utf-8")
    return RecordedApplication(tmp_path, [60, 60])


def test_ten_rollouts_are_of_every_kind(application: RecordedApplication) -> None:
    """Models, code and both change and are rolled back, and two wrong releases are fixed."""
    steps = ten_rollouts(Deployer(application, b"eleven char", {"HOME": "here"}))
    for step in steps:
        step.run()

    assert len(steps) == 10
    assert application.actions == [
        "release --model imagenet@2",
        "new code",
        "release --model imagenet@2",
        "new model and code",
        "release --model imagenet@1",
        "rollback --only model",
        "rollback --only code",
        *("wrong", "release with != 11", "good again"),
        "release --model imagenet@1",
        "rollback",
        *("wrong", "release with != 11", "good again"),
        "release --model imagenet@2",
    ]
    assert (application.folder / "app" / "application.py").read_text(
        encoding="utf-8"
    ) == "good = True\n"
    assert (application.folder / "app" / "routes.py").read_text(encoding="utf-8").count(
        "\n# new"
    ) == 2


def test_tasks_have_the_options_and_variables_of_the_target(
    application: RecordedApplication,
) -> None:
    """The wrong code is that of the target too."""
    application.codes = [60]
    deployer = Deployer(application, b"x", options=("--env", "staging"), wrong='# != b"1%d"')
    deployer.release(2, HOME="here")
    deployer.roll_back("--only", "code", HOME="here")
    deployer.release_wrong_code(HOME="here")

    assert application.actions == [
        "release --env staging --model imagenet@2",
        "rollback --env staging --only code",
        *("wrong", "release with != 11", "good again"),
    ]


@pytest.mark.parametrize("code", [0, 1])
def test_a_wrong_release_that_is_not_undone_is_an_error(
    application: RecordedApplication, code: int
) -> None:
    """Its figures would be of something else; the code is fixed nevertheless."""
    application.codes = [code]
    wrong = next(
        step
        for step in ten_rollouts(Deployer(application, b"eleven char", {"HOME": "here"}))
        if "wrong" in step.name
    )
    with pytest.raises(TaskFailed, match=f"ended with {code}"):
        wrong.run()
    assert (application.folder / "app" / "application.py").read_text(
        encoding="utf-8"
    ) == "good = True\n"


def test_the_first_label_is_the_most_likely_one() -> None:
    """It is that of the first picture."""
    answer: Any = (
        b'{"result": [[[["tiger", 90.0], ["tabby", 5.0]], [["cup", 1.0]]], "Computed in 1.0 ms"]}'
    )
    assert first_label(answer) == "tiger"
