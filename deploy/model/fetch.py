"""The model stream: published versions in a store, and one of them as the layer in which it is shipped.

    blobs/sha256/<hex>                   every file, under the digest of its bytes
    models/<name>/<version>/manifest.json    written once, after its files
    models/<name>/latest.json                the version published last

A version never changes: its manifest is created, not replaced, and its files are named by what they hold. So two people
may publish at once, and whoever is killed in between leaves nothing that can be mistaken for a version.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from deploy import progress
from deploy.cache import Cache
from deploy.clients.stores.protocol import Store
from deploy.errors import FileTampered, FormatMismatch, ManifestInvalid, ModelUnknown, VersionExists
from deploy.image import layer
from deploy.model import manifest
from deploy.model.manifest import ModelFile, ModelManifest
from deploy.records import VERSION, Model, ModelLayer, Record, Version, short_digest

log = logging.getLogger(__name__)

LATEST = manifest.LATEST
_START = 9
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
# How a file of each format begins. Sources: ONNX's onnx.proto, the safetensors README, GGUF's specification.
_FORMATS = {
    "onnx": ("ONNX", re.compile(rb"\x08"), "a protobuf that starts with 08 (ir_version)"),
    "safetensors": (
        "safetensors",
        re.compile(rb"(?s).{4}\0{4}\{"),
        "the length of a header in eight bytes, and its brace",
    ),
    "gguf": ("GGUF", re.compile(rb"GGUF"), "the letters GGUF"),
}


class _Alias(Record):
    version: Version


def publish(directory: Path, store: Store) -> Model:
    """Makes the model in a directory a version of the store, and the latest one; publishing the same again changes nothing.

    Args:
        directory: holds model.toml and the files of the model.
        store: where to.

    Raises:
        ManifestInvalid: model.toml breaks the format, or a file is a link or missing.
        FormatMismatch: a file is not of the format that model.toml names.
        FileTampered: a file changed while it was being published; the version is not published then.
        VersionExists: the version is there already, with other bytes.
        StoreUnreachable: the store could not be asked.
    """
    new = _described(directory)
    name = f"models/{new.name}/{new.version}/{manifest.PUBLISHED_FILE}"
    _refuse_other(store, name, new)
    for file in new.files:
        _upload(store, directory / file.path, file)
    if not store.create(name, new.text):
        _refuse_other(store, name, new)
    store.replace(f"models/{new.name}/{LATEST}.json", json.dumps({"version": new.version}).encode())
    log.info("published %s (%s)", new.model, short_digest(new.model.digest))
    return new.model


def _described(directory: Path) -> ModelManifest:
    """The manifest that a directory amounts to: what its author said, and what can be measured."""
    source = directory / manifest.AUTHORS_FILE
    try:
        with source.open("rb") as file:
            text = file.read(manifest.MAX_BYTES + 1)
    except OSError as error:
        raise ManifestInvalid(
            f"the model's description cannot be read: {error.strerror}",
            on=str(source),
            next="docs/03-models.md shows how to write one",
        ) from error
    described = manifest.parse_description(text, on=str(source))
    files = tuple(_measured(directory, path) for path in sorted(_files(directory)))
    values = described.model_dump(by_alias=True, exclude_unset=True)
    new = manifest.validate(
        ModelManifest,
        {**values, "schema": 1, "files": [file.model_dump() for file in files]},
        str(source),
    )
    with (directory / new.weights).open("rb") as weights:
        _refuse_other_format(new, new.weights, weights.read(_START))
    return new


def _files(directory: Path) -> Iterator[str]:
    for path in directory.rglob("*"):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ManifestInvalid(
                "a model is made of plain files",
                on=str(path),
                next="replace the link by the file it points to",
            )
        if path.is_file() and relative != manifest.AUTHORS_FILE:
            yield relative


def _measured(directory: Path, path: str) -> ModelFile:
    with (directory / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return manifest.validate(
            ModelFile, {"path": path, "size": file.tell(), "sha256": digest}, str(directory / path)
        )


def _refuse_other(store: Store, name: str, new: ModelManifest) -> None:
    there = store.read(name, manifest.MAX_BYTES)
    if there is not None and there != new.text:
        raise VersionExists(
            f"{new.name} {new.version} is published already, with other bytes",
            on=f"{store.location}/{name}",
            next="a version never changes: publish under a new version",
            detail=f"  there sha256:{hashlib.sha256(there).hexdigest()}\n  here  {new.model.digest}",
        )


def _upload(store: Store, path: Path, file: ModelFile) -> None:
    """Stores a file even where its name is taken: publishing again is the cure for a blob that was damaged."""
    with (
        progress.track(f"publishing {file.path}", file.size) as advance,
        _Watched(path, advance) as source,
    ):
        store.upload(_blob(file), source)
        if source.sha256 != file.sha256:
            raise FileTampered(
                "a file changed while it was being published",
                on=str(path),
                next="publish again when nobody writes to the folder",
                detail=f"  expected sha256:{file.sha256}\n  actual   sha256:{source.sha256}",
            )


class _Watched(io.FileIO):
    """A file that is read once, and knows then what was read."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(path)
        self._hash = hashlib.sha256()
        self._advance = advance

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self._hash.update(data)
        self._advance(len(data))
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _blob(file: ModelFile) -> str:
    return f"blobs/sha256/{file.sha256}"


