"""Small models: the directory of an author, and changes to what a store has of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from deploy.cache import Cache
from deploy.records import Model
from tests.fakes.store import MemoryStore

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
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


def write_author_directory(directory: Path, version: str, weights: bytes, labels: bytes) -> None:
    """Write the files of a model and their description."""
    (directory / "golden").mkdir(parents=True)
    (directory / "model.toml").write_text(DESCRIPTION.format(version=version), encoding="utf-8")
    (directory / "model.onnx").write_bytes(weights)
    (directory / "labels.txt").write_bytes(labels)
    (directory / "golden" / "one.json").write_bytes(b'{"input": []}')


def blob_path(data: bytes) -> str:
    """Return where a store keeps those bytes."""
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def list_files(cache: Cache) -> list[str]:
    """Return the paths of all files in a cache."""
    return sorted(
        str(path.relative_to(cache.root)) for path in cache.root.rglob("*") if path.is_file()
    )


def replace_manifest(
    store: MemoryStore, published: Model, change: Callable[[dict[str, object]], object]
) -> Model:
    """Change the values of a published model manifest; return the model that it then describes."""
    name = f"models/{published.name}/{published.version}/manifest.json"
    values = json.loads(store.files[name])
    change(values)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    store.files[name] = text.encode()
    digest = f"sha256:{hashlib.sha256(store.files[name]).hexdigest()}"
    return Model(name=published.name, version=published.version, digest=digest)
