"""The versions of a model in a store: found by name, and refused if they are damaged."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.clients.stores.object_store import open_store
from deploy.errors import (
    ManifestInvalid,
    ModelUnknown,
)
from deploy.model.publish import publish_model
from deploy.model.versions import (
    find_latest_version,
    list_versions,
    resolve_version,
)
from tests.fakes.store import MemoryStore


@pytest.mark.parametrize(
    "version",
    ["3", "latest", "../1", "1/../1", "", " ", "a/b", "manifest.json", "\0", "x" * 90],
)
def test_a_version_that_is_not_there_is_refused_with_those_that_are(
    write_model: Callable[..., Path], tmp_path: Path, version: str
) -> None:
    """Whatever was asked for, the answer is a list to choose from; no version is a path out of the store."""
    store = open_store("store", tmp_path)
    publish_model(write_model("1"), store)
    publish_model(write_model("2"), store)
    (tmp_path / "store" / "models" / "tiny" / "latest.json").unlink()
    with pytest.raises(ModelUnknown) as caught:
        resolve_version("tiny", version, store)
    assert caught.value.next.endswith("1, 2")


def test_an_unknown_model_is_refused(store: MemoryStore) -> None:
    """A store that holds no such model says so, and lists nothing."""
    for version in ("latest", "1"):
        with pytest.raises(ModelUnknown, match="the store has no tiny") as caught:
            resolve_version("tiny", version, store)
        assert caught.value.next.endswith("none")
    assert list_versions("tiny", store) == ()
    assert find_latest_version("tiny", store) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"1",
        b"[]",
        b"{}",
        b'{"version": 2}',
        b'{"version": "../x"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_alias_is_refused_by_name(
    write_model: Callable[..., Path], store: MemoryStore, text: bytes
) -> None:
    """An alias leads to a version of this model or is an error; publishing writes it anew."""
    published = publish_model(write_model(), store)
    store.held["models/tiny/latest.json"] = text
    with pytest.raises(ManifestInvalid, match="record of the latest version") as caught:
        resolve_version("tiny", "latest", store)
    assert caught.value.on == "memory/models/tiny/latest.json"
    assert resolve_version("tiny", "1", store) == published
    publish_model(write_model(), store)
    assert resolve_version("tiny", "latest", store) == published


def test_an_alias_of_a_version_that_is_gone_is_said(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """Where somebody deleted the latest version, those that are left are listed."""
    publish_model(write_model("1"), store)
    store.held["models/tiny/latest.json"] = b'{"version": "9"}'
    with pytest.raises(ModelUnknown) as caught:
        resolve_version("tiny", "latest", store)
    assert caught.value.next.endswith("1")


def test_a_manifest_of_another_version_is_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """A manifest that was copied to another place does not become that version."""
    publish_model(write_model("1"), store)
    store.held["models/tiny/2/manifest.json"] = store.held["models/tiny/1/manifest.json"]
    store.held["models/other/1/manifest.json"] = store.held["models/tiny/1/manifest.json"]
    for name, version in (("tiny", "2"), ("other", "1")):
        with pytest.raises(ManifestInvalid, match="is that of tiny@1"):
            resolve_version(name, version, store)


def test_a_manifest_of_100_mb_is_refused_without_reading_it_whole(tmp_path: Path) -> None:
    """Whoever can write to a store cannot fill the memory of its readers."""
    name = tmp_path / "store" / "models" / "tiny" / "1" / "manifest.json"
    name.parent.mkdir(parents=True)
    name.touch()
    os.truncate(name, 100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestInvalid, match="more than 1048576 bytes"):
            resolve_version("tiny", "1", open_store("store", tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_a_damaged_manifest_is_named_when_versions_are_listed(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """Of many versions the one that is wrong is said."""
    publish_model(write_model("1"), store)
    store.held["models/tiny/2/manifest.json"] = b"{}"
    with pytest.raises(ManifestInvalid) as caught:
        list_versions("tiny", store)
    assert caught.value.on == "memory/models/tiny/2/manifest.json"


def test_a_folder_without_a_manifest_is_no_version(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """What somebody else left beside the versions is not one."""
    published = publish_model(write_model("1"), store)
    store.held["models/tiny/notes/readme.txt"] = b""
    assert list_versions("tiny", store) == (published,)
