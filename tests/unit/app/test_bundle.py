from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import bundle
from app.bundle import ModelError

Alter = Callable[[Callable[[dict[str, Any]], object]], Path]


def test_whole_model_is_read(whole_model: Path) -> None:
    """Name, version, labels and digest come from the files themselves."""
    read = bundle.read(whole_model)
    assert (read.name, read.version, read.labels[:2], len(read.labels)) == (
        "digits",
        "1",
        ("zero", "one"),
        10,
    )
    assert read.digest.startswith("sha256:")
    assert len(read.digest) == 71


OUTSIDE = ("../labels.txt", "/etc/passwd", "a/../labels.txt", "..")
ODD = ("./labels.txt", "a//b", "a/", "", ".", "a\\b", "a\x00b", "a\nb", "manifest.json", "x" * 2000)


@pytest.mark.parametrize("path", OUTSIDE + ODD)
def test_path_outside_or_odd_is_refused(alter: Alter, path: str) -> None:
    """A path that could leave the directory, or has two spellings, is refused unopened."""
    with pytest.raises(ModelError, match="files/1/path"):
        bundle.read(alter(lambda document: document["files"][1].update(path=path)))


def test_link_is_refused(model_dir: Path, tmp_path: Path) -> None:
    """A link in the place of a file is not followed, even to the right bytes."""
    (model_dir / "labels.txt").rename(tmp_path / "elsewhere")
    (model_dir / "labels.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"labels\.txt: expected a regular file, found a link"):
        bundle.read(model_dir)


def test_linked_folder_is_refused(model_dir: Path, tmp_path: Path) -> None:
    """A link in the place of a folder is not followed either."""
    (model_dir / "golden").rename(tmp_path / "elsewhere")
    (model_dir / "golden").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="golden: expected a regular file, found a link"):
        bundle.read(model_dir)


def test_linked_manifest_is_refused(model_dir: Path, tmp_path: Path) -> None:
    """The manifest itself must be a file."""
    (model_dir / "manifest.json").rename(tmp_path / "elsewhere")
    (model_dir / "manifest.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"manifest\.json: expected a regular file"):
        bundle.read(model_dir)


def test_changed_byte_is_refused(model_dir: Path) -> None:
    """A file of the right size and other bytes is named with both digests."""
    path = model_dir / "model.onnx"
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(
        ModelError, match=r"model\.onnx: expected sha256 [0-9a-f]{64}, found sha256 [0-9a-f]{64}"
    ):
        bundle.read(model_dir)


def test_truncated_file_is_refused(model_dir: Path) -> None:
    """A short file is named with both sizes."""
    (model_dir / "model.onnx").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"model\.onnx: expected \d+ bytes, found 5 bytes"):
        bundle.read(model_dir)


def test_missing_file_is_refused(model_dir: Path) -> None:
    """A file that is listed and not there is named."""
    (model_dir / "golden" / "three.json").unlink()
    with pytest.raises(ModelError, match=r"three\.json: expected a file, found No such file"):
        bundle.read(model_dir)


def test_unlisted_file_is_refused(model_dir: Path) -> None:
    """Weights that are not checked must not lie next to the model."""
    (model_dir / "weights.bin").write_bytes(b"?")
    with pytest.raises(
        ModelError, match=r"weights\.bin: expected only files that the manifest lists"
    ):
        bundle.read(model_dir)


def test_huge_manifest_is_refused_unread(model_dir: Path) -> None:
    """A manifest of 100 MB is refused by its size."""
    with (model_dir / "manifest.json").open("r+b") as file:
        file.truncate(100_000_000)
    with pytest.raises(ModelError, match="at most 1048576 bytes, found 100000000 bytes"):
        bundle.read(model_dir)


def test_absent_manifest_is_refused(tmp_path: Path) -> None:
    """An empty directory is no model."""
    with pytest.raises(ModelError, match=r"manifest\.json: expected a file"):
        bundle.read(tmp_path)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"null", b'{"schema": 1, "schema": 1}', b"[" * 50_000, b"\xff\xfe"]
)
def test_damaged_manifest_is_refused(model_dir: Path, raw: bytes) -> None:
    """Whatever is no manifest is refused as a bad model."""
    (model_dir / "manifest.json").write_bytes(raw)
    with pytest.raises(ModelError, match=r"manifest\.json"):
        bundle.read(model_dir)


@pytest.mark.parametrize(
    ("mutation", "at"),
    [
        (lambda d: d.update(schema=2), "schema"),
        (lambda d: d.update(schema=True), "schema"),
        (lambda d: d.update(format="pickle"), "format"),
        (lambda d: d.update(name=""), "name"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.pop("interface"), "interface"),
        (lambda d: d.update(files=[]), "files"),
        (lambda d: d["files"].append(d["files"][0]), "files/4/path"),
        (lambda d: d["files"][0].update(size=-1), "files/0/size"),
        (lambda d: d["files"][0].update(size=True), "files/0/size"),
        (lambda d: d["files"][0].update(sha256="F" * 64), "files/0/sha256"),
        (lambda d: d["interface"].update(model="other.onnx"), "interface/model"),
        (lambda d: d["interface"].update(labels="other.txt"), "interface/labels"),
    ],
)
def test_bad_key_is_named(
    alter: Alter, mutation: Callable[[dict[str, Any]], object], at: str
) -> None:
    """Each wrong key is refused with its path."""
    with pytest.raises(ModelError) as caught:
        bundle.read(alter(mutation))
    assert caught.value.what.endswith(f"manifest.json: {at}")


def test_labels_must_match_classes(model_dir: Path, relist: Callable[[], Path]) -> None:
    """One label too few is refused."""
    (model_dir / "labels.txt").write_text("zero\none\n", encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"labels\.txt: expected 10 labels, one for each class, found 2"
    ):
        bundle.read(relist())


def test_labels_must_be_utf8(model_dir: Path, relist: Callable[[], Path]) -> None:
    """Labels in another encoding are refused."""
    (model_dir / "labels.txt").write_bytes(b"\xe9\n" * 10)
    with pytest.raises(ModelError, match="expected UTF-8"):
        bundle.read(relist())


def test_digest_is_that_of_the_bytes(model_dir: Path) -> None:
    """The same document in another spelling is another model."""
    before = bundle.read(model_dir).digest
    path = model_dir / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), indent=1), encoding="utf-8")
    assert bundle.read(model_dir).digest != before
