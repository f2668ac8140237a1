"""The model stream: what is published stays as it is, and what is fetched is what was published, or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from deploy import progress
from deploy.cache import Cache
from deploy.clients.stores.protocol import open_store
from deploy.errors import (
    DiskFull,
    FileTampered,
    FormatMismatch,
    ManifestInvalid,
    ModelError,
    ModelUnknown,
    StoreUnreachable,
    VersionExists,
)
from deploy.model import fetch as model
from deploy.model import manifest
from deploy.records import Model
from tests.fakes.store import MemoryStore

PROJECT = Path(__file__).parents[4]
DIGITS = PROJECT / "tests" / "models" / "digits"
MOUNT = "/model"
WEIGHTS = b"\x08\x07" + bytes(range(256)) * 8
DESCRIPTION = """
name = "tiny"
version = "{version}"
format = "onnx"
[interface]
model = "model.onnx"
labels = "labels.txt"
input = {{ shape = [-1] }}
output = {{}}
preprocessing = {{}}
[[golden]]
name = "one"
request = {{ method = "POST", path = "/score", body = "golden/one.json" }}
expect = {{}}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an author's directory; files are given by name, with underscores for dots."""

    def author(version: str = "1", weights: bytes = WEIGHTS, labels: bytes = b"one\n") -> Path:
        directory = tmp_path / f"author-{len(list(tmp_path.glob('author-*')))}"
        (directory / "golden").mkdir(parents=True)
        (directory / "model.toml").write_text(DESCRIPTION.format(version=version), encoding="utf-8")
        (directory / "model.onnx").write_bytes(weights)
        (directory / "labels.txt").write_bytes(labels)
        (directory / "golden" / "one.json").write_bytes(b'{"input": []}')
        return directory

    return author


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore(chunk=700)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


def blob(data: bytes) -> str:
    """Where a store keeps those bytes."""
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def kept(cache: Cache) -> list[str]:
    """Every file of the cache."""
    return sorted(
        str(path.relative_to(cache.root)) for path in cache.root.rglob("*") if path.is_file()
    )


def forged(
    store: MemoryStore, published: Model, change: Callable[[dict[str, object]], object]
) -> Model:
    """Puts a manifest with other values in the place of a published one; returns the model that it describes."""
    name = f"models/{published.name}/{published.version}/manifest.json"
    values = json.loads(store.files[name])
    change(values)
    store.files[name] = (
        json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    ).encode()
    return Model(
        name=published.name,
        version=published.version,
        digest=f"sha256:{hashlib.sha256(store.files[name]).hexdigest()}",
    )


