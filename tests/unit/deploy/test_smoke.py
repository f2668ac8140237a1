"""Smoke tests of images: an image that misses a golden case is shown with its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy import smoke
from deploy.cache import Cache
from deploy.clients.docker.container import ThrowawayContainer
from deploy.errors import SmokeFailed
from deploy.image.join import join_image
from deploy.records import Image, Verdict
from tests.fakes import halves
from tests.fakes.golden import GOLDEN_SET, FakePlayer, return_in_turn
from tests.fakes.halves import MOUNT

IMAGE_ID = "sha256:held"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def joined(cache: Cache) -> Image:
    """An image of base, libraries, weights and code."""
    return join_image(halves.app(cache), halves.model(cache), MOUNT, cache)


class FakeTrials:
    """A container that answers, or dies, or neither.

    Attributes:
        lives: whether its process does, each time that is asked.
        tried: the images and ports that were run.
        running: how many containers run now.
    """

    def __init__(
        self, lives: Callable[[], bool] = lambda: True, log: str = "first line\nlast line\n"
    ) -> None:
        self.lives = lives
        self.text = log
        self.tried: list[tuple[str, int]] = []
        self.running = 0

    @contextmanager
    def __call__(self, image: str, port: int) -> Iterator[ThrowawayContainer]:
        self.tried.append((image, port))
        self.running += 1
        try:
            yield ThrowawayContainer(url="http://trial", alive=self.lives, log=lambda: self.text)
        finally:
            self.running -= 1


def check(joined: Image, trials: FakeTrials, player: FakePlayer, within: float = 5.0) -> Verdict:
    """Tries an image."""
    return smoke.check(
        joined, IMAGE_ID, GOLDEN_SET, trials, port=8080, ready="/readyz", within=within, play=player
    )


def test_an_image_that_answers_as_promised_passes(joined: Image) -> None:
    """Exactly the joined image ran, it was asked when it was ready, and nothing of it is left."""
    trials = FakeTrials()
    player = FakePlayer(
        return_in_turn(["no response: ConnectionError", "expected status 200, got 503"])
    )
    verdict = check(joined, trials, player)
    assert verdict.passed
    assert [names for _, names in player.played] == [("ready",), ("ready",), ("ready",), ("three",)]
    assert trials.tried == [(IMAGE_ID, 8080)]
    assert trials.running == 0


def test_a_wrong_answer_shows_what_was_expected_and_the_log(joined: Image) -> None:
    """Expected and actual, the case, and the container's last lines; nothing was pushed."""
    trials = FakeTrials()
    with pytest.raises(SmokeFailed) as caught:
        check(
            joined, trials, FakePlayer(return_in_turn(["", "/result: expected 'cat', got 'dog'"]))
        )
    assert "1 of 1" in caught.value.what
    assert "classifier 555555555555 with imagenet@1" in caught.value.on
    assert "three: /result: expected 'cat', got 'dog'" in caught.value.detail
    assert "    last line" in caught.value.detail
    assert "nothing was pushed" in caught.value.next
    assert trials.running == 0


def test_a_container_that_dies_shows_its_log_at_once(joined: Image) -> None:
    """It is not waited for until the time is over."""
    trials = FakeTrials(lives=lambda: False, log="ImportError: no module named flask")
    with pytest.raises(SmokeFailed, match="ended before it was ready") as caught:
        check(joined, trials, FakePlayer(lambda: "no response: ConnectionError"), within=3600)
    assert "ImportError: no module named flask" in caught.value.detail
    assert trials.running == 0


def test_a_container_that_is_never_ready_shows_its_log(joined: Image) -> None:
    """When the time that it was given is over."""
    trials = FakeTrials(log="")
    player = FakePlayer(lambda: "expected status 200, got 503")
    with pytest.raises(SmokeFailed, match=r"not ready within 0\.1 s") as caught:
        check(joined, trials, player, within=0.1)
    assert "(nothing)" in caught.value.detail
    assert player.played
    assert trials.running == 0
