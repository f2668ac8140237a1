"""Two releases side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy import pipeline
from deploy.cache import Cache
from deploy.comparison import Comparison, compare
from deploy.model.publish import publish_model
from deploy.records import Rollout
from tests.fakes.application import Application
from tests.fakes.source import commit_all, git

pytestmark = pytest.mark.usefixtures("git_identity")


@pytest.fixture
def versioned(application: Application) -> Application:
    """Return an application in a repository, released twice: with other code and another model."""
    git(application.folder, "init", "--quiet")
    commit_all(application.folder, "first")
    pipeline.release(application.context())
    describe(application, "2", accuracy=0.93)
    application.write("app/main.py", "print('two')\n")
    commit_all(application.folder, "Print two")
    pipeline.release(application.context())
    return application


def describe(application: Application, version: str, accuracy: float) -> None:
    """Publish a version with metrics, and with another expectation."""
    template = application.folder / "models" / "1" / "model.toml"
    text = template.read_text(encoding="utf-8")
    described = f'[metadata]\nlicence = "MIT"\nmetrics = {{ accuracy = {accuracy} }}\n'
    expected = "expect = { json = [{ at = '/score', near = 3.0, tolerance = 0.1 }] }"
    application.publish(version)
    folder = application.folder / "models" / version
    # Versions never change, so the described one takes the number after it.
    text = text.replace('"1"', f'"{version}b"').replace("expect = {}", expected)
    (folder / "model.toml").write_text(f"{text}\n{described}", encoding="utf-8")
    publish_model(folder, application.store)


def compared(application: Application, folder: Path | None = None) -> Comparison:
    """Return the comparison of the first two releases."""
    first, second, *_ = history(application)
    context = application.context()
    where = folder or context.directory
    return compare(first, second, where, context.settings, context.repository)


def history(application: Application) -> tuple[Rollout, ...]:
    """Return all attempts."""
    return application.target().history()


def values(found: Comparison) -> dict[str, tuple[str, str]]:
    """Return the values of both releases by what they are."""
    return {item.what: (item.first, item.second) for item in found.values}


def test_commits_files_and_models_are_compared(versioned: Application) -> None:
    """From git, the history and the registry."""
    found = compared(versioned)
    assert [line.partition(" ")[2] for line in found.added] == ["Print two"]
    assert found.files == {"app/main.py": "M"}
    shown = values(found)
    assert shown["model"] == ("digits@1", "digits@2b")
    assert shown["metadata.metrics.accuracy"] == ("", "0.93")
    assert shown["metadata.licence"] == ("", "MIT")
    assert shown["golden three"] == ("status 200", "/score 3.0 ± 0.1")
    assert shown["image"] == tuple(item.attempt.release.image.digest for item in history(versioned))
    assert all(own.startswith("2, ") for own in shown["layers of its own"])
    assert found.unknown == ()


def test_a_release_is_the_same_as_itself(versioned: Application) -> None:
    """Nothing differs."""
    first, *_ = history(versioned)
    context = versioned.context()
    found = compare(first, first, context.directory, context.settings, context.repository)
    assert all(item.is_same for item in found.values)
    assert (found.added, found.removed, found.files) == ((), (), {})


def test_a_clone_without_the_commits_says_so(
    versioned: Application, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The rest is known all the same."""
    found = compared(versioned, tmp_path_factory.mktemp("elsewhere"))
    assert len(found.unknown) == 2
    assert found.unknown[0].startswith("the code of release 1: the repository here has no commit")
    assert values(found)["model"] == ("digits@1", "digits@2b")


def test_a_registry_that_is_away_leaves_the_history_and_git(
    versioned: Application, tmp_path: Path
) -> None:
    """What it alone has is said to be unknown."""
    context = versioned.context()
    empty = Cache(tmp_path / "empty")
    away = replace(context.repository, cache=empty, is_up=lambda: False)
    first, second = history(versioned)
    found = compare(first, second, context.directory, context.settings, away)
    assert [line.partition(":")[0] for line in found.unknown] == [
        "layers, metrics and golden cases of release 1",
        "layers, metrics and golden cases of release 2",
    ]
    assert values(found)["model"] == ("digits@1", "digits@2b")
    assert found.files == {"app/main.py": "M"}


def test_an_image_that_the_registry_no_longer_has_is_not_known(
    versioned: Application, tmp_path: Path
) -> None:
    """Its model may still be there."""
    first, second = history(versioned)
    del versioned.registry.manifests["classifier"][first.attempt.release.image.digest]
    context = versioned.context()
    repository = replace(context.repository, cache=Cache(tmp_path / "empty"))
    found = compare(first, second, context.directory, context.settings, repository)
    assert found.unknown == ("size and layers of release 1: its image is not in the registry",)
    assert values(found)["image size"][0] == ""
    assert values(found)["golden three"] == ("status 200", "/score 3.0 ± 0.1")


def test_a_release_of_another_repository_is_not_asked_for(versioned: Application) -> None:
    """Its host must not get the login of this one."""
    first, second = history(versioned)
    theirs = first.attempt.release.model_copy(update={"repository": "evil.example/classifier"})
    foreign = first.model_copy(
        update={"attempt": first.attempt.model_copy(update={"release": theirs})}
    )
    context = versioned.context()
    found = compare(foreign, second, context.directory, context.settings, context.repository)
    assert "another repository" in found.unknown[0]


def test_files_that_differed_from_their_commit_are_not_known(
    application: Application,
) -> None:
    """A release of them is marked as dirty."""
    git(application.folder, "init", "--quiet")
    commit_all(application.folder, "first")
    pipeline.release(application.context())
    application.write("app/main.py", "print('edited')\n")
    pipeline.release(application.context())
    (unknown,) = compared(application).unknown
    assert unknown.startswith("in what the files of release 2 differed from commit ")