def versions(name: str, store: Store) -> tuple[Model, ...]:
    """The published versions of a model, by name; none if there is no such model."""
    paths = (
        f"models/{name}/{version}/{manifest.PUBLISHED_FILE}"
        for version in store.folders(f"models/{name}")
    )
    found = ((path, store.read(path, manifest.MAX_BYTES)) for path in paths)
    return tuple(
        manifest.parse_manifest(text, on=f"{store.location}/{path}").model
        for path, text in found
        if text is not None
    )


def latest(name: str, store: Store) -> str | None:
    """The version published last, or None if there is no such model."""
    where = f"models/{name}/{LATEST}.json"
    text = store.read(where, manifest.MAX_BYTES)
    if text is None:
        return None
    try:
        return _Alias.from_json(text).version
    except ValidationError:
        raise ManifestInvalid(
            "the alias of the latest version cannot be read",
            on=f"{store.location}/{where}",
            next="publish a version again; that writes it anew",
        ) from None


def resolve(name: str, version: str, store: Store) -> Model:
    """The identity of a version; the word `latest` is looked up here, once, and nowhere after.

    Raises:
        ModelUnknown: no such model or version.
        ManifestInvalid: its manifest breaks the format, or is that of another version.
    """
    return read_manifest(store, name, version).model


def read_manifest(store: Store, name: str, version: str) -> ModelManifest:
    """The manifest of a published version.

    Raises:
        ModelUnknown: no such model or version.
        ManifestInvalid: the manifest breaks the format, or is that of another version.
    """
    number = latest(name, store) if version == LATEST else version
    where = f"models/{name}/{number}/{manifest.PUBLISHED_FILE}"
    text = (
        store.read(where, manifest.MAX_BYTES) if number and re.fullmatch(VERSION, number) else None
    )
    if text is None:
        known = ", ".join(store.folders(f"models/{name}")) or "none"
        raise ModelUnknown(
            f"the store has no {name} {version}",
            on=store.location,
            next=f"publish it, or choose a version that is there: {known}",
        )
    found = manifest.parse_manifest(text, on=f"{store.location}/{where}")
    if (found.name, found.version) != (name, number):
        raise ManifestInvalid(
            f"the manifest calls itself {found.model}",
            on=f"{store.location}/{where}",
            next="publish the version again",
        )
    return found


