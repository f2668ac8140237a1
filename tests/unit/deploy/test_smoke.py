"""Smoke tests of images: an image that misses a golden case is shown with its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from deploy import smoke
from deploy.clients.docker.protocol import Limits
from deploy.clients.docker.throwaway_container import ThrowawayContainer
from deploy.errors import SettingsInvalid, SmokeFailed
from deploy.model.golden_cases import GoldenSet
from deploy.records import Image, Verdict
from deploy.variables import NO_VARIABLES, Variables
from tests.fakes.golden import GOLDEN_SET, FakePlayer, golden_set_with, return_in_turn

IMAGE_ID = "sha256:image"
LIMITS = Limits(memory=1 << 30, pids=64)


class FakeContainers:
    """Throwaway containers that answer, end, or are never ready.

    Attributes:
        lives: returns whether the process is alive.
        out_of_memory: whether it was killed because of its limit of memory.
        started: the images, ports and limits that were run.
        environments: their variables.
        running: how many containers run now.
    """

    def __init__(
        self, lives: Callable[[], bool] = lambda: True, log: str = "first line\nlast line\n"
    ) -> None:
        self.lives = lives
        self.text = log
        self.out_of_memory = False
        self.started: list[tuple[str, int, Limits]] = []
        self.environments: list[Mapping[str, str]] = []
        self.running = 0

    @contextmanager
    def __call__(
        self, image: str, port: int, limits: Limits, environment: Mapping[str, str]
    ) -> Iterator[ThrowawayContainer]:
        self.environments.append(environment)
        self.started.append((image, port, limits))
        self.running += 1
        try:
            yield ThrowawayContainer(
                url="http://container",
                is_running=self.lives,
                read_log=lambda: self.text,
                was_out_of_memory=lambda: self.out_of_memory,
            )
        finally:
            self.running -= 1


def check(
    joined: Image,
    containers: FakeContainers,
    player: FakePlayer,
    within: float = 5.0,
    golden_set: GoldenSet = GOLDEN_SET,
    **changed: Any,
) -> Verdict:
    """Run the smoke test of an image."""
    return smoke.check(
        joined,
        IMAGE_ID,
        golden_set,
        containers,
        smoke.Trial(port=8080, ready="/readyz", within=within, limits=LIMITS, **changed),
        player,
    )


def test_an_image_with_the_expected_responses_passes(joined: Image) -> None:
    """The joined image was run, played when it was ready, and removed."""
    containers = FakeContainers()
    player = FakePlayer(
        return_in_turn(["no response: ConnectionError", "expected status 200, got 503"])
    )
    verdict = check(joined, containers, player)
    assert verdict.passed
    assert [names for _, names in player.played] == [("ready",), ("ready",), ("ready",), ("three",)]
    assert containers.started == [(IMAGE_ID, 8080, LIMITS)]
    assert containers.running == 0


def test_a_wrong_response_is_an_error_with_the_log(joined: Image) -> None:
    """The detail has the case, expected and actual values, and the end of the log."""
    containers = FakeContainers()
    with pytest.raises(SmokeFailed) as caught:
        check(
            joined,
            containers,
            FakePlayer(return_in_turn(["", "/result: expected 'cat', got 'dog'"])),
        )
    assert "1 of 1" in caught.value.what
    assert "classifier 555555555555 with imagenet@1" in caught.value.on
    assert "three: /result: expected 'cat', got 'dog'" in caught.value.detail
    assert "    last line" in caught.value.detail
    assert "nothing was pushed" in caught.value.next
    assert containers.running == 0


def test_a_container_that_ends_is_an_error_at_once(joined: Image) -> None:
    """The test does not wait for the rest of the time."""
    containers = FakeContainers(lives=lambda: False, log="ImportError: no module named flask")
    with pytest.raises(SmokeFailed, match="ended before it was ready") as caught:
        check(joined, containers, FakePlayer(lambda: "no response: ConnectionError"), within=3600)
    assert "ImportError: no module named flask" in caught.value.detail
    assert containers.running == 0


def test_a_container_without_enough_memory_is_an_error_that_says_so(joined: Image) -> None:
    """A killed process writes nothing into its log."""
    containers = FakeContainers(lives=lambda: False)
    containers.out_of_memory = True
    with pytest.raises(SmokeFailed, match="more memory than its limit") as caught:
        check(joined, containers, FakePlayer(lambda: "no response: ConnectionError"))
    assert "`memory`" in caught.value.next


def test_a_container_that_is_never_ready_is_an_error_with_the_log(joined: Image) -> None:
    """The error comes after the configured time, and has the last response of the ready path."""
    containers = FakeContainers(log="")
    player = FakePlayer(lambda: "expected status 200, got 503")
    with pytest.raises(SmokeFailed, match=r"not ready within 0\.1 s") as caught:
        check(joined, containers, player, within=0.1)
    assert "GET /readyz: expected status 200, got 503" in caught.value.detail
    assert "(nothing)" in caught.value.detail
    assert player.played
    assert containers.running == 0


def test_the_container_gets_the_variables_of_the_smoke_test(joined: Image) -> None:
    """Golden cases may name them, and the container gets no others."""
    containers = FakeContainers()
    player = FakePlayer()
    variables = Variables({"API_KEY": "stand-in"})
    check(joined, containers, player, variables=variables)
    assert containers.environments == [{"API_KEY": "stand-in"}]
    assert player.variables == [NO_VARIABLES, variables]


def test_a_golden_case_names_no_other_variable(joined: Image) -> None:
    """That is found before a container is started; the table is named."""
    containers = FakeContainers()
    with pytest.raises(SettingsInvalid) as caught:
        check(joined, containers, FakePlayer(), golden_set=golden_set_with("${API_KEY}"))
    assert caught.value.next.startswith("add API_KEY to [smoke.env]")
    assert containers.started == []


@pytest.mark.parametrize(
    ("alive", "problem", "within"),
    [(False, "no response", 5.0), (True, "no response", 0.0), (True, "", 5.0)],
)
def test_a_failure_names_the_variables_that_only_replicas_get(
    joined: Image, alive: bool, problem: str, within: float
) -> None:
    """Their absence may be the reason, whatever fails."""
    player = FakePlayer(return_in_turn([problem, "expected status 200, got 500"]))
    with pytest.raises(SmokeFailed) as caught:
        check(
            joined, FakeContainers(lambda: alive), player, within, lacking=["API_KEY", "DATABASE"]
        )
    assert caught.value.next.endswith(
        "; it gets the variables of [smoke.env], which lacks API_KEY, DATABASE"
    )
