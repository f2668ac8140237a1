"""Published models: a version has all its files or does not exist, and it never changes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from deploy import progress
from deploy.cache import Cache
from deploy.clients.stores.protocol import open_store
from deploy.errors import (
    FileTampered,
    FormatMismatch,
    ManifestInvalid,
    VersionExists,
)
from deploy.model.fetch import fetch_layer
from deploy.model.manifest import MAX_MANIFEST_BYTES
from deploy.model.publish import publish_model
from deploy.model.versions import (
    find_latest_version,
    list_versions,
    resolve_version,
)
from deploy.records import Model
from tests.fakes.display import CountingDisplay
from tests.fakes.models import LFS_POINTER, WEIGHTS, blob_path
from tests.fakes.store import MemoryStore

PROJECT = Path(__file__).parents[4]
MOUNT = "/model"


def test_a_directory_is_published_as_a_version_and_as_the_latest(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """Files have their digests as names, and the model manifest refers to them."""
    published = publish_model(write_model(), store)
    assert str(published) == "tiny@1"
    assert set(store.files) == {
        blob_path(WEIGHTS),
        blob_path(b"one\n"),
        blob_path(b'{"input": []}'),
        "models/tiny/1/manifest.json",
        "models/tiny/latest.json",
    }
    assert (
        published.digest
        == f"sha256:{hashlib.sha256(store.files['models/tiny/1/manifest.json']).hexdigest()}"
    )
    assert (
        resolve_version("tiny", "1", store)
        == resolve_version("tiny", "latest", store)
        == published
        == list_versions("tiny", store)[0]
    )


def test_the_manifest_is_stored_after_the_files_and_the_latest_version_last(
    write_model: Callable[..., Path],
) -> None:
    """A reader who sees a version finds all of its files."""
    order: list[str] = []

    class Ordered(MemoryStore):
        def upload(self, name: str, file: BinaryIO) -> None:
            order.append("file")
            super().upload(name, file)

        def create(self, name: str, data: bytes) -> bool:
            order.append("manifest")
            return super().create(name, data)

        def replace(self, name: str, data: bytes) -> None:
            order.append("alias")
            super().replace(name, data)

    publish_model(write_model(), Ordered())
    assert order == ["file", "file", "file", "manifest", "alias"]


def test_publishing_the_same_files_again_changes_nothing(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The digest depends on names and bytes only, and not on the folder, the time or the order."""
    first = publish_model(write_model(), store)
    stored = dict(store.files)
    assert publish_model(write_model(), store) == first
    assert store.files == stored