class TestPublish:
    """From an author's directory to a version of the store."""

    def test_a_directory_becomes_a_version_and_the_latest(
        self, write: Write, store: MemoryStore
    ) -> None:
        """Files lie under their digests, the manifest names them, the alias names the version."""
        published = model.publish(write(), store)
        assert str(published) == "tiny@1"
        assert set(store.files) == {
            blob(WEIGHTS),
            blob(b"one\n"),
            blob(b'{"input": []}'),
            "models/tiny/1/manifest.json",
            "models/tiny/latest.json",
        }
        assert (
            published.digest
            == f"sha256:{hashlib.sha256(store.files['models/tiny/1/manifest.json']).hexdigest()}"
        )
        assert (
            model.resolve("tiny", "1", store)
            == model.resolve("tiny", "latest", store)
            == published
            == model.versions("tiny", store)[0]
        )

    def test_the_manifest_comes_after_its_files_and_the_alias_last(self, write: Write) -> None:
        """Whoever sees a version sees all of it."""
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

        model.publish(write(), Ordered())
        assert order == ["file", "file", "file", "manifest", "alias"]

    def test_the_same_again_changes_nothing(self, write: Write, store: MemoryStore) -> None:
        """The digest depends on names and bytes alone, not on the folder, the time or the order on disk."""
        first = model.publish(write(), store)
        before = dict(store.files)
        assert model.publish(write(), store) == first
        assert store.files == before

    def test_the_same_again_mends_what_was_damaged_in_the_store(
        self, write: Write, store: MemoryStore
    ) -> None:
        """Publishing again is the cure for a blob that lost or changed its bytes."""
        published = model.publish(write(), store)
        store.files[blob(WEIGHTS)] = b"damaged"
        del store.files[blob(b"one\n")]
        assert model.publish(write(), store) == published
        assert store.files[blob(WEIGHTS)] == WEIGHTS
        assert store.files[blob(b"one\n")] == b"one\n"

    def test_the_version_published_last_is_the_latest(
        self, write: Write, store: MemoryStore
    ) -> None:
        """The alias moves with each publication, and older versions stay."""
        first, second = (
            model.publish(write(version, labels=version.encode()), store) for version in ("1", "2")
        )
        assert model.resolve("tiny", "latest", store) == second
        assert model.versions("tiny", store) == (first, second)

    def test_other_bytes_under_a_version_are_refused(
        self, write: Write, store: MemoryStore
    ) -> None:
        """A version never changes; both digests are shown, and the store is as it was."""
        published = model.publish(write(), store)
        before = dict(store.files)
        with pytest.raises(VersionExists, match="tiny 1 is published already") as caught:
            model.publish(write(labels=b"two\n"), store)
        assert published.digest in caught.value.detail
        assert caught.value.on == "memory/models/tiny/1/manifest.json"
        assert store.files == before

    @pytest.mark.parametrize("same", [True, False])
    def test_two_who_publish_at_once_make_one_version(
        self, write: Write, cache: Cache, same: bool
    ) -> None:
        """Both find the version free; with the same bytes both succeed, with others one does, and that one's is whole."""
        both = threading.Barrier(2)

        class Meeting(MemoryStore):
            def create(self, name: str, data: bytes) -> bool:
                both.wait(30)
                return super().create(name, data)

        store = Meeting()
        answers = list[object]()

        def publish(directory: Path) -> None:
            try:
                answers.append(model.publish(directory, store))
            except VersionExists as error:
                answers.append(error)

        authors = [write(labels=labels) for labels in (b"one\n", b"one\n" if same else b"two\n")]
        threads = [threading.Thread(target=publish, args=(author,)) for author in authors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        published = [answer for answer in answers if isinstance(answer, Model)]
        refused = [answer for answer in answers if isinstance(answer, VersionExists)]
        assert (len(published), len(refused)) == ((2, 0) if same else (1, 1))
        assert model.versions("tiny", store) == (published[0],)
        assert (
            model.fetch(model.resolve("tiny", "latest", store), store, cache, MOUNT).model
            == published[0]
        )

    def test_a_file_that_changes_meanwhile_is_not_published(self, write: Write) -> None:
        """What was measured is what is published, even where a training still writes."""
        directory = write()

        class Late(MemoryStore):
            def upload(self, name: str, file: BinaryIO) -> None:
                (directory / "model.onnx").write_bytes(WEIGHTS + b"more")
                super().upload(name, file)

        store = Late()
        with pytest.raises(FileTampered, match="changed while it was being published") as caught:
            model.publish(directory, store)
        assert caught.value.on == str(directory / "model.onnx")
        assert model.versions("tiny", store) == ()
        assert model.latest("tiny", store) is None

    @pytest.mark.parametrize("name", ["labels.txt", "extra", "model.toml", "golden"])
    def test_links_are_refused(self, write: Write, store: MemoryStore, name: str) -> None:
        """A link to a file or a folder, wherever it leads, is not part of a model."""
        directory = write()
        target = directory / name
        if target.exists():
            shutil.move(target, directory.parent / "moved")
        target.symlink_to(
            directory.parent / "moved" if (directory.parent / "moved").exists() else "/etc/passwd"
        )
        with pytest.raises(ManifestInvalid, match="made of plain files") as caught:
            model.publish(directory, store)
        assert caught.value.on == str(target)
        assert store.files == {}

    def test_what_is_no_file_is_refused(self, write: Write, store: MemoryStore) -> None:
        """A pipe would be waited for without end."""
        directory = write()
        os.mkfifo(directory / "pipe")
        with pytest.raises(ManifestInvalid, match="made of plain files"):
            model.publish(directory, store)

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
        self, write: Write, store: MemoryStore, weights: bytes, kind: str
    ) -> None:
        """A pickle runs code when it is loaded; it does not get into a store by being called a model."""
        with pytest.raises(
            FormatMismatch, match=f"the manifest says onnx, the file is {kind}"
        ) as caught:
            model.publish(write(weights=weights), store)
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
    def test_weights_are_told_by_how_their_format_begins(
        self,
        write: Write,
        store: MemoryStore,
        format: str,  # noqa: A002
        weights: bytes,
    ) -> None:
        """Each format has its own first bytes, and no other's are taken for them."""
        directory = write(weights=weights)
        described = directory / "model.toml"
        text = described.read_text(encoding="utf-8")
        for other in {"onnx", "safetensors", "gguf"} - {format}:
            described.write_text(
                text.replace('format = "onnx"', f'format = "{other}"'), encoding="utf-8"
            )
            with pytest.raises(FormatMismatch):
                model.publish(directory, store)
        described.write_text(
            text.replace('format = "onnx"', f'format = "{format}"'), encoding="utf-8"
        )
        assert model.publish(directory, store).name == "tiny"

    def test_a_pickle_beside_the_weights_is_a_file_like_others(
        self, write: Write, store: MemoryStore
    ) -> None:
        """Only what the format speaks of must be of that format."""
        model.publish(write(labels=b"\x80\x04"), store)
        assert store.files[blob(b"\x80\x04")] == b"\x80\x04"

    @pytest.mark.parametrize(
        "missing", ["model.toml", "model.onnx", "labels.txt", "golden/one.json"]
    )
    def test_a_directory_that_lacks_a_file_is_refused(
        self, write: Write, store: MemoryStore, missing: str
    ) -> None:
        """What the description speaks of must be there; nothing is stored before that is known."""
        directory = write()
        (directory / missing).unlink()
        with pytest.raises(ManifestInvalid) as caught:
            model.publish(directory, store)
        assert missing in str(caught.value)
        assert store.files == {}

    def test_a_file_whose_name_no_model_may_hold_is_refused(
        self, write: Write, store: MemoryStore
    ) -> None:
        """A file that would be taken for the manifest, or that would delete others in a layer, is named."""
        for name in ("manifest.json", ".wh.model.onnx"):
            directory = write()
            (directory / name).write_bytes(b"{}")
            with pytest.raises(ManifestInvalid) as caught:
                model.publish(directory, store)
            assert caught.value.on == str(directory / name)

    def test_a_description_of_100_mb_is_not_read_whole(
        self, write: Write, store: MemoryStore
    ) -> None:
        """The size of a description is limited before it costs memory."""
        directory = write()
        os.truncate(directory / "model.toml", 100_000_000)
        tracemalloc.start()
        try:
            with pytest.raises(ManifestInvalid, match="more than 1048576 bytes"):
                model.publish(directory, store)
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()

    def test_bytes_are_counted_as_they_are_published(
        self, write: Write, store: MemoryStore
    ) -> None:
        """Whoever waits sees each file go by, byte by byte."""
        seen = Seen()
        with progress.use_display(seen):
            model.publish(write(), store)
        assert seen.counts == {
            "publishing golden/one.json": (13, 13),
            "publishing labels.txt": (4, 4),
            "publishing model.onnx": (2050, 2050),
        }


