"""A bad model does not keep new code from being released: the error names another version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import pipeline
from deploy.cli import commands
from deploy.errors import (
    FileTampered,
    GoldenMiss,
    ManifestInvalid,
    ReleaseError,
    SmokeFailed,
    StoreUnreachable,
)
from tests.fakes.application import Application
from tests.fakes.throwaway_containers import URL as CONTAINER

LOCAL = "http://127.0.0.1:8080"
RELEASE = "; `invoke release --model @1` takes model 1 instead"


def spoil_manifest(application: Application) -> None:
    """Damage the model manifest of version 2."""
    application.store.files["models/digits/2/manifest.json"] = b"{}"


def spoil_file(application: Application) -> None:
    """Damage the weights of version 2."""
    weights = b"\x08" + b"2" * 5000
    (name,) = (name for name, data in application.store.files.items() if data == weights)
    application.store.files[name] = weights[:-1]


def release_error(application: Application, environment: str = "") -> ReleaseError:
    """Return the error of a release."""
    with pytest.raises(ReleaseError) as caught:
        pipeline.release(application.context(environment))
    return caught.value


@pytest.mark.parametrize(
    ("spoil", "kind"), [(spoil_manifest, ManifestInvalid), (spoil_file, FileTampered)]
)
def test_a_damaged_model_names_the_one_that_serves(
    released: Application, spoil: Callable[[Application], None], kind: type[ReleaseError]
) -> None:
    """That command releases the new code."""
    released.publish("2")
    spoil(released)
    released.write("app/main.py", "print('two')\n")
    error = release_error(released)
    assert isinstance(error, kind)
    assert error.next.endswith(RELEASE)
    done = pipeline.release(released.context(), "1")
    assert (done.changed, str(done.rollout.attempt.release.image.layer.model)) == (True, "digits@1")


@pytest.mark.parametrize(("url", "kind"), [(CONTAINER, SmokeFailed), (LOCAL, GoldenMiss)])
def test_a_model_that_misses_its_golden_cases_names_the_one_that_serves(
    released: Application, url: str, kind: type[ReleaseError]
) -> None:
    """In the smoke test, or at the endpoint."""
    released.publish("2")
    released.play.wrong[url] = "expected 3, got 8"
    error = release_error(released)
    assert isinstance(error, kind)
    assert error.next.endswith(RELEASE)


def test_code_that_fails_with_the_same_model_names_no_other(released: Application) -> None:
    """The model is not to blame."""
    released.write("app/main.py", "print('two')\n")
    released.play.wrong[CONTAINER] = "expected 3, got 8"
    error = release_error(released)
    assert isinstance(error, SmokeFailed)
    assert "--model" not in error.next


def test_before_the_first_release_another_version_is_named(application: Application) -> None:
    """The store has no better answer."""
    application.publish("2")
    spoil_manifest(application)
    assert release_error(application).next.endswith(RELEASE)


def test_without_another_version_none_is_named(application: Application) -> None:
    """There is nothing else to release."""
    application.store.files["models/digits/1/manifest.json"] = b"{}"
    assert "--model" not in release_error(application).next


def test_another_environment_is_named_too(application: Application) -> None:
    """The command can be copied."""
    application.publish("2")
    spoil_manifest(application)
    error = release_error(application, "other")
    assert "`invoke release --env other --model @1`" in error.next


def test_a_store_that_does_not_answer_is_no_failure_of_a_model(
    released: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version would not be read either."""

    def read(name: str, limit: int) -> bytes:
        raise StoreUnreachable("the model store failed", on=name, next="check the network")

    monkeypatch.setattr(released.store, "read", read)
    assert release_error(released).next == "check the network"


def test_the_stages_of_a_ci_system_name_the_stage_to_run_again(
    released: Application, tmp_path: Path
) -> None:
    """A fetch takes another version, and so does the smoke test after it."""
    records = tmp_path / "records"
    released.publish("2")
    context = released.context()
    commands.build(context, records)
    commands.fetch(context, "", records)
    released.play.wrong[CONTAINER] = "expected 3, got 8"
    with pytest.raises(SmokeFailed) as caught:
        commands.smoke(context, records)
    assert caught.value.next.endswith("; `invoke fetch --model @1` takes model 1 instead")
    released.publish("3")
    released.store.files["models/digits/3/manifest.json"] = b"{}"
    with pytest.raises(ManifestInvalid) as fetched:
        commands.fetch(released.context(), "", records)
    assert fetched.value.next.endswith("; `invoke fetch --model @1` takes model 1 instead")


def test_a_plan_names_the_other_version_as_well(released: Application) -> None:
    """It fails where the release would."""
    released.publish("2")
    spoil_manifest(released)
    with pytest.raises(ManifestInvalid) as caught:
        commands.release(released.context(), "", dry_run=True, json=False)
    assert caught.value.next.endswith(RELEASE)
