"""The check of a model's layer that this machine did not write: it has the model and nothing else.

A layer is unpacked over the image, so a file outside of the model's folder, a link or a second copy
of a file would change the application. Such a layer has the bytes of one that this machine would
write of the model's files: these are read once, and compared with the model manifest.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from deploy import progress
from deploy.cache import Cache
from deploy.errors import FileTampered
from deploy.image import layer as layers
from deploy.model.formats import FormatCheck
from deploy.model.manifest import MAX_MANIFEST_BYTES, PUBLISHED_FILE, ModelManifest
from deploy.model.reading import parse_model_manifest
from deploy.records import ModelLayer

_NOTES = "checked-layers"
# The headers of the folders above the model manifest, which is the first file.
_MAX_HEADERS = 1 << 18


@dataclass(frozen=True)
class _File:
    """A file that the layer must have: its path in the image, its path in the model, its bytes."""

    path: PurePosixPath
    name: str
    size: int
    sha256: str


def check_layer(layer: ModelLayer, mount_path: str, open_layer: Callable[[], IO[bytes]]) -> None:
    """Check that a layer has exactly the files of its model, as this machine would write them.

    Args:
        layer: the layer, and its model.
        mount_path: the absolute path of the model's folder in the container.
        open_layer: opens the bytes of the layer's digest, which the caller has checked.

    Raises:
        FileTampered: it has other files, or files with other bytes, owners, modes or types.
        ManifestInvalid: its model manifest breaks the format.
        FormatMismatch: the weights are not of the format that the model manifest names.
    """
    with open_layer() as stream:
        manifest = _read_manifest(layer, stream)
    files = _list_files(manifest, PurePosixPath(mount_path.strip("/")))
    with open_layer() as stream, progress.track(f"checking {layer.model}", layer.size) as advance:
        try:
            for file, chunks in layers.read_exact_layer(files, stream):
                format_check = FormatCheck(manifest, file.name)
                _check_content(layer, file, chunks, format_check, advance)
                format_check.require()
        except ValueError as error:
            raise _tampered(layer, str(error)) from error


def is_checked(layer: ModelLayer, cache: Cache, mount_path: str) -> bool:
    """Return whether this machine has written or checked that layer."""
    note = cache.read_note(_NOTES, f"{layer.digest}{mount_path}")
    return ModelLayer.from_cache(note) == layer


def remember_checked(layer: ModelLayer, cache: Cache, mount_path: str) -> None:
    """Record in the cache that this machine has written or checked a layer."""
    cache.write_note(_NOTES, f"{layer.digest}{mount_path}", layer.to_json())


def _read_manifest(layer: ModelLayer, stream: IO[bytes]) -> ModelManifest:
    """Return the model manifest at the start of a layer; no more of it is read."""
    head = io.BytesIO(stream.read(MAX_MANIFEST_BYTES + _MAX_HEADERS))
    try:
        path, content = next(layers.read_layer(head))
        text = content.read(MAX_MANIFEST_BYTES + 1)
    except (tarfile.TarError, StopIteration) as error:
        raise _tampered(layer, "it does not start with a model manifest") from error
    manifest = parse_model_manifest(text, on=f"{layer.digest}: {path}")
    if manifest.model != layer.model:
        raise _tampered(layer, f"it has the model {manifest.model} ({manifest.model.digest})")
    return manifest


def _list_files(manifest: ModelManifest, root: PurePosixPath) -> Iterator[_File]:
    digest = manifest.model.digest.removeprefix("sha256:")
    yield _File(root / PUBLISHED_FILE, PUBLISHED_FILE, len(manifest.text), digest)
    for file in manifest.files_in_layer_order:
        yield _File(root / file.path, file.path, file.size, file.sha256)


def _check_content(
    layer: ModelLayer,
    file: _File,
    chunks: Iterator[bytes],
    format_check: FormatCheck,
    advance: progress.Advance,
) -> None:
    """Read all of a file, which must be the expected one."""
    digest = hashlib.sha256()
    for chunk in chunks:
        format_check.add(chunk)
        digest.update(chunk)
        advance(len(chunk))
    if digest.hexdigest() != file.sha256:
        raise _tampered(layer, f"{file.path} has other bytes")


def _tampered(layer: ModelLayer, reason: str) -> FileTampered:
    return FileTampered(
        f"the registry's layer of {layer.model} is not the published model: {reason}",
        on=layer.digest,
        next="find out who pushed it; remove its tag `model-…` from the repository, "
        "then release again: the layer is made of the files in the store",
    )