class Seen(progress.Quiet):
    """Adds up what it is shown: by label, the total announced and the total counted."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[progress.Advance]:
        self.counts[label] = (total, 0)

        def advance(count: int) -> None:
            self.counts[label] = (total, self.counts[label][1] + count)

        yield advance


KILLED = """
import os, signal, sys
from pathlib import Path
from deploy.model import fetch as model
from deploy.clients.stores.object_store import ObjectStore
from deploy.clients.stores.protocol import open_store

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
model.publish(Path(sys.argv[1]), open_store(sys.argv[2], Path()))
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
def test_a_publisher_killed_at_any_moment_leaves_a_store_that_works(
    write: Write, tmp_path: Path, cache: Cache, moment: str
) -> None:
    """The version before is still the latest and whole, the new one is there in full or not at all, and publishing again completes it."""
    folder = tmp_path / "store"
    first = model.publish(write("1"), open_store(str(folder), tmp_path))
    second = write("2", weights=WEIGHTS * 4000, labels=b"two\n")
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(second), str(folder), moment], cwd=PROJECT, check=False
    )
    assert process.returncode == -signal.SIGKILL
    store = open_store(str(folder), tmp_path)
    is_there = moment in ("4 after", "5 before", "5 after")
    is_latest = moment == "5 after"
    found = model.versions("tiny", store)
    assert [item.version for item in found] == (["1", "2"] if is_there else ["1"])
    assert model.resolve("tiny", "latest", store).version == ("2" if is_latest else "1")
    assert [model.fetch(item, store, cache, MOUNT).model for item in found] == list(found)
    again = model.publish(second, store)
    assert model.versions("tiny", store) == (first, again)
    assert model.resolve("tiny", "latest", store) == again
    assert model.fetch(again, store, cache, MOUNT).model == again


