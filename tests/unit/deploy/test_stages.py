"""The stages of a release, each by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import pipeline, stages
from deploy.errors import BuildFailed
from deploy.image.tags import app_tag
from deploy.settings.image import DEBIAN
from tests.fakes.application import Application
from tests.fakes.images import digest, make_image

LOCAL = "http://127.0.0.1:8080"
REPOSITORY = "classifier"


def test_images_of_another_machine_are_not_built_again(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With an empty cache, code and model are found in the registry, and the image is the same."""
    before = released.current().attempt.release.image.digest
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    assert released.create_image().digest == before
    assert released.engine.built == []
    assert released.store.streamed == []


def test_an_image_of_another_platform_is_not_used(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A laptop and a CI runner with different processors share a registry."""
    released.engine.registry[DEBIAN] = make_image((b"debian",), platform="linux/arm64")
    monkeypatch.setenv("TWINSHIP_IMAGE__PLATFORM", "linux/arm64")
    foreign = released.create_image()
    repository = released.context().repository
    config = json.loads(repository.cache.read(foreign.config))
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    assert foreign.app.key != released.current().attempt.release.image.app.key
    built = [tag for tag, _ in released.engine.built]
    assert built == [f"twinship/classifier:app-{foreign.app.key}"]


def test_an_image_that_names_another_platform_than_its_key_is_built_again(
    released: Application,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another version of this suite may have pushed it; a warning has both platforms."""
    before = released.current().attempt.release.image
    shelf = released.registry.manifests[REPOSITORY]
    manifest = json.loads(shelf[app_tag(before.app.key)])
    blobs = released.registry.blobs[REPOSITORY]
    config = json.loads(blobs[manifest["config"]["digest"]]) | {"architecture": "arm64"}
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": digest(data), "size": len(data)}
    blobs[digest(data)] = data
    shelf[app_tag(before.app.key)] = json.dumps(manifest).encode()
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    assert released.create_image() == before
    assert len(released.engine.built) == 1
    assert "is for linux/arm64, not for linux/amd64" in caplog.text


def test_an_engine_that_cannot_run_the_platform_says_so(
    released: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names both processors and the cure, and has the builder's last lines."""
    released.engine.registry[DEBIAN] = make_image((b"debian",), platform="linux/arm64")
    released.write("Dockerfile", "ARG BASE\nFROM ${BASE}\nRUN true\nCOPY app /app\n")
    monkeypatch.setenv("TWINSHIP_IMAGE__PLATFORM", "linux/arm64")
    with pytest.raises(BuildFailed, match=r"linux/amd64.*linux/arm64") as caught:
        released.create_image()
    assert "emulation" in caught.value.next
    assert "exec format error" in caught.value.detail


def test_single_stages_make_the_same_image(released: Application) -> None:
    """A CI system that runs the stages one by one releases the same image as a laptop."""
    context = released.context()
    joined = released.create_image(version="1")
    assert pipeline.check(context, joined).passed
    release = pipeline.push(context, joined)
    done = stages.deploy(release, context.prepare_target(), context.repository, released.play)
    first, second = (rollout.attempt.release for rollout in released.target().history())
    assert first == second == done.attempt.release
    assert released.verify().passed


def test_another_environment_with_the_same_registry_mounts_blobs(released: Application) -> None:
    """Only JSON is sent twice to one registry."""
    joined = released.current().attempt.release.image
    pushed = pipeline.push(released.context("other"), joined)
    assert pushed.reference == f"registry.example/other/classifier@{joined.digest}"
    assert released.registry.uploaded == []
    assert len(released.registry.mounted) >= 3


def test_golden_cases_are_read_from_the_registry_if_not_cached(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are at the head of the model's layer."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    assert released.verify().passed
    assert released.play.played == [(LOCAL, ("three",))]


def test_an_inspection_of_a_cluster_needs_no_engine(staged: Application) -> None:
    """History and golden cases are read; nothing is started or written."""
    staged.machine.running = False
    assert staged.verify("staging").passed
    assert staged.current("staging").attempt.id == 1
    assert (staged.machine.actions, staged.cluster_writes) == ([], [])
