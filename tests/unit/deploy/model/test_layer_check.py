"""Layers that another machine pushed: they have the files of their model and nothing else."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from deploy import progress
from deploy.archive import create_header
from deploy.cache import Cache
from deploy.errors import FileTampered, FormatMismatch, ManifestInvalid, ModelError
from deploy.image import layer as layers
from deploy.model.fetch import fetch_layer
from deploy.model.layer_check import check_layer, is_checked, remember_checked
from deploy.model.publish import publish_model
from deploy.records import ModelLayer
from tests.fakes.display import CountingDisplay
from tests.fakes.models import replace_manifest
from tests.fakes.store import MemoryStore

MOUNT = "/model"


@pytest.fixture
def fetched(write_model: Callable[..., Path], store: MemoryStore, cache: Cache) -> ModelLayer:
    """Return the layer of a published model, as this machine writes it."""
    return fetch_layer(publish_model(write_model(), store), store, cache, MOUNT)


def check(layer: ModelLayer, data: bytes, mount_path: str = MOUNT) -> None:
    """Check bytes that are said to be the layer of a model."""
    check_layer(layer, mount_path, lambda: io.BytesIO(data))


def read_files(data: bytes) -> dict[PurePosixPath, bytes]:
    """Return the files of a layer."""
    return {path: content.read() for path, content in layers.read_layer(io.BytesIO(data))}


def pack(files: dict[PurePosixPath, bytes]) -> bytes:
    """Return a layer of files, as this machine writes it."""
    packed = io.BytesIO()
    entries = (layers.Entry(path, len(data), [data]) for path, data in files.items())
    layers.write_layer(entries, packed)
    return packed.getvalue()


def test_a_layer_that_this_machine_wrote_passes(fetched: ModelLayer, cache: Cache) -> None:
    """All of it is read once, and the display shows that."""
    display = CountingDisplay()
    with progress.use_display(display):
        check(fetched, cache.read(fetched.digest))
    assert list(display.counts) == ["checking tiny@1"]
    assert is_checked(fetched, cache, MOUNT)


def test_a_layer_with_a_large_manifest_passes(
    fetched: ModelLayer, store: MemoryStore, cache: Cache
) -> None:
    """It may have as many bytes as one that is published: a model can have thousands of files."""
    metadata = {"notes": "x" * (3 << 20)}
    large = replace_manifest(store, fetched.model, lambda values: values.update(metadata=metadata))
    layer = fetch_layer(large, store, cache, MOUNT)
    check(layer, cache.read(layer.digest))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("usr/bin/python3", b"#!/bin/sh"),
        ("model/sitecustomize.py", b"import os"),
        ("app/main.py", b"import os"),
        ("model/.wh.labels.txt", b""),
    ],
)
def test_a_layer_with_another_file_is_refused(
    fetched: ModelLayer, cache: Cache, path: str, content: bytes
) -> None:
    """It would run in the image, or delete a part of it."""
    files = read_files(cache.read(fetched.digest))
    with pytest.raises(FileTampered, match="not the published model") as caught:
        check(fetched, pack({**files, PurePosixPath(path): content}))
    assert caught.value.on == fetched.digest
    assert "find out who pushed it" in caught.value.next


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "golden/one.json"])
def test_a_layer_with_other_bytes_is_refused(fetched: ModelLayer, cache: Cache, name: str) -> None:
    """Of the same size, so that only the content differs."""
    files = read_files(cache.read(fetched.digest))
    path = PurePosixPath("model") / name
    files[path] = files[path][:-1] + b"#"
    with pytest.raises(FileTampered, match=f"model/{name} has other bytes"):
        check(fetched, pack(files))


def test_a_layer_of_another_model_is_refused(
    fetched: ModelLayer, write_model: Callable[..., Path], store: MemoryStore, cache: Cache
) -> None:
    """Whatever model the registry says it is of."""
    other = fetch_layer(publish_model(write_model("2"), store), store, cache, MOUNT)
    with pytest.raises(FileTampered, match="tiny@2"):
        check(fetched, cache.read(other.digest))


def test_a_layer_for_another_folder_is_refused(fetched: ModelLayer, cache: Cache) -> None:
    """Its files would replace others of the image."""
    with pytest.raises(FileTampered):
        check(fetched, cache.read(fetched.digest), "/usr/lib")


@pytest.mark.parametrize("data", [b"", b"<html>", bytes(10240), b"\x1f\x8b" * 5000])
def test_bytes_that_are_no_layer_are_refused(fetched: ModelLayer, data: bytes) -> None:
    """There is no traceback for what a registry can send."""
    with pytest.raises(FileTampered, match="does not start with a model manifest"):
        check(fetched, data)


def test_a_layer_with_a_broken_manifest_is_refused(fetched: ModelLayer) -> None:
    """It is not one that this project writes."""
    with pytest.raises(ManifestInvalid):
        check(fetched, pack({PurePosixPath("model/manifest.json"): b"{}"}))


def test_a_pickle_is_refused(fetched: ModelLayer, store: MemoryStore, cache: Cache) -> None:
    """Even if the store's model manifest has its digest."""
    pickle = b"\x80\x04\x95"
    fields = {"size": len(pickle), "sha256": hashlib.sha256(pickle).hexdigest()}
    hostile = replace_manifest(
        store,
        fetched.model,
        lambda values: values["files"][2].update(fields),  # type: ignore[index]  # JSON
    )
    files = read_files(cache.read(fetched.digest))
    files[PurePosixPath("model/manifest.json")] = store.files["models/tiny/1/manifest.json"]
    files[PurePosixPath("model/model.onnx")] = pickle
    with pytest.raises(FormatMismatch, match="a pickle"):
        check(fetched.model_copy(update={"model": hostile}), pack(files))


def test_the_memory_of_a_check_does_not_depend_on_the_layer(fetched: ModelLayer) -> None:
    """A header may promise as much as it likes."""
    header = create_header("model", 1 << 30, kind=b"x")

    class Zeros(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            assert 0 <= size < 8 << 20
            return bytes(size)

    class Bomb(Zeros):
        sent = False

        def read(self, size: int = -1) -> bytes:
            start = b"" if self.sent else header
            self.sent = True
            return start + super().read(size - len(start))

    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            check_layer(fetched, MOUNT, Bomb)  # type: ignore[arg-type]  # as much as is needed
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


def test_what_was_checked_is_remembered_by_layer_model_and_folder(
    fetched: ModelLayer, tmp_path: Path
) -> None:
    """A record of another layer, or for another folder, says nothing about this one."""
    other = Cache(tmp_path / "other")
    assert not is_checked(fetched, other, MOUNT)
    remember_checked(fetched, other, MOUNT)
    assert is_checked(fetched, other, MOUNT)
    assert not is_checked(fetched, other, "/other")
    renamed = fetched.model.model_copy(update={"version": "2"})
    assert not is_checked(fetched.model_copy(update={"model": renamed}), other, MOUNT)
