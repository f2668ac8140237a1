from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench import cluster
from bench.application import TaskResult
from bench.figures import Arrival
from bench.report import _arrivals
from bench.rollouts import Deployer

SAID = """\
· pod    app-staging-5df549cbbd-8fvk2 scheduled, pulling up to 116 MB
· pod    app-staging-5df549cbbd-8fvk2 loaded: started after 1.0 s, loaded after 1.0 s
· pod    app-staging-5df549cbbd-8fvk2 ready: started after 2.5 s, loaded after 1.5 s, ready after 0.5 s
· pod    app-staging-5df549cbbd-9v5r2 ready: started after 12 s, loaded after 1.0 s, ready after 1.5 s
· proven at http://10.0.0.4:32012: coffee → espresso
"""


@dataclass
class Recorder:
    """An application that does nothing but remember what it was asked, and ends wrong code as it should end."""

    folder: Path
    asked: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def commit(self, message: str) -> str:
        return message

    def ok(self, *arguments: str, **variables: str) -> TaskResult:
        self.asked.append((arguments, variables["TWINSHIP_ENVIRONMENTS__STAGING__STRATEGY"]))
        return TaskResult(0, "", "")

    def invoke(self, *arguments: str, **variables: str) -> TaskResult:
        self.ok(*arguments, **variables)
        return TaskResult(60, "", "")


def test_replicas_are_timed_by_what_a_release_says_of_them() -> None:
    """Only of those that became ready, in each of the three parts of their way."""
    assert list(cluster.arrivals(SAID)) == [
        Arrival(started=2.5, loaded=1.5, ready=0.5),
        Arrival(started=12.0, loaded=1.0, ready=1.5),
    ]
    assert next(iter(cluster.arrivals(SAID))).total == pytest.approx(4.5)


def test_the_report_sums_up_the_ways_of_the_replicas() -> None:
    """With the middle and the ends of each part."""
    text = "\n".join(_arrivals(tuple(cluster.arrivals(SAID))))
    assert "of 2 replicas" in text
    assert (
        "| a replica | 7.2 (2.5 to 12.0) | 1.2 (1.0 to 1.5) | 1.0 (0.5 to 1.5) | 9.5 (4.5 to 14.5) |"
        in text
    )


def test_ten_rollouts_on_a_cluster_take_turns_with_the_strategies(tmp_path: Path) -> None:
    """Each goes to the environment on the cluster, two are wrong, and none is without a strategy."""
    (tmp_path / "app").mkdir()
    for name in ("routes.py", "__init__.py"):
        (tmp_path / "app" / name).write_text("", encoding="utf-8")
    recorder = Recorder(tmp_path)
    steps = cluster.ten_rollouts(
        Deployer(recorder, b"picture", {}, ("--env", "staging"), cluster.WRONG_ON_A_CLUSTER)
    )
    for step in steps:
        step.run()
    assert len({step.name for step in steps}) == len(steps) == 10
    assert {strategy for _, strategy in recorder.asked} == {"rolling", "blue-green", "canary"}
    assert all(arguments[1:3] == ("--env", "staging") for arguments, _ in recorder.asked)
    assert sum("undone" in step.name for step in steps) == 2


def test_code_that_is_wrong_on_a_cluster_is_right_elsewhere() -> None:
    """Else the smoke test would stop it before it is rolled out."""
    assert "KUBERNETES_SERVICE_HOST" in cluster.WRONG_ON_A_CLUSTER
    assert "X-Forwarded-For" not in cluster.WRONG_ON_A_CLUSTER
    compile(cluster.WRONG_ON_A_CLUSTER % 7, "app/__init__.py", "exec")
