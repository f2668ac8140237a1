"""The stages of a release, each by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import pipeline, stages
from tests.fakes.application import Application

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