class TestResolve:
    """From a name to a digest, once."""

    @pytest.mark.parametrize(
        "version",
        ["3", "latest", "../1", "1/../1", "", " ", "a/b", "manifest.json", "\0", "x" * 90],
    )
    def test_a_version_that_is_not_there_is_refused_with_those_that_are(
        self, write: Write, tmp_path: Path, version: str
    ) -> None:
        """Whatever was asked for, the answer is a list to choose from; no version is a path out of the store."""
        store = open_store("store", tmp_path)
        model.publish(write("1"), store)
        model.publish(write("2"), store)
        (tmp_path / "store" / "models" / "tiny" / "latest.json").unlink()
        with pytest.raises(ModelUnknown) as caught:
            model.resolve("tiny", version, store)
        assert caught.value.next.endswith("1, 2")

    def test_an_unknown_model_is_refused(self, store: MemoryStore) -> None:
        """A store that holds no such model says so, and lists nothing."""
        for version in ("latest", "1"):
            with pytest.raises(ModelUnknown, match="the store has no tiny") as caught:
                model.resolve("tiny", version, store)
            assert caught.value.next.endswith("none")
        assert model.versions("tiny", store) == ()
        assert model.latest("tiny", store) is None

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
        self, write: Write, store: MemoryStore, text: bytes
    ) -> None:
        """An alias leads to a version of this model or is an error; publishing writes it anew."""
        published = model.publish(write(), store)
        store.files["models/tiny/latest.json"] = text
        with pytest.raises(ManifestInvalid, match="alias") as caught:
            model.resolve("tiny", "latest", store)
        assert caught.value.on == "memory/models/tiny/latest.json"
        assert model.resolve("tiny", "1", store) == published
        model.publish(write(), store)
        assert model.resolve("tiny", "latest", store) == published

    def test_an_alias_of_a_version_that_is_gone_is_said(
        self, write: Write, store: MemoryStore
    ) -> None:
        """Where somebody deleted the latest version, those that are left are listed."""
        model.publish(write("1"), store)
        store.files["models/tiny/latest.json"] = b'{"version": "9"}'
        with pytest.raises(ModelUnknown) as caught:
            model.resolve("tiny", "latest", store)
        assert caught.value.next.endswith("1")

    def test_a_manifest_of_another_version_is_refused(
        self, write: Write, store: MemoryStore
    ) -> None:
        """A manifest that was copied to another place does not become that version."""
        model.publish(write("1"), store)
        store.files["models/tiny/2/manifest.json"] = store.files["models/tiny/1/manifest.json"]
        store.files["models/other/1/manifest.json"] = store.files["models/tiny/1/manifest.json"]
        for name, version in (("tiny", "2"), ("other", "1")):
            with pytest.raises(ManifestInvalid, match="calls itself tiny@1"):
                model.resolve(name, version, store)

    def test_a_manifest_of_100_mb_is_refused_without_reading_it_whole(self, tmp_path: Path) -> None:
        """Whoever can write to a store cannot fill the memory of its readers."""
        name = tmp_path / "store" / "models" / "tiny" / "1" / "manifest.json"
        name.parent.mkdir(parents=True)
        name.touch()
        os.truncate(name, 100_000_000)
        tracemalloc.start()
        try:
            with pytest.raises(ManifestInvalid, match="more than 1048576 bytes"):
                model.resolve("tiny", "1", open_store("store", tmp_path))
            assert tracemalloc.get_traced_memory()[1] < 16_000_000
        finally:
            tracemalloc.stop()

    def test_a_damaged_manifest_is_named_when_versions_are_listed(
        self, write: Write, store: MemoryStore
    ) -> None:
        """Of many versions the one that is wrong is said."""
        model.publish(write("1"), store)
        store.files["models/tiny/2/manifest.json"] = b"{}"
        with pytest.raises(ManifestInvalid) as caught:
            model.versions("tiny", store)
        assert caught.value.on == "memory/models/tiny/2/manifest.json"

    def test_a_folder_without_a_manifest_is_no_version(
        self, write: Write, store: MemoryStore
    ) -> None:
        """What somebody else left beside the versions is not one."""
        published = model.publish(write("1"), store)
        store.files["models/tiny/notes/readme.txt"] = b""
        assert model.versions("tiny", store) == (published,)