def fetch(model: Model, store: Store, cache: Cache, mount: str) -> ModelLayer:
    """Brings a model into the cache, as the layer in which it will be pushed: one pass, memory constant in its size.

    Args:
        model: a resolved version.
        store: where it is published.
        cache: the cache.
        mount: the folder in the container that the model is put into, absolute.

    Raises:
        ManifestInvalid, FileTampered, FormatMismatch: what the store holds is not what was published.
        StoreUnreachable, DiskFull: as they say. Nothing half-done stays in the cache.
    """
    cached = find_cached_layer(model, cache, mount)
    if cached and cache.has(cached.digest, cached.size):
        return cached
    found = read_manifest(store, model.name, model.version)
    if found.model != model:
        raise FileTampered(
            f"the manifest of {model} has changed since it was resolved",
            on=store.location,
            next="a version must never change; find out who wrote to the store",
            detail=f"  expected {model.digest}\n  actual   {found.model.digest}",
        )
    total = sum(file.size for file in found.files)
    with cache.writer() as writer, progress.track(f"fetching {model}", total) as advance:
        layer.write(_entries(found, store, PurePosixPath(mount.strip("/")), advance), writer)
        fetched = ModelLayer(model=model, digest=writer.commit(), size=writer.size)
    cache.write_note("layers", _noted(model, mount), fetched.to_json())
    return fetched


def find_cached_layer(model: Model, cache: Cache, mount: str) -> ModelLayer | None:
    """What this machine knows of a model's layer, whether or not its bytes are here."""
    return ModelLayer.from_cache(cache.read_note("layers", _noted(model, mount)))


def remember(layer: ModelLayer, cache: Cache, mount: str) -> None:
    """Keeps what was learned of a model's layer elsewhere."""
    cache.write_note("layers", _noted(layer.model, mount), layer.to_json())


def _noted(model: Model, mount: str) -> str:
    return f"{model.digest}{mount}"


def _entries(
    found: ModelManifest, store: Store, root: PurePosixPath, advance: Callable[[int], None]
) -> Iterator[layer.Entry]:
    yield layer.Entry(root / manifest.PUBLISHED_FILE, len(found.text), [found.text])
    for file in found.ordered:
        yield layer.Entry(root / file.path, file.size, _verified(found, file, store, advance))


def _verified(
    found: ModelManifest, file: ModelFile, store: Store, advance: Callable[[int], None]
) -> Iterator[bytes]:
    """A file's bytes as they arrive; their end is an error unless all were the promised ones."""
    on = f"{store.location}: {file.path} of {found.model}"
    chunks = store.stream(_blob(file))
    if chunks is None:
        raise FileTampered(
            "a file of the model is missing",
            on=on,
            next="publish the version again",
            detail=f"  expected sha256:{file.sha256}",
        )
    seen = hashlib.sha256()
    size = 0
    start = b""
    for chunk in chunks:
        start = start if len(start) == _START else (start + chunk)[:_START]
        seen.update(chunk)
        size += len(chunk)
        if size > file.size:
            break
        advance(len(chunk))
        yield chunk
    if (size, seen.hexdigest()) != (file.size, file.sha256):
        actual = f"{'more than ' if size > file.size else ''}{min(size, file.size)} bytes, sha256:{seen.hexdigest()}"
        raise FileTampered(
            "a file of the model is not the one that was published",
            on=on,
            next="find out who wrote to the store; publish the model again under a new version",
            detail=f"  expected {file.size} bytes, sha256:{file.sha256}\n  actual   {actual}",
        )
    _refuse_other_format(found, file.path, start)


def _refuse_other_format(found: ModelManifest, path: str, start: bytes) -> None:
    """Refuses weights that cannot be of their format by their first bytes: a pickle runs code when it is loaded."""
    title, signature, expected = _FORMATS[found.format]
    if path != found.weights or signature.match(start):
        return
    kind = (
        "a pickle"
        if start.startswith(_PICKLE)
        else "a zip archive (as torch.save writes)"
        if start.startswith(_ZIP)
        else "something else"
    )
    raise FormatMismatch(
        f"the manifest says {found.format}, the file is {kind}",
        on=f"{path} of {found.model}",
        next=f"export the model to {title} and publish it under a new version",
        detail=f"  expected {expected}\n  actual   {start.hex(' ') or 'no byte at all'}",
    )
