"""An author's directory: which of its files are published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.errors import ManifestInvalid
from deploy.model.directory import Listing, list_directory

FILES = (
    "model.toml",
    "model.onnx",
    "a/deep/er.bin",
    ".env",
    ".git/config",
    ".git/objects/00",
    "a/.cache/x",
    "a/.cache/y/z",
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with plain and hidden files."""
    for name in FILES:
        path = tmp_path / "author" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "author"


def test_hidden_files_and_folders_are_left_out(directory: Path) -> None:
    """They are there for tools, and may hold secrets."""
    assert list_directory(directory, ()) == Listing(
        files=("a/deep/er.bin", "model.onnx"), left_out=(".env", ".git/", "a/.cache/")
    )


@pytest.mark.parametrize(
    ("named", "more", "left_out"),
    [
        (".env", (".env",), (".git/", "a/.cache/")),
        ("a/.cache", ("a/.cache/x", "a/.cache/y/z"), (".env", ".git/")),
        ("a/.cache/y/z", ("a/.cache/y/z",), (".env", ".git/", "a/.cache/x")),
        (".en", (), (".env", ".git/", "a/.cache/")),
    ],
)
def test_hidden_files_that_are_named_are_published(
    directory: Path, named: str, more: tuple[str, ...], left_out: tuple[str, ...]
) -> None:
    """A name is that of a file, or of a folder with all that it has."""
    found = list_directory(directory, {named})
    assert set(found.files) == {"a/deep/er.bin", "model.onnx", *more}
    assert found.left_out == left_out


def test_a_name_that_is_not_utf8_is_refused(directory: Path) -> None:
    """No manifest can have it."""
    (directory / os.fsdecode(b"caf\xe9.txt")).touch()
    with pytest.raises(ManifestInvalid, match="name is not UTF-8") as caught:
        list_directory(directory, ())
    assert caught.value.on == f"{directory}/caf\\xe9.txt"
    assert caught.value.next == "rename it"


def test_a_hidden_link_is_left_out_and_another_is_refused(directory: Path) -> None:
    """What is not published may be anything."""
    (directory / ".link").symlink_to("/etc/passwd")
    assert ".link" in list_directory(directory, ()).left_out
    with pytest.raises(ManifestInvalid, match="plain files and folders"):
        list_directory(directory, {".link"})