class TestFetch:
    """From a store to a layer in the cache."""

    def test_the_layer_holds_the_manifest_then_the_golden_requests_then_the_rest(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """What is fetched is what was published, in the order in which it is read."""
        published = model.publish(write(), store)
        fetched = model.fetch(published, store, cache, MOUNT)
        data = cache.read(fetched.digest)
        assert (fetched.model, fetched.size) == (published, len(data))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            files = [(item.name, archive.extractfile(item)) for item in archive if item.isreg()]
            assert [(name, content.read() if content else b"") for name, content in files] == [
                ("model/manifest.json", store.files["models/tiny/1/manifest.json"]),
                ("model/golden/one.json", b'{"input": []}'),
                ("model/labels.txt", b"one\n"),
                ("model/model.onnx", WEIGHTS),
            ]

    def test_the_layer_depends_on_the_model_and_the_mount_alone(
        self, write: Write, cache: Cache, tmp_path: Path
    ) -> None:
        """Every store, every cache and every size of pieces gives the same digest; another mount gives another."""
        digests = set()
        for number, chunk in enumerate((1, 700, 1 << 20)):
            store = MemoryStore(chunk)
            published = model.publish(write(), store)
            digests.add(model.fetch(published, store, Cache(tmp_path / str(number)), MOUNT).digest)
        assert len(digests) == 1
        assert model.fetch(published, store, cache, "/opt/model").digest not in digests
        assert model.fetch(published, store, cache, MOUNT).digest in digests

    def test_mounts_that_look_alike_are_kept_apart(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """What is remembered of one mount is never used for another."""
        published = model.publish(write(), store)
        assert (
            model.fetch(published, store, cache, "/a/b").digest
            != model.fetch(published, store, cache, "/a-b").digest
        )

    def test_what_is_in_the_cache_is_not_fetched_again(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """A second fetch asks the store for nothing, not even whether it is there."""
        published = model.publish(write(), store)
        fetched = model.fetch(published, store, cache, MOUNT)
        store.files.clear()
        store.streamed.clear()
        assert model.fetch(published, store, Cache(cache.root), MOUNT) == fetched
        assert store.streamed == []

    def test_a_layer_that_the_cache_lost_or_cut_off_is_fetched_again(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """A cache that somebody cleaned by half is made whole."""
        published = model.publish(write(), store)
        fetched = model.fetch(published, store, cache, MOUNT)
        os.truncate(cache.path(fetched.digest), 100)
        assert model.fetch(published, store, cache, MOUNT) == fetched
        cache.drop(fetched.digest)
        assert model.fetch(published, store, cache, MOUNT) == fetched
        assert cache.has(fetched.digest, fetched.size)

    def test_a_damaged_memory_of_a_layer_is_made_anew(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """A note that was cut off, or written by another version of the suite, costs a fetch and no error."""
        published = model.publish(write(), store)
        fetched = model.fetch(published, store, cache, MOUNT)
        (note,) = (cache.root / "notes" / "layers").iterdir()
        for damage in ("", "{", '{"digest": "x"}'):
            note.write_text(damage)
            assert model.find_cached_layer(published, cache, MOUNT) is None
            assert model.fetch(published, store, cache, MOUNT) == fetched
        assert model.find_cached_layer(published, cache, MOUNT) == fetched

    def test_what_was_learned_elsewhere_is_remembered_without_its_bytes(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """A layer that only the registry holds is known here, and fetched if its bytes are asked for."""
        published = model.publish(write(), store)
        learned = model.fetch(published, store, Cache(cache.root / "other"), MOUNT)
        model.remember(learned, cache, MOUNT)
        assert model.find_cached_layer(published, cache, MOUNT) == learned
        assert not cache.has(learned.digest, learned.size)
        assert model.fetch(published, store, cache, MOUNT) == learned
        assert cache.has(learned.digest, learned.size)

    @pytest.mark.parametrize(
        ("damage", "actual"),
        [
            (lambda data: data[:1000] + b"X" + data[1001:], "2050 bytes"),
            (lambda data: b"X" + data[1:], "2050 bytes"),
            (lambda data: data[:-1] + b"X", "2050 bytes"),
            (lambda data: data[:-1], "2049 bytes"),
            (lambda data: data[:1], "1 bytes"),
            (lambda data: b"", "0 bytes"),
            (lambda data: data + b"X", "more than 2050 bytes"),
            (lambda data: data + data, "more than 2050 bytes"),
            (lambda data: b"\x80" + data[1:], "2050 bytes"),
        ],
    )
    def test_bytes_that_are_not_the_published_ones_are_refused(
        self,
        write: Write,
        store: MemoryStore,
        cache: Cache,
        damage: Callable[[bytes], bytes],
        actual: str,
    ) -> None:
        """One changed, missing or additional byte anywhere is found, and told as expected against actual."""
        published = model.publish(write(), store)
        store.files[blob(WEIGHTS)] = damage(WEIGHTS)
        with pytest.raises(FileTampered, match="not the one that was published") as caught:
            model.fetch(published, store, cache, MOUNT)
        assert caught.value.on == "memory: model.onnx of tiny@1"
        assert (
            f"expected 2050 bytes, sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"
            in caught.value.detail
        )
        assert f"actual   {actual}, sha256:" in caught.value.detail
        assert kept(cache) == []

    def test_a_file_longer_than_promised_is_not_read_to_its_end(
        self, write: Write, cache: Cache
    ) -> None:
        """A store that never stops sending does not fill the disk."""
        given = 0

        class Endless(MemoryStore):
            def stream(self, name: str) -> Iterator[bytes] | None:
                return endless() if name == blob(WEIGHTS) else super().stream(name)

        def endless() -> Iterator[bytes]:
            nonlocal given
            while True:
                given += 1
                yield b"\x08" * 1000

        store = Endless()
        published = model.publish(write(), store)
        with pytest.raises(FileTampered, match="not the one"):
            model.fetch(published, store, cache, MOUNT)
        assert given == 3
        assert kept(cache) == []

    def test_a_missing_file_is_refused_by_name(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """A blob that somebody deleted is named by the file that it was."""
        published = model.publish(write(), store)
        del store.files[blob(b"one\n")]
        with pytest.raises(FileTampered, match="missing") as caught:
            model.fetch(published, store, cache, MOUNT)
        assert caught.value.on == "memory: labels.txt of tiny@1"
        assert kept(cache) == []

    def test_a_manifest_that_lies_about_a_size_is_refused(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """Size and sha256 must both be those of the bytes."""
        published = model.publish(write(), store)
        for size in (0, 1, 2049, 2051, 10**15):
            lying = forged(
                store,
                published,
                lambda values, size=size: values["files"][2].update(size=size),  # type: ignore[misc]
            )
            with pytest.raises(FileTampered, match="not the one"):
                model.fetch(lying, store, cache, MOUNT)
        assert kept(cache) == []

    @pytest.mark.parametrize(
        "path",
        [
            "../../etc/cron.d/x",
            "/etc/passwd",
            "a\\..\\b",
            "labels.txt/deeper",
            "manifest.json",
            ".wh.labels.txt",
        ],
    )
    def test_a_manifest_whose_paths_leave_the_folder_is_refused(
        self, write: Write, store: MemoryStore, cache: Cache, path: str
    ) -> None:
        """Nothing that a store says is written anywhere but into the model's own folder."""
        published = model.publish(write(), store)
        hostile = forged(
            store,
            published,
            lambda values: values["files"].append({"path": path, "sha256": "0" * 64, "size": 1}),  # type: ignore[attr-defined]
        )
        with pytest.raises(ManifestInvalid):
            model.fetch(hostile, store, cache, MOUNT)
        assert kept(cache) == []

    @pytest.mark.parametrize(
        ("weights", "kind"),
        [(b"\x80\x04\x95", "a pickle"), (b"PK\x03\x04x", "a zip archive"), (b"", "something else")],
    )
    def test_weights_of_another_format_are_refused_though_they_are_the_published_ones(
        self, write: Write, store: MemoryStore, cache: Cache, weights: bytes, kind: str
    ) -> None:
        """Whoever wrote the manifest by other means gets no pickle into an image."""
        honest = model.publish(write(), store)
        store.files[blob(weights)] = weights
        fields = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
        published = forged(store, honest, lambda values: values["files"][2].update(fields))  # type: ignore[index]
        with pytest.raises(FormatMismatch, match=f"the file is {kind}"):
            model.fetch(published, store, cache, MOUNT)
        assert kept(cache) == []

    def test_a_manifest_that_changed_since_it_was_resolved_is_refused(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """What was decided on is what is fetched, or nothing."""
        published = model.publish(write(), store)
        other = forged(store, published, lambda values: values.update(metadata={"note": "changed"}))
        with pytest.raises(FileTampered, match="has changed since it was resolved") as caught:
            model.fetch(published, store, cache, MOUNT)
        assert published.digest in caught.value.detail
        assert other.digest in caught.value.detail
        assert kept(cache) == []

    def test_an_unknown_version_is_refused(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """A version that was deleted after it was resolved is named."""
        published = model.publish(write(), store)
        del store.files["models/tiny/1/manifest.json"]
        with pytest.raises(ModelUnknown):
            model.fetch(published, store, cache, MOUNT)

    @pytest.mark.parametrize(
        "error",
        [
            StoreUnreachable("the connection was reset", on="memory", next="run again"),
            DiskFull("no space", on="cache", next="free some"),
            KeyboardInterrupt(),
        ],
    )
    def test_a_fetch_that_breaks_leaves_nothing_and_can_be_run_again(
        self, write: Write, cache: Cache, error: BaseException
    ) -> None:
        """Whatever stops it in the middle, nothing half-done stays, and the next run does all."""

        class Broken(MemoryStore):
            works = False

            def stream(self, name: str) -> Iterator[bytes] | None:
                return (
                    broken() if name == blob(WEIGHTS) and not self.works else super().stream(name)
                )

        def broken() -> Iterator[bytes]:
            yield WEIGHTS[:1000]
            raise error

        store = Broken()
        published = model.publish(write(), store)
        with pytest.raises(type(error)):
            model.fetch(published, store, cache, MOUNT)
        assert kept(cache) == []
        store.works = True
        assert model.fetch(published, store, cache, MOUNT).model == published

    def test_what_serves_is_not_removed_by_a_fetch_that_fails(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """The layer of another version stays when a new one is refused."""
        first = model.fetch(model.publish(write("1"), store), store, cache, MOUNT)
        second = model.publish(write("2", labels=b"two\n"), store)
        store.files[blob(b"two\n")] = b"bad\n"
        with pytest.raises(ModelError):
            model.fetch(second, store, cache, MOUNT)
        assert cache.has(first.digest, first.size)
        assert model.find_cached_layer(first.model, cache, MOUNT) == first

    def test_memory_does_not_grow_with_the_model(self, write: Write, cache: Cache) -> None:
        """64 MB pass through in the memory of a few pieces, from the store to the cache."""
        piece = 1 << 20
        count = 64
        head = b"\x08" + bytes(piece - 1)

        class Large(MemoryStore):
            def stream(self, name: str) -> Iterator[bytes] | None:
                return pieces() if name == f"blobs/sha256/{whole}" else super().stream(name)

        def pieces() -> Iterator[bytes]:
            yield head
            for _ in range(count - 1):
                yield bytes(piece)

        total = hashlib.sha256()
        for data in pieces():
            total.update(data)
        whole = total.hexdigest()
        store = Large()
        fields = {"size": piece * count, "sha256": whole}
        published = forged(
            store,
            model.publish(write(), store),
            lambda values: values["files"][2].update(fields),  # type: ignore[index]
        )
        tracemalloc.start()
        try:
            fetched = model.fetch(published, store, cache, MOUNT)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert fetched.size > piece * count
        assert peak < 6 * piece

    def test_bytes_are_counted_as_they_arrive(
        self, write: Write, store: MemoryStore, cache: Cache
    ) -> None:
        """Whoever waits sees how far a fetch is; in the end all that was announced has gone by."""
        seen = Seen()
        published = model.publish(write(), store)
        with progress.use_display(seen):
            model.fetch(published, store, cache, MOUNT)
        assert seen.counts == {"fetching tiny@1": (2067, 2067)}


def test_the_digits_model_goes_through_a_folder(tmp_path: Path, cache: Cache) -> None:
    """A real model is published to a folder and fetched from it."""
    store = open_store("store", tmp_path)
    published = model.publish(DIGITS, store)
    fetched = model.fetch(model.resolve("digits", "latest", store), store, cache, MOUNT)
    assert fetched.model == published
    shape = model.read_manifest(store, "digits", "latest").interface.model_dump()["input"]["shape"]
    assert shape == [None, 1, 8, 8]
    assert (
        manifest.parse_manifest(
            (tmp_path / "store" / "models" / "digits" / "1" / "manifest.json").read_bytes(), on="x"
        ).model
        == published
    )
