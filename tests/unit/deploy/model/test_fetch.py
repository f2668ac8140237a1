"""Fetched models: the layer has what was published, or there is no layer."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

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
)
from deploy.model import reading
from deploy.model.fetch import fetch_layer, find_cached_layer, remember_layer
from deploy.model.publish import publish_model
from deploy.model.versions import (
    read_model_manifest,
    resolve_version,
)
from tests.fakes.display import CountingDisplay
from tests.fakes.models import LFS_POINTER, WEIGHTS, blob_path, list_files, replace_manifest
from tests.fakes.store import MemoryStore

PROJECT = Path(__file__).parents[4]
DIGITS = PROJECT / "tests" / "models" / "digits"
MOUNT = "/model"


def test_the_layer_has_the_manifest_then_the_request_bodies_then_the_rest(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """The layer has the published files, in the order in which they are read."""
    published = publish_model(write_model(), store)
    fetched = fetch_layer(published, store, cache, MOUNT)
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


def test_the_layer_depends_on_the_model_and_the_mount_path_only(
    write_model: Callable[..., Path], cache: Cache, tmp_path: Path
) -> None:
    """Any store, cache and chunk size gives the same digest; another mount path does not."""
    digests = set()
    for number, chunk in enumerate((1, 700, 1 << 20)):
        store = MemoryStore(chunk)
        published = publish_model(write_model(), store)
        digests.add(fetch_layer(published, store, Cache(tmp_path / str(number)), MOUNT).digest)
    assert len(digests) == 1
    assert fetch_layer(published, store, cache, "/opt/model").digest not in digests
    assert fetch_layer(published, store, cache, MOUNT).digest in digests


def test_similar_mount_paths_are_not_confused(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """The record of one mount path is not used for another."""
    published = publish_model(write_model(), store)
    assert (
        fetch_layer(published, store, cache, "/a/b").digest
        != fetch_layer(published, store, cache, "/a-b").digest
    )


def test_a_cached_layer_is_not_fetched_again(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """A second fetch sends no request to the store."""
    published = publish_model(write_model(), store)
    fetched = fetch_layer(published, store, cache, MOUNT)
    store.files.clear()
    store.streamed.clear()
    assert fetch_layer(published, store, Cache(cache.root), MOUNT) == fetched
    assert store.streamed == []


def test_a_layer_that_is_lost_or_truncated_is_fetched_again(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """A cache that was cleaned in part becomes complete again."""
    published = publish_model(write_model(), store)
    fetched = fetch_layer(published, store, cache, MOUNT)
    os.truncate(cache.path(fetched.digest), 100)
    assert fetch_layer(published, store, cache, MOUNT) == fetched
    cache.drop(fetched.digest)
    assert fetch_layer(published, store, cache, MOUNT) == fetched
    assert cache.has(fetched.digest, fetched.size)


def test_a_damaged_record_of_a_layer_is_written_again(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """A damaged record, or one of another version of twinship, is not an error."""
    published = publish_model(write_model(), store)
    fetched = fetch_layer(published, store, cache, MOUNT)
    (note,) = (cache.root / "notes" / "layers").iterdir()
    for damage in ("", "{", '{"digest": "x"}'):
        note.write_text(damage)
        assert find_cached_layer(published, cache, MOUNT) is None
        assert fetch_layer(published, store, cache, MOUNT) == fetched
    assert find_cached_layer(published, cache, MOUNT) == fetched


def test_a_layer_that_only_the_registry_has_can_be_recorded(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """Its bytes are fetched when they are needed."""
    published = publish_model(write_model(), store)
    learned = fetch_layer(published, store, Cache(cache.root / "other"), MOUNT)
    remember_layer(learned, cache, MOUNT)
    assert find_cached_layer(published, cache, MOUNT) == learned
    assert not cache.has(learned.digest, learned.size)
    assert fetch_layer(published, store, cache, MOUNT) == learned
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
    write_model: Callable[..., Path],
    store: MemoryStore,
    cache: Cache,
    damage: Callable[[bytes], bytes],
    actual: str,
) -> None:
    """Each changed, missing or additional byte is found; the error has both sizes and digests."""
    published = publish_model(write_model(), store)
    store.files[blob_path(WEIGHTS)] = damage(WEIGHTS)
    with pytest.raises(FileTampered, match="not the one that was published") as caught:
        fetch_layer(published, store, cache, MOUNT)
    assert caught.value.on == "memory: model.onnx of tiny@1"
    assert (
        f"expected 2050 bytes, sha256:{hashlib.sha256(WEIGHTS).hexdigest()}" in caught.value.detail
    )
    assert f"actual   {actual}, sha256:" in caught.value.detail
    assert list_files(cache) == []


def test_a_file_that_is_too_long_is_not_read_to_its_end(
    write_model: Callable[..., Path], cache: Cache
) -> None:
    """A store that sends bytes without end does not fill the disk."""
    sent = 0

    class Endless(MemoryStore):
        def stream(self, name: str) -> Iterator[bytes] | None:
            return endless() if name == blob_path(WEIGHTS) else super().stream(name)

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"\x08" * 1000

    store = Endless()
    published = publish_model(write_model(), store)
    with pytest.raises(FileTampered, match="not the one"):
        fetch_layer(published, store, cache, MOUNT)
    assert sent == 3
    assert list_files(cache) == []


def test_a_missing_file_is_refused(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """The error has the name of the file in the model."""
    published = publish_model(write_model(), store)
    del store.files[blob_path(b"one\n")]
    with pytest.raises(FileTampered, match="missing") as caught:
        fetch_layer(published, store, cache, MOUNT)
    assert caught.value.on == "memory: labels.txt of tiny@1"
    assert list_files(cache) == []


def test_a_model_manifest_with_a_wrong_size_is_refused(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """Both size and sha256 must be those of the bytes."""
    published = publish_model(write_model(), store)
    for size in (0, 1, 2049, 2051, 10**15):
        lying = replace_manifest(
            store,
            published,
            lambda values, size=size: values["files"][2].update(size=size),  # type: ignore[misc]  # a default argument binds the value
        )
        with pytest.raises(FileTampered, match="not the one"):
            fetch_layer(lying, store, cache, MOUNT)
    assert list_files(cache) == []


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
def test_a_model_manifest_whose_paths_leave_the_folder_is_refused(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache, path: str
) -> None:
    """No file of a store is written outside the model's folder."""
    published = publish_model(write_model(), store)
    hostile = replace_manifest(
        store,
        published,
        lambda values: values["files"].append({"path": path, "sha256": "0" * 64, "size": 1}),  # type: ignore[attr-defined]  # JSON
    )
    with pytest.raises(ManifestInvalid):
        fetch_layer(hostile, store, cache, MOUNT)
    assert list_files(cache) == []


