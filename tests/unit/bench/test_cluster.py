from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench import cluster
from bench.application import TaskResult
from bench.figures import Arrival
from bench.report import _arrivals
from bench.rollouts import Deployer

OUTPUT = """\
· pod    app-5df549cbbd-8fvk2 scheduled, pulling up to 116 MB
· pod    app-5df549cbbd-8fvk2 loaded: started after 1.0 s, loaded after 1.0 s
· pod    app-5df549cbbd-8fvk2 ready: started after 2.5 s, loaded after 1.5 s, ready after 0.5 s
· pod    app-5df549cbbd-9v5r2 ready: started after 12 s, loaded after 1.0 s, ready after 1.5 s
· proven at http://10.0.0.4:32012: coffee → espresso
"""


@dataclass
class Recorder:
    """An application that records its tasks, and whose wrong releases are undone."""

    folder: Path
    tasks: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def commit(self, message: str) -> str:
        return message

    def ok(self, *arguments: str, **variables: str) -> TaskResult:
        self.tasks.append((arguments, variables["TWINSHIP_ENVIRONMENTS__STAGING__STRATEGY"]))
        return TaskResult(0, "", "")

    def invoke(self, *arguments: str, **variables: str) -> TaskResult:
        self.ok(*arguments, **variables)
        return TaskResult(60, "", "")


def test_replicas_are_timed_from_the_log_of_a_release() -> None:
    """Only those that became ready count, with the three parts of their start."""
    assert list(cluster.arrivals(OUTPUT)) == [
        Arrival(started=2.5, loaded=1.5, ready=0.5),
        Arrival(started=12.0, loaded=1.0, ready=1.5),
    ]
    assert next(iter(cluster.arrivals(OUTPUT))).total == pytest.approx(4.5)


def test_the_report_has_the_start_times_of_the_replicas() -> None:
    """Each part has its median, minimum and maximum."""
    text = "\n".join(_arrivals(tuple(cluster.arrivals(OUTPUT))))
    assert "of 2 replicas" in text
    row = "7.2 (2.5 to 12.0) | 1.2 (1.0 to 1.5) | 1.0 (0.5 to 1.5) | 9.5 (4.5 to 14.5)"
    assert f"| a replica | {row} |" in text


def test_ten_rollouts_on_a_cluster_use_all_strategies(tmp_path: Path) -> None:
    """Each goes to the environment on the cluster, has a strategy, and two are wrong."""
    (tmp_path / "app").mkdir()
    for name in ("routes.py", "application.py"):
        (tmp_path / "app" / name).write_text("", encoding="utf-8")
    recorder = Recorder(tmp_path)
    steps = cluster.ten_rollouts(
        Deployer(recorder, b"picture", {}, ("--env", "staging"), cluster.WRONG_ON_A_CLUSTER)
    )
    for step in steps:
        step.run()
    assert len({step.name for step in steps}) == len(steps) == 10
    assert {strategy for _, strategy in recorder.tasks} == {"rolling", "blue-green", "canary"}
    assert all(arguments[1:3] == ("--env", "staging") for arguments, _ in recorder.tasks)
    assert sum("undone" in step.name for step in steps) == 2


def test_code_that_is_wrong_on_a_cluster_passes_the_smoke_test() -> None:
    """Otherwise it would not be rolled out."""
    assert "KUBERNETES_SERVICE_HOST" in cluster.WRONG_ON_A_CLUSTER
    assert "X-Forwarded-For" not in cluster.WRONG_ON_A_CLUSTER
    compile(cluster.WRONG_ON_A_CLUSTER % 7, "app/application.py", "exec")
