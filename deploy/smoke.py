"""The smoke test of an image: run it in a container and play the golden cases of its model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from deploy import progress
from deploy.clients.docker.protocol import Limits
from deploy.clients.docker.throwaway_container import StartContainer, ThrowawayContainer
from deploy.clients.http import Endpoint
from deploy.errors import SmokeFailed, format_log_tail
from deploy.model import golden_cases
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import Image, Verdict
from deploy.variables import NO_VARIABLES, Variables

_POLL_SECONDS = 0.05
_TABLE = "[smoke.env]"


@dataclass(frozen=True)
class Trial:
    """How an image is run for its smoke test.

    Attributes:
        port: the port of the application in the container.
        ready: the path that answers 200 when the application is ready.
        within: how many seconds the application may take until it is ready.
        limits: what its processes may use.
        variables: the variables that it gets, besides the image's own.
        lacking: the names of those that only replicas get.
    """

    port: int
    ready: str
    within: float
    limits: Limits
    variables: Variables = NO_VARIABLES
    lacking: Sequence[str] = ()

    @property
    def hint(self) -> str:
        """What else a failure may be due to, as the end of a sentence; empty for nothing."""
        names = ", ".join(self.lacking)
        return f"; it gets the variables of {_TABLE}, which lacks {names}" if names else ""


def check(
    joined: Image,
    image_id: str,
    golden_set: golden_cases.GoldenSet,
    start_container: StartContainer,
    trial: Trial,
    play: golden_cases.Play = golden_cases.play,
) -> Verdict:
    """Run an image in a throwaway container and play the golden cases of its model.

    Args:
        joined: the image.
        image_id: its id on the engine.
        golden_set: the golden cases of its model.
        start_container: starts a throwaway container.
        trial: how it is run.
        play: sends the golden cases to the container.

    Raises:
        SettingsInvalid: a golden case names a variable that the container does not get.
        SmokeFailed: the container ended, was not ready in time, or missed golden cases; the detail
            has the end of its log.
    """
    cases = golden_set.with_variables(trial.variables, _TABLE)
    environment = trial.variables.environment
    with start_container(image_id, trial.port, trial.limits, environment) as container:
        _wait_until_ready(container, trial, play, on=str(joined.layer.model))
        verdict = play(cases, Endpoint(container.url))
        if not verdict.passed:
            raise SmokeFailed(
                f"the image missed {len(verdict.misses)} of {len(verdict.cases)} golden cases",
                on=f"{joined.app.name} {joined.app.commit} with {joined.layer.model}",
                next="nothing was pushed; fix the code or the model, "
                f"or the golden cases if they expect too much{trial.hint}",
                detail=_describe_misses(verdict, container.read_log()),
            )
    return verdict


def _wait_until_ready(
    container: ThrowawayContainer, trial: Trial, play: golden_cases.Play, on: str
) -> None:
    request = GoldenRequest(path=trial.ready)
    probe = GoldenCase(name="ready", request=request, expect=ExpectedResponse())
    probes = golden_cases.GoldenSet((probe,), {})
    deadline = time.monotonic() + trial.within
    problem = ""
    while time.monotonic() < deadline:
        verdict = play(probes, Endpoint(container.url))
        if verdict.passed:
            return
        problem = verdict.misses[0].problem
        if not container.is_running():
            raise _end_error(container, on, trial.hint)
        # A wrong status need not be final: some servers answer 404 until they have started.
        progress.report(f"waiting for {trial.ready}: {problem.partition(':')[0]}")
        time.sleep(_POLL_SECONDS)
    raise SmokeFailed(
        f"the container was not ready within {progress.format_seconds(trial.within)}",
        on=on,
        next=f"nothing was pushed; see the log, and `ready` in [app]{trial.hint}",
        detail=f"  GET {trial.ready}: {problem}\n  its log ends with:\n"
        f"{format_log_tail(container.read_log())}",
    )


def _end_error(container: ThrowawayContainer, on: str, hint: str) -> SmokeFailed:
    out_of_memory = container.was_out_of_memory()
    return SmokeFailed(
        "the container needed more memory than its limit before it was ready"
        if out_of_memory
        else "the container ended before it was ready",
        on=on,
        next="nothing was pushed; raise `memory` of the environment, or use less"
        if out_of_memory
        else f"nothing was pushed; the log shows why{hint}",
        detail=format_log_tail(container.read_log()),
    )


def _describe_misses(verdict: Verdict, log: str) -> str:
    misses = "\n".join(f"  {case.name}: {case.problem}" for case in verdict.misses)
    return f"{misses}\n  the container's log ends with:\n{format_log_tail(log)}"