@pytest.mark.parametrize(
    ("weights", "kind"),
    [(b"\x80\x04\x95", "a pickle"), (b"PK\x03\x04x", "a zip archive"), (b"", "something else")],
)
def test_published_weights_of_another_format_are_refused(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache, weights: bytes, kind: str
) -> None:
    """A pickle is refused even if the store's model manifest has its digest."""
    honest = publish_model(write_model(), store)
    store.files[blob_path(weights)] = weights
    fields = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    published = replace_manifest(store, honest, lambda values: values["files"][2].update(fields))  # type: ignore[index]  # JSON
    with pytest.raises(FormatMismatch, match=f"the file is {kind}"):
        fetch_layer(published, store, cache, MOUNT)
    assert list_files(cache) == []


@pytest.mark.parametrize("data", [pickle.dumps({"a": 1}), LFS_POINTER])
def test_every_published_file_is_looked_at(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache, data: bytes
) -> None:
    """The store may have a version that another program published."""
    honest = publish_model(write_model(), store)
    store.files[blob_path(data)] = data
    fields = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    published = replace_manifest(store, honest, lambda values: values["files"][1].update(fields))  # type: ignore[index]  # JSON
    with pytest.raises(FormatMismatch) as caught:
        fetch_layer(published, store, cache, MOUNT)
    assert caught.value.on == "labels.txt of tiny@1"
    assert list_files(cache) == []


