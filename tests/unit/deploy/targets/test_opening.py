"""The one place where targets are opened from settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from deploy import pipeline
from deploy.errors import ReleaseUnknown, SettingsInvalid
from deploy.settings.environments import KINDS, Environment
from deploy.settings.image import DEBIAN
from deploy.targets.opening import TARGETS, TargetInputs, TargetKind
from deploy.variables import Variables
from tests.fakes.application import Application
from tests.fakes.target import MemoryTarget

PIPELINE = f"""\
[app]
name = "classifier"

[model]
name = "digits"

[image]
base = "{DEBIAN}"
builder = "classic"

[environments.local]
target = "memory"
registry = "registry.example"
room = 3
"""


class Memory(Environment):
    """The table of an environment in memory: `room` is a key that no other target knows."""

    target: Literal["memory"]
    room: int


class Opener:
    """Opens the same target in memory each time.

    Attributes:
        target: that target.
        opened: the environments and rooms that it was opened with.
    """

    def __init__(self) -> None:
        self.target = MemoryTarget()
        self.opened: list[tuple[str, int]] = []

    def __call__(self, env: Memory, inputs: TargetInputs) -> MemoryTarget:
        self.opened.append((inputs.environment, env.room))
        self.target.settings = inputs.variables
        return self.target


@pytest.fixture
def opener() -> Opener:
    """Return what opens the third kind of target."""
    return Opener()


@pytest.fixture
def application(tmp_path: Path, opener: Opener) -> Application:
    """Return an application whose environment is of a third kind, with one published model."""
    application = Application(tmp_path)
    application.publish("1")
    application.write("pipeline.toml", PIPELINE)
    application.targets = {**TARGETS, "memory": TargetKind(Memory, opener)}
    return application


def test_a_release_to_podman_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Nothing is built for it; the sentence says what works with it."""
    application = Application(tmp_path)
    application.publish("1")
    application.engine.product = "Podman"
    images = dict(application.engine.images)
    with pytest.raises(SettingsInvalid, match="Podman cannot") as caught:
        pipeline.release(application.context())
    assert "releases to a cluster" in caught.value.next
    assert application.engine.all_containers == {}
    assert application.engine.images == images


def test_a_third_kind_of_target_takes_a_whole_release(
    application: Application, opener: Opener
) -> None:
    """One entry with a settings class and a factory is enough; no other module knows the kind."""
    done = pipeline.release(application.context())
    release = done.rollout.attempt.release
    assert (done.changed, done.rollout.outcome, done.verdict.passed) == (True, "succeeded", True)
    assert opener.opened == [("local", 3)]
    assert opener.target.serves(release)
    assert release.image.digest in application.registry.manifests["classifier"]
    assert not pipeline.release(application.context()).changed


def test_a_third_kind_of_target_can_be_rolled_back(application: Application) -> None:
    """A rollback is a rollout of an earlier release, on each kind."""
    first = pipeline.release(application.context()).rollout.attempt.release
    application.publish("2")
    pipeline.release(application.context())
    done = pipeline.rollback(application.context(), None, None)
    assert done.rollout.attempt.release == first


def test_a_third_kind_of_target_is_given_variables(
    application: Application, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed secret is a rollout on each kind."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__ENV__MODE", "fast")
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__SECRETS__API_KEY", "KEY_OF_TODAY")
    for secret in ("planted-1", "planted-2"):
        monkeypatch.setenv("KEY_OF_TODAY", secret)
        assert pipeline.release(application.context()).changed
        assert opener.target.variables() == Variables({"MODE": "fast"}, {"API_KEY": secret})
    assert not pipeline.release(application.context()).changed


def test_a_look_at_an_environment_opens_the_same_kind(application: Application) -> None:
    """The current rollout is read from the target itself."""
    with pytest.raises(ReleaseUnknown):
        application.current()
    pipeline.release(application.context())
    assert application.current().attempt.id == 1


def test_what_only_some_kinds_have_is_refused(application: Application, opener: Opener) -> None:
    """The target is not opened for that."""
    context = application.context()
    for open_target in (context.inspect_canary_target, context.inspect_rendered_target):
        with pytest.raises(SettingsInvalid) as caught:
            open_target()
        assert caught.value.on == "[environments.local] target"
    assert opener.opened == []


def test_the_keys_of_a_third_kind_are_checked_like_all_others(application: Application) -> None:
    """A problem has the key's path, and the nearest key that the kind knows."""
    application.write("pipeline.toml", PIPELINE.replace("room = 3", 'rooms = 3\nport = "no"'))
    with pytest.raises(SettingsInvalid) as caught:
        application.context()
    assert caught.value.detail.splitlines() == [
        "  environments.local.port: unknown key; did you mean 'password'?",
        "  environments.local.room: missing",
        "  environments.local.rooms: unknown key; did you mean 'room'?",
    ]


def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(application: Application) -> None:
    """The third kind is among them."""
    application.write("pipeline.toml", PIPELINE.replace('"memory"', '"moon"'))
    with pytest.raises(SettingsInvalid) as caught:
        application.context()
    assert "should be one of 'docker', 'kubernetes', 'memory', not 'moon'" in caught.value.detail


def test_settings_and_targets_have_the_same_kinds() -> None:
    """`pipeline.toml` accepts exactly the kinds that can be opened."""
    assert {name: kind.settings for name, kind in TARGETS.items()} == KINDS
