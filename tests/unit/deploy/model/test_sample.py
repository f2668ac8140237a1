"""The sample model, which fills an empty store."""

from __future__ import annotations

import sys

import pytest

from deploy.errors import ManifestInvalid, ModelUnknown, SampleUnavailable, SettingsInvalid
from deploy.model import sample
from deploy.model.versions import find_latest_version
from deploy.records import Model
from deploy.settings.image import DEBIAN
from tests.fakes.application import MODEL, PIPELINE, Application

SAMPLE = f"""\
from pathlib import Path

MODEL = {MODEL!r}


def write(version: str, folder: Path) -> None:
    if version not in ("1", "2"):
        raise ValueError(f"there is no version {{version}}")
    (folder / "golden").mkdir()
    (folder / "golden" / "three.json").write_text("{{}}")
    (folder / "labels.txt").write_text("three")
    (folder / "model.onnx").write_bytes(b"\\x08" + version.encode())
    (folder / "model.toml").write_text(MODEL.format(version=version))
"""


@pytest.fixture
def sampled(application: Application, monkeypatch: pytest.MonkeyPatch) -> Application:
    """Return an application with a sample model in a module of its own, and an empty store."""
    application.store.files.clear()
    name = f"sample_{application.folder.name}"
    application.write(
        "pipeline.toml", PIPELINE.format(base=DEBIAN, sample=f'sample = "{name}:write"')
    )
    application.write(f"{name}.py", SAMPLE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return application


def resolve(application: Application, version: str) -> Model:
    """Resolve a version of the application's model."""
    source = application.context().settings.model
    return sample.resolve(source, version, application.store, application.folder)


def publish(application: Application, version: str) -> Model:
    """Publish a version of the application's sample."""
    source = application.context().settings.model
    return sample.publish(source, version, application.store, application.folder)


def test_an_empty_store_gets_the_samples_first_version(sampled: Application) -> None:
    """A first release then needs no model."""
    found = resolve(sampled, "latest")
    assert (found.name, found.version) == ("digits", "1")
    assert find_latest_version("digits", sampled.store) == "1"


def test_the_samples_second_version_is_published_on_request(sampled: Application) -> None:
    """It becomes the latest version."""
    resolve(sampled, "latest")
    publish(sampled, "2")
    assert resolve(sampled, "latest").version == "2"


def test_a_store_with_models_gets_no_sample(sampled: Application) -> None:
    """An unknown version is an error if the store is not empty."""
    sampled.publish("7")
    before = dict(sampled.store.files)
    with pytest.raises(ModelUnknown):
        resolve(sampled, "1")
    assert sampled.store.files == before


@pytest.mark.parametrize("version", ["2", "3"])
def test_only_the_first_version_is_published_by_itself(sampled: Application, version: str) -> None:
    """A request for another version of an empty store is an error."""
    with pytest.raises(ModelUnknown):
        resolve(sampled, version)
    assert sampled.store.files == {}


def test_a_sample_that_cannot_be_made_is_an_error(sampled: Application) -> None:
    """The detail has the message of its function, and nothing is published."""
    with pytest.raises(SampleUnavailable, match="could not be made") as caught:
        publish(sampled, "3")
    assert "there is no version 3" in caught.value.detail
    assert sampled.store.files == {}


def test_an_application_without_a_sample_says_how_to_publish(application: Application) -> None:
    """Its empty store stays empty."""
    application.store.files.clear()
    with pytest.raises(ModelUnknown):
        resolve(application, "latest")
    with pytest.raises(SampleUnavailable) as caught:
        publish(application, "1")
    assert "model.publish" in caught.value.next


@pytest.mark.parametrize(
    "named",
    [
        "nowhere:write",
        "json:absent",
        "os:system",
        "os.path:join",
        "sys:exit",
        "os:rename",
        "builtins:print",
        "__main__:write",
        "own:absent",
        "own:TEXT",
        "own:alone",
        "own.deeper:write",
    ],
)
def test_a_sample_that_is_no_function_of_the_application_is_an_error_in_the_settings(
    application: Application, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """A function of another module is not called: it may do anything with a path."""
    own = f"own_{application.folder.name}"
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.chdir(application.folder)
    application.write(f"{own}.py", "TEXT = 'a'\n\n\ndef alone():\n    raise SystemExit\n")
    sample_key = f'sample = "{named.replace("own", own)}"'
    application.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=sample_key))
    with pytest.raises(SettingsInvalid) as caught:
        publish(application, "1")
    assert caught.value.on == "[model] sample"
    assert "module:function" in caught.value.next


def test_a_sample_of_another_name_is_refused(sampled: Application) -> None:
    """A release would not find it, and would publish it again."""
    path = sampled.folder / "pipeline.toml"
    text = path.read_text(encoding="utf-8").replace('name = "digits"', 'name = "letters"')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestInvalid, match="named 'digits'"):
        resolve(sampled, "latest")
    assert sampled.store.files == {}


def test_a_sample_that_fails_in_any_way_is_an_error_with_its_reason(sampled: Application) -> None:
    """Its function is the application's."""
    name = f"failing_{sampled.folder.name}"
    sampled.write(f"{name}.py", "def write(version, folder):\n    return {}[version]\n")
    sampled.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=f'sample = "{name}:write"'))
    with pytest.raises(SampleUnavailable) as caught:
        publish(sampled, "1")
    assert caught.value.detail == "  KeyError: '1'"


@pytest.mark.parametrize("named", ["json", ":write", "..sample:write", "a..b:c", "a:b:c"])
def test_a_sample_that_names_no_function_is_refused_with_its_key(
    application: Application, named: str
) -> None:
    """Before anything runs."""
    application.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=f'sample = "{named}"'))
    with pytest.raises(SettingsInvalid) as caught:
        publish(application, "1")
    assert "model.sample: should match the pattern" in caught.value.detail