def test_a_model_manifest_that_changed_after_it_was_resolved_is_refused(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """The fetched version is the resolved one."""
    published = publish_model(write_model(), store)
    other = replace_manifest(
        store, published, lambda values: values.update(metadata={"note": "changed"})
    )
    with pytest.raises(FileTampered, match="has changed since it was resolved") as caught:
        fetch_layer(published, store, cache, MOUNT)
    assert published.digest in caught.value.detail
    assert other.digest in caught.value.detail
    assert list_files(cache) == []


def test_an_unknown_version_is_refused(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """A version may be deleted after it was resolved."""
    published = publish_model(write_model(), store)
    del store.files["models/tiny/1/manifest.json"]
    with pytest.raises(ModelUnknown):
        fetch_layer(published, store, cache, MOUNT)


@pytest.mark.parametrize(
    "error",
    [
        StoreUnreachable("the connection was reset", on="memory", next="run again"),
        DiskFull("no space", on="cache", next="free some"),
        KeyboardInterrupt(),
    ],
)
def test_a_fetch_that_fails_leaves_no_files_and_can_be_repeated(
    write_model: Callable[..., Path], cache: Cache, error: BaseException
) -> None:
    """This holds for errors of the store, of the disk, and for Ctrl-C."""

    class Broken(MemoryStore):
        works = False

        def stream(self, name: str) -> Iterator[bytes] | None:
            return (
                broken() if name == blob_path(WEIGHTS) and not self.works else super().stream(name)
            )

    def broken() -> Iterator[bytes]:
        yield WEIGHTS[:1000]
        raise error

    store = Broken()
    published = publish_model(write_model(), store)
    with pytest.raises(type(error)):
        fetch_layer(published, store, cache, MOUNT)
    assert list_files(cache) == []
    store.works = True
    assert fetch_layer(published, store, cache, MOUNT).model == published


def test_a_fetch_that_fails_does_not_remove_other_layers(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """The layer of another version stays in the cache."""
    first = fetch_layer(publish_model(write_model("1"), store), store, cache, MOUNT)
    second = publish_model(write_model("2", labels=b"two\n"), store)
    store.files[blob_path(b"two\n")] = b"bad\n"
    with pytest.raises(ModelError):
        fetch_layer(second, store, cache, MOUNT)
    assert cache.has(first.digest, first.size)
    assert find_cached_layer(first.model, cache, MOUNT) == first


def test_the_memory_of_a_fetch_does_not_depend_on_the_size(
    write_model: Callable[..., Path], cache: Cache
) -> None:
    """64 MB take the memory of a few chunks."""
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
    published = replace_manifest(
        store,
        publish_model(write_model(), store),
        lambda values: values["files"][2].update(fields),  # type: ignore[index]  # JSON
    )
    tracemalloc.start()
    try:
        fetched = fetch_layer(published, store, cache, MOUNT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fetched.size > piece * count
    assert peak < 6 * piece


def test_bytes_are_counted_as_they_arrive(
    write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """The display shows the progress; at the end it has counted all announced bytes."""
    display = CountingDisplay()
    published = publish_model(write_model(), store)
    with progress.use_display(display):
        fetch_layer(published, store, cache, MOUNT)
    assert display.counts == {"fetching tiny@1": (2067, 2067)}


def test_the_digits_model_is_published_to_a_folder_and_fetched(
    tmp_path: Path, cache: Cache
) -> None:
    """The store and the files are real."""
    store = open_store("store", tmp_path)
    published = publish_model(DIGITS, store)
    fetched = fetch_layer(resolve_version("digits", "latest", store), store, cache, MOUNT)
    assert fetched.model == published
    shape = read_model_manifest("digits", "latest", store).interface.model_dump()["input"]["shape"]
    assert shape == [None, 1, 8, 8]
    assert (
        reading.parse_model_manifest(
            (tmp_path / "store" / "models" / "digits" / "1" / "manifest.json").read_bytes(), on="x"
        ).model
        == published
    )