def test_publishing_the_same_files_again_repairs_the_store(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """Blobs that are damaged or missing are stored again."""
    published = publish_model(write_model(), store)
    store.files[blob_path(WEIGHTS)] = b"damaged"
    del store.files[blob_path(b"one\n")]
    assert publish_model(write_model(), store) == published
    assert store.files[blob_path(WEIGHTS)] == WEIGHTS
    assert store.files[blob_path(b"one\n")] == b"one\n"


def test_the_version_that_was_published_last_is_the_latest(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """Each publication changes the latest version, and older versions stay."""
    first, second = (
        publish_model(write_model(version, labels=version.encode()), store)
        for version in ("1", "2")
    )
    assert resolve_version("tiny", "latest", store) == second
    assert list_versions("tiny", store) == (first, second)


def test_other_bytes_under_a_version_are_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The error has both digests, and the store does not change."""
    published = publish_model(write_model(), store)
    stored = dict(store.files)
    with pytest.raises(VersionExists, match="tiny 1 is published already") as caught:
        publish_model(write_model(labels=b"two\n"), store)
    assert published.digest in caught.value.detail
    assert caught.value.on == "memory/models/tiny/1/manifest.json"
    assert store.files == stored


@pytest.mark.parametrize("same", [True, False])
def test_two_publications_at_once_make_one_version(
    write_model: Callable[..., Path], cache: Cache, same: bool
) -> None:
    """With the same bytes both succeed; with other bytes one does, and its version is complete."""
    both = threading.Barrier(2)

    class Meeting(MemoryStore):
        def create(self, name: str, data: bytes) -> bool:
            both.wait(30)
            return super().create(name, data)

    store = Meeting()
    results = list[object]()

    def publish(directory: Path) -> None:
        try:
            results.append(publish_model(directory, store))
        except VersionExists as error:
            results.append(error)

    authors = [write_model(labels=labels) for labels in (b"one\n", b"one\n" if same else b"two\n")]
    threads = [threading.Thread(target=publish, args=(author,)) for author in authors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = [answer for answer in results if isinstance(answer, Model)]
    refused = [answer for answer in results if isinstance(answer, VersionExists)]
    assert (len(published), len(refused)) == ((2, 0) if same else (1, 1))
    assert list_versions("tiny", store) == (published[0],)
    assert (
        fetch_layer(resolve_version("tiny", "latest", store), store, cache, MOUNT).model
        == published[0]
    )


def test_a_file_that_changes_during_the_publication_is_not_published(
    write_model: Callable[..., Path],
) -> None:
    """The published bytes are those whose digest is in the model manifest."""
    directory = write_model()

    class Late(MemoryStore):
        def upload(self, name: str, file: BinaryIO) -> None:
            (directory / "model.onnx").write_bytes(WEIGHTS + b"more")
            super().upload(name, file)

    store = Late()
    with pytest.raises(FileTampered, match="changed during the publication") as caught:
        publish_model(directory, store)
    assert caught.value.on == str(directory / "model.onnx")
    assert list_versions("tiny", store) == ()
    assert find_latest_version("tiny", store) is None


@pytest.mark.parametrize("name", ["labels.txt", "extra", "model.toml", "golden"])
def test_links_are_refused(write_model: Callable[..., Path], store: MemoryStore, name: str) -> None:
    """A link to a file or a folder is not part of a model."""
    directory = write_model()
    target = directory / name
    if target.exists():
        shutil.move(target, directory.parent / "moved")
    target.symlink_to(
        directory.parent / "moved" if (directory.parent / "moved").exists() else "/etc/passwd"
    )
    with pytest.raises(ManifestInvalid, match="plain files and folders") as caught:
        publish_model(directory, store)
    assert caught.value.on == str(target)
    assert store.files == {}


def test_a_pipe_is_refused(write_model: Callable[..., Path], store: MemoryStore) -> None:
    """Reading from a pipe may wait forever."""
    directory = write_model()
    os.mkfifo(directory / "pipe")
    with pytest.raises(ManifestInvalid, match="plain files and folders"):
        publish_model(directory, store)


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        (b"\x80\x04\x95", "a pickle"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"hello", "something else"),
        (b"", "something else"),
        (b"\x89HDF", "something else"),
    ],
)
def test_weights_of_another_format_are_refused(
    write_model: Callable[..., Path], store: MemoryStore, weights: bytes, kind: str
) -> None:
    """A pickle runs code when it is loaded, so that none may be published."""
    with pytest.raises(
        FormatMismatch, match=f"the model manifest says onnx, the file is {kind}"
    ) as caught:
        publish_model(write_model(weights=weights), store)
    assert "model.onnx of tiny@1" in caught.value.on
    assert store.files == {}


@pytest.mark.parametrize(
    ("format", "weights"),
    [
        ("safetensors", b"\x80\x00\x00\x00\x00\x00\x00\x00{}"),
        ("gguf", b"GGUF\x03"),
        ("onnx", b"\x08\x08"),
    ],
)
def test_the_format_of_weights_is_recognized_by_their_first_bytes(
    write_model: Callable[..., Path],
    store: MemoryStore,
    format: str,  # noqa: A002 - the key of a manifest
    weights: bytes,
) -> None:
    """Weights of one format are refused as weights of the other formats."""
    directory = write_model(weights=weights)
    description = directory / "model.toml"
    text = description.read_text(encoding="utf-8")
    for other in {"onnx", "safetensors", "gguf"} - {format}:
        description.write_text(
            text.replace('format = "onnx"', f'format = "{other}"'), encoding="utf-8"
        )
        with pytest.raises(FormatMismatch):
            publish_model(directory, store)
    description.write_text(
        text.replace('format = "onnx"', f'format = "{format}"'), encoding="utf-8"
    )
    assert publish_model(directory, store).name == "tiny"


@pytest.mark.parametrize("data", [pickle.dumps({"a": 1}), LFS_POINTER])
def test_every_file_is_looked_at(
    write_model: Callable[..., Path], store: MemoryStore, data: bytes
) -> None:
    """Neither a pickle beside the weights nor a pointer of Git LFS is published."""
    directory = write_model()
    (directory / "extra").mkdir()
    (directory / "extra" / "more.bin").write_bytes(data)
    with pytest.raises(FormatMismatch) as caught:
        publish_model(directory, store)
    assert caught.value.on == "extra/more.bin of tiny@1"
    assert store.files == {}


def change_description(directory: Path, old: str, new: str) -> None:
    """Change a part of a description."""
    path = directory / "model.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_hidden_files_are_published_only_if_they_are_included(
    write_model: Callable[..., Path], store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is published and what is left out; a version is published for ever."""
    caplog.set_level(logging.INFO)
    directory = write_model()
    (directory / ".env").write_text("PASSWORD=hunter2")
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("token")
    (directory / ".vocabulary").write_text("one two")
    change_description(directory, 'version = "1"', 'version = "1"\ninclude = [".vocabulary"]')
    publish_model(directory, store)
    found = json.loads(store.files["models/tiny/1/manifest.json"])
    assert [file["path"] for file in found["files"]] == [
        ".vocabulary",
        "golden/one.json",
        "labels.txt",
        "model.onnx",
    ]
    assert "include" not in found
    assert any(line.endswith(": .env, .git/") for line in caplog.messages)
    assert "model  tiny@1, 4 files, 2.1 kB" in caplog.messages


def test_an_included_file_that_is_missing_is_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """A mistyped name must not leave a file out."""
    directory = write_model()
    change_description(directory, 'version = "1"', 'version = "1"\ninclude = [".vocabulary/"]')
    with pytest.raises(ManifestInvalid, match=r"names '\.vocabulary', which is not there"):
        publish_model(directory, store)
    assert store.files == {}


def test_hidden_weights_are_published(write_model: Callable[..., Path], store: MemoryStore) -> None:
    """The description names them already."""
    directory = write_model()
    (directory / "model.onnx").rename(directory / ".model.onnx")
    change_description(directory, '"model.onnx"', '".model.onnx"')
    publish_model(directory, store)
    assert blob_path(WEIGHTS) in store.files


def test_a_model_of_another_name_is_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """A release of the application would not find it."""
    directory = write_model()
    with pytest.raises(ManifestInvalid, match="named 'tiny', and this application serves 'small'"):
        publish_model(directory, store, name="small")
    assert store.files == {}
    assert publish_model(directory, store, name="tiny").name == "tiny"


def test_more_files_than_can_be_listed_are_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """What is published can be read again: the limits of both are the same."""
    directory = write_model()
    folder = directory / ("x" * 170)
    folder.mkdir()
    for number in range(9990):
        (folder / f"params.{number:05}").write_bytes(b"1")
    published = publish_model(directory, store)
    assert resolve_version("tiny", "1", store) == published
    for number in range(20):
        (folder / f"more.{number:05}").write_bytes(b"1")
    change_description(directory, 'version = "1"', 'version = "2"')
    with pytest.raises(ManifestInvalid, match="1 problem"):
        publish_model(directory, store)
    assert list_versions("tiny", store) == (published,)


def test_a_manifest_that_could_not_be_read_is_not_published(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The paths of files count by their bytes."""
    directory = write_model()
    folder = directory / ("模" * 80) / ("型" * 80)
    folder.mkdir(parents=True)
    for number in range(9000):
        (folder / f"params.{number:05}").write_bytes(b"1")
    with pytest.raises(ManifestInvalid) as caught:
        publish_model(directory, store)
    assert f"at most {MAX_MANIFEST_BYTES} can be read" in caught.value.detail
    assert store.files == {}


@pytest.mark.parametrize("missing", ["model.toml", "model.onnx", "labels.txt", "golden/one.json"])
def test_a_directory_that_lacks_a_file_is_refused(
    write_model: Callable[..., Path], store: MemoryStore, missing: str
) -> None:
    """All files that the description names must exist; nothing is stored before this check."""
    directory = write_model()
    (directory / missing).unlink()
    with pytest.raises(ManifestInvalid) as caught:
        publish_model(directory, store)
    assert missing in str(caught.value)
    assert store.files == {}


def test_a_file_with_a_reserved_name_is_refused(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """A file must not be taken for the model manifest, nor delete other files of a layer."""
    for name in ("manifest.json", ".wh.model.onnx"):
        directory = write_model()
        (directory / name).write_bytes(b"{}")
        change_description(directory, 'version = "1"', f'version = "1"\ninclude = ["{name}"]')
        with pytest.raises(ManifestInvalid) as caught:
            publish_model(directory, store)
        assert caught.value.on == str(directory / name)


def test_a_description_of_100_mb_is_not_read_to_its_end(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The size of a description is limited before it takes memory."""
    directory = write_model()
    os.truncate(directory / "model.toml", 100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestInvalid, match="more than 1048576 bytes"):
            publish_model(directory, store)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_bytes_are_counted_as_they_are_published(
    write_model: Callable[..., Path], store: MemoryStore
) -> None:
    """The display shows the progress of all files together, of which there may be thousands."""
    display = CountingDisplay()
    with progress.use_display(display):
        publish_model(write_model(), store)
    assert display.counts == {"publishing tiny@1": (2067, 2067)}


KILLED = """
import os, signal, sys
from pathlib import Path
from deploy.model.publish import publish_model
from deploy.clients.stores.protocol import ObjectStore, open_store

moment, place = sys.argv[3].split()
count = 0

def die(now):
    if now == place and moment == str(count):
        os.kill(os.getpid(), signal.SIGKILL)

class Reads:
    def __init__(self, file):
        self.file = file
    def read(self, size=-1):
        data = self.file.read(size)
        if len(data) == 0:
            die("in")
        return data
    def __getattr__(self, name):
        return getattr(self.file, name)

def deadly(method):
    def call(self, name, data):
        global count
        count += 1
        die("before")
        answer = method(self, name, Reads(data) if hasattr(data, "read") else data)
        die("after")
        return answer
    return call

for name in ("upload", "create", "replace"):
    setattr(ObjectStore, name, deadly(getattr(ObjectStore, name)))
publish_model(Path(sys.argv[1]), open_store(sys.argv[2], Path()))
"""


@pytest.mark.parametrize(
    "moment",
    [
        "1 before",
        "1 in",
        "1 after",
        "2 after",
        "3 in",
        "3 after",
        "4 before",
        "4 after",
        "5 before",
        "5 after",
    ],
)
def test_a_publication_that_is_killed_leaves_a_valid_store(
    write_model: Callable[..., Path], tmp_path: Path, cache: Cache, moment: str
) -> None:
    """The new version is complete or absent, and publishing again completes it."""
    folder = tmp_path / "store"
    first = publish_model(write_model("1"), open_store(str(folder), tmp_path))
    second = write_model("2", weights=WEIGHTS * 4000, labels=b"two\n")
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(second), str(folder), moment], cwd=PROJECT, check=False
    )
    assert process.returncode == -signal.SIGKILL
    store = open_store(str(folder), tmp_path)
    is_there = moment in ("4 after", "5 before", "5 after")
    is_latest = moment == "5 after"
    found = list_versions("tiny", store)
    assert [item.version for item in found] == (["1", "2"] if is_there else ["1"])
    assert resolve_version("tiny", "latest", store).version == ("2" if is_latest else "1")
    whole = [item for item in found if isinstance(item, Model)]
    assert [fetch_layer(item, store, cache, MOUNT).model for item in whole] == list(found)
    again = publish_model(second, store)
    assert list_versions("tiny", store) == (first, again)
    assert resolve_version("tiny", "latest", store) == again
    assert fetch_layer(again, store, cache, MOUNT).model == again
