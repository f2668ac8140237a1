"""The versions of a model in a store: found by name, and refused if they are damaged."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.clients.stores.protocol import open_store
from deploy.errors import (
    ManifestInvalid,
    ModelUnknown,
)
from deploy.model.publish import publish_model
from deploy.model.versions import (
    BrokenVersion,
    find_latest_version,
    find_other_version,
    list_versions,
    resolve_version,
)
from tests.fakes.store import MemoryStore


@pytest.mark.parametrize(
    "version",
    ["3", "latest", "../1", "1/../1", "", " ", "a/b", "manifest.json", "\0", "x" * 90],
)
def test_an_unknown_version_is_refused_with_a_list_of_versions(
    write_model: Callable[..., Path], tmp_path: Path, version: str
) -> None:
    """No version is a path that leaves the store."""
    store = open_store("store", tmp_path)
    publish_model(write_model("1"), store)
    publish_model(write_model("2"), store)
    (tmp_path / "store" / "models" / "tiny" / "latest.json").unlink()
    with pytest.raises(ModelUnknown) as caught:
        resolve_version("tiny", version, store)
    assert caught.value.next.endswith("1, 2")


def test_an_unknown_model_is_refused(store: MemoryStore) -> None:
    """The error lists no versions, because there are none."""
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
def test_a_damaged_record_of_the_latest_version_is_refused(
    write_model: Callable[..., Path], store: MemoryStore, text: bytes
) -> None:
    """Other versions can still be resolved, and publishing a version repairs the record."""
    published = publish_model(write_model(), store)
    store.files["models/tiny/latest.json"] = text
    with pytest.raises(ManifestInvalid, match="record of the latest version") as caught:
        resolve_version("tiny", "latest", store)
    assert caught.value.on == "memory/models/tiny/latest.json"
    assert resolve_version("tiny", "1", store) == published
    publish_model(write_model(), store)
    assert resolve_version("tiny", "latest", store) == published


def test_a_latest_version_that_was_deleted_is_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The error lists the versions that are left."""
    publish_model(write_model("1"), store)
    store.files["models/tiny/latest.json"] = b'{"version": "9"}'
    with pytest.raises(ModelUnknown) as caught:
        resolve_version("tiny", "latest", store)
    assert caught.value.next.endswith("1")


def test_a_model_manifest_of_another_version_is_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """A model manifest that was copied to another path does not become that version."""
    publish_model(write_model("1"), store)
    store.files["models/tiny/2/manifest.json"] = store.files["models/tiny/1/manifest.json"]
    store.files["models/other/1/manifest.json"] = store.files["models/tiny/1/manifest.json"]
    for name, version in (("tiny", "2"), ("other", "1")):
        with pytest.raises(ManifestInvalid, match="is that of tiny@1"):
            resolve_version(name, version, store)


def test_a_model_manifest_of_100_mb_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A large file in the store does not fill the memory of its readers."""
    name = tmp_path / "store" / "models" / "tiny" / "1" / "manifest.json"
    name.parent.mkdir(parents=True)
    name.touch()
    os.truncate(name, 100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestInvalid, match="more than 4194304 bytes"):
            resolve_version("tiny", "1", open_store("store", tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_a_list_of_versions_shows_the_damaged_ones(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """One bad version hides no other."""
    first = publish_model(write_model("1"), store)
    third = publish_model(write_model("3"), store)
    store.files["models/tiny/2/manifest.json"] = b"{}"
    store.files["models/tiny/4/manifest.json"] = store.files["models/tiny/1/manifest.json"]
    damaged = "the model's description has 7 problems"
    assert list_versions("tiny", store) == (
        first,
        BrokenVersion(name="tiny", version="2", problem=damaged),
        third,
        BrokenVersion(name="tiny", version="4", problem="the model manifest is that of tiny@1"),
    )


def test_a_version_that_may_not_be_read_hides_no_other(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    """A pipe in a folder is one of the things that cannot be read."""
    store = open_store("store", tmp_path)
    published = publish_model(write_model("1"), store)
    pipe = tmp_path / "store" / "models" / "tiny" / "2" / "manifest.json"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    found = list_versions("tiny", store)
    assert found[0] == published
    assert [item.version for item in found] == ["1", "2"]


def test_a_folder_without_a_model_manifest_is_not_a_version(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The store may have other files next to the versions."""
    published = publish_model(write_model("1"), store)
    store.files["models/tiny/notes/readme.txt"] = b""
    assert list_versions("tiny", store) == (published,)


def test_another_version_than_the_failed_one_is_the_last_that_can_be_read(
    write_model: Callable[..., Path], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before it are not read: each is a request to the store."""
    for version in ("1", "2", "4"):
        publish_model(write_model(version), store)
    store.files["models/tiny/3/manifest.json"] = b"{}"
    store.files["models/tiny/notes/readme.txt"] = b""
    names: list[str] = []
    honest = store.read

    def read(name: str, limit: int) -> bytes | None:
        names.append(name)
        return honest(name, limit)

    monkeypatch.setattr(store, "read", read)
    assert find_other_version("tiny", "4", store) == "2"
    assert "models/tiny/3/manifest.json" in names
    assert "models/tiny/1/manifest.json" not in names
    assert "models/tiny/4/manifest.json" not in names


def test_without_another_version_that_can_be_read_there_is_none(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The store may have nothing else, or something that is damaged."""
    publish_model(write_model("1"), store)
    store.files["models/tiny/2/manifest.json"] = b"{}"
    assert find_other_version("tiny", "1", store) == ""
    assert find_other_version("other", "1", store) == ""
