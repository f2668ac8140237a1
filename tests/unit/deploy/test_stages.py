"""The stages of a release, each by itself."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePosixPath

import pytest

from deploy import pipeline, progress, stages
from deploy.cache import Cache
from deploy.errors import BuildFailed, FileTampered
from deploy.image import layer
from deploy.image.join import create_model_image
from deploy.image.manifest import parse_image_manifest
from deploy.image.tags import app_tag, model_tag
from deploy.records import ModelLayer
from deploy.settings.image import DEBIAN
from tests.fakes.application import Application
from tests.fakes.display import CountingDisplay
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


def push_other_layer(application: Application) -> ModelLayer:
    """Push a layer with one more file under the tag of the model; return its record."""
    own = application.current().attempt.release.image.layer
    registry = application.registry
    packed = io.BytesIO()
    pushed = io.BytesIO(registry.blobs[REPOSITORY][own.digest])
    files = {path: content.read() for path, content in layer.read_layer(pushed)}
    files[PurePosixPath("app/main.py")] = b"print('theirs')"
    layer.write_layer(
        (layer.Entry(path, len(data), [data]) for path, data in files.items()), packed
    )
    cache = Cache(application.folder / "theirs")
    theirs = ModelLayer(model=own.model, digest=cache.put(packed.getvalue()), size=packed.tell())
    image = create_model_image(theirs, "/model", cache)
    manifest = cache.read(image.digest)
    config = parse_image_manifest(manifest).config.digest
    registry.blobs[REPOSITORY] |= {item: cache.read(item) for item in (theirs.digest, config)}
    registry.put_manifest(REPOSITORY, model_tag(own.model), manifest)
    return theirs


def test_a_layer_of_the_registry_with_anything_else_is_not_run(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not in a second run either; without its tag the model is fetched from the store."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    theirs = push_other_layer(released)
    released.write("app/main.py", "print('two')\n")
    released.clear_records()
    for _ in range(2):
        with pytest.raises(FileTampered, match="not the published model") as caught:
            pipeline.release(released.context())
        assert caught.value.on == theirs.digest
    assert (released.engine.loaded, released.containers.images) == ([], [])
    assert released.registry.stored_references == []
    assert not Cache(tmp_path / "fresh").has(theirs.digest, theirs.size)
    released.registry.manifests[REPOSITORY].pop(model_tag(theirs.model))
    assert pipeline.release(released.context()).changed


def is_layer_checked(application: Application) -> bool:
    """Run the smoke test; return whether the layer of the model was read and checked for it."""
    display = CountingDisplay()
    with progress.use_display(display):
        pipeline.check(application.context(), application.create_image())
    return "checking digits@1" in display.counts


def test_a_layer_of_the_registry_is_checked_once(
    released: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A layer that this machine wrote is not read for that at all."""
    assert not is_layer_checked(released)
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    assert is_layer_checked(released)
    assert not is_layer_checked(released)


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
