"""The model as it lies in the image: a manifest and the files that it lists, checked before use.

The manifest comes from outside and is not trusted: its size is bounded, its paths stay below the
directory, and every file has the size and the sha256 that the manifest says. Knows nothing of ONNX.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from app import interface
from app.documents import DocumentError, Node, parse

if TYPE_CHECKING:
    from app.interface import Interface

MANIFEST = "manifest.json"
_MANIFEST_BYTES = 1024 * 1024
_LABELS_BYTES = 32 * 1024 * 1024
_MOST_FILES = 10_000
_LONGEST_PATH = 1024
_SHA256_DIGITS = 64
_HEX = frozenset("0123456789abcdef")


class ModelError(Exception):
    """The model cannot be served.

    Attributes:
        what: The file, or the key in the manifest, that is wrong.
        expected: What should be there.
        found: What is there.
    """

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}")
        self.what = what
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the model as its manifest lists it."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model whose files are all there and unchanged."""

    name: str
    version: str
    digest: str
    interface: Interface
    model: Path
    labels: tuple[str, ...]


def read(directory: Path) -> Bundle:
    """Read the model below a directory and check each of its files.

    Raises:
        ModelError: The manifest or a file of the model is wrong.
    """
    raw = _bounded(directory / MANIFEST, _MANIFEST_BYTES)
    try:
        members = parse(raw).exactly(
            {"schema", "name", "version", "format", "files", "interface"}, {"golden", "metadata"}
        )
        members["schema"].whole(1, 1)
        members["format"].choice("onnx")
        name, version = members["name"].text(), members["version"].text()
        wanted = interface.read(members["interface"])
        entries = _entries(members["files"])
        for key, path in (("model", wanted.model), ("labels", wanted.labels)):
            if path not in entries:
                members["interface"].members()[key].refuse("a path in files")
    except DocumentError as error:
        raise ModelError(
            f"{directory / MANIFEST}: {error.at or 'document'}", error.expected, error.found
        ) from error
    _nothing_else(directory, entries)
    for entry in entries.values():
        _check(directory, entry)
    return Bundle(
        name=name,
        version=version,
        digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        interface=wanted,
        model=directory / wanted.model,
        labels=_labels(directory / wanted.labels, wanted.output.classes),
    )


def _bounded(path: Path, most: int) -> bytes:
    """Return the content of a regular file that has at most so many bytes."""
    size = _regular(path)
    if size > most:
        raise ModelError(str(path), f"at most {most} bytes", f"{size} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(str(path), "a readable file", error.strerror or str(error)) from error


def _regular(path: Path) -> int:
    """Return the size of a regular file; links are not followed."""
    try:
        status = path.lstat()
    except OSError as error:
        raise ModelError(str(path), "a file", error.strerror or str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(
            str(path),
            "a regular file",
            "a link" if stat.S_ISLNK(status.st_mode) else "something else",
        )
    return status.st_size


def _entries(node: Node) -> dict[str, Entry]:
    nodes = node.items()
    if not 1 <= len(nodes) <= _MOST_FILES:
        node.refuse(f"1 to {_MOST_FILES} files")
    entries: dict[str, Entry] = {}
    for item in nodes:
        members = item.exactly({"path", "sha256", "size"})
        path = _path(members["path"])
        if path in entries:
            members["path"].refuse("each path once")
        entries[path] = Entry(path, _sha256(members["sha256"]), members["size"].whole(0, 2**63 - 1))
    return entries


def _path(node: Node) -> str:
    text = node.text()
    plain = text.isprintable() and "\\" not in text and len(text) <= _LONGEST_PATH
    # Rebuilding the path drops ".", "//" and a trailing "/". Only a path that stays equal may pass.
    if (
        not plain
        or text.startswith("/")
        or ".." in text.split("/")
        or str(PurePosixPath(text)) != text
        or text in (".", MANIFEST)
    ):
        node.refuse("a plain relative path inside the model")
    return text


def _sha256(node: Node) -> str:
    text = node.text()
    if len(text) != _SHA256_DIGITS or not _HEX.issuperset(text):
        node.refuse("64 hex digits in lower case")
    return text


def _nothing_else(directory: Path, entries: dict[str, Entry]) -> None:
    # A model may name further files to load. None may be there that the manifest does not list,
    # since only listed files are checked.
    for parent, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            path = Path(parent, name)
            if path.is_symlink():
                raise ModelError(str(path), "a regular file", "a link")
            relative = path.relative_to(directory).as_posix()
            if name in files and relative != MANIFEST and relative not in entries:
                raise ModelError(str(path), "only files that the manifest lists", "one more")


def _check(directory: Path, entry: Entry) -> None:
    path = directory / entry.path
    size = _regular(path)
    if size != entry.size:
        raise ModelError(str(path), f"{entry.size} bytes", f"{size} bytes")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(str(path), "a readable file", error.strerror or str(error)) from error
    if digest != entry.sha256:
        raise ModelError(str(path), f"sha256 {entry.sha256}", f"sha256 {digest}")


def _labels(path: Path, classes: int) -> tuple[str, ...]:
    try:
        labels = tuple(_bounded(path, _LABELS_BYTES).decode("utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise ModelError(str(path), "UTF-8", f"another byte at {error.start}") from error
    if len(labels) != classes:
        raise ModelError(str(path), f"{classes} labels, one for each class", f"{len(labels)}")
    return labels
