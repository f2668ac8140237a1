"""The files of a model: recognized by their bytes, however these arrive."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from collections.abc import Iterator

import pytest

from deploy.errors import FormatMismatch
from deploy.model import reading
from deploy.model.formats import FormatCheck
from deploy.model.manifest import ModelDescription
from tests.fakes.models import DESCRIPTION, LFS_POINTER


class Harmful:
    """A value whose pickle runs a command when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def describe() -> ModelDescription:
    """Return the description of the small model, whose weights are `model.onnx`."""
    return reading.parse_description(DESCRIPTION.format(version="1").encode(), on="model.toml")


def check(path: str, data: bytes, chunk: int = 1 << 20) -> None:
    """Check a file whose bytes arrive in chunks."""
    found = FormatCheck(describe(), path)
    for start in range(0, len(data), chunk):
        found.add(data[start : start + chunk])
    found.require()


def zip_files(*names: str) -> bytes:
    """Return a zip archive of files with those names."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name in names:
            opened.writestr(name, b"x" * 5000)
    return archive.getvalue()


def pickles() -> Iterator[bytes]:
    """Yield pickles of all protocols that begin with their number."""
    values = (1, None, (1,), "x" * 5000, b"x" * 5000, {"a": [1.5, 2**100]}, Harmful())
    for protocol in (2, 3, 4, 5):
        yield from (pickle.dumps(value, protocol) for value in values)
    # As torch.save wrote several of them, followed by numbers.
    yield pickle.dumps(1, 2) + pickle.dumps({"a": 1}, 2) + random.Random(1).randbytes(5000)
    # As joblib writes an array: its description, and then its numbers.
    yield pickle.dumps({"shape": (9, 9), "order": "C"}, 4)[:-1] + bytes(range(255, 0, -1)) * 9


@pytest.mark.parametrize("data", [*pickles(), zip_files("archive/data.pkl", "archive/data/0")])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_a_pickle_is_refused_under_any_name(data: bytes, chunk: int) -> None:
    """It runs code when it is loaded, beside the weights as well as in their place."""
    for path in ("extra.pt", "labels.txt"):
        with pytest.raises(FormatMismatch, match="runs code when it is loaded") as caught:
            check(path, data, chunk)
        assert caught.value.on == f"{path} of tiny@1"
    with pytest.raises(FormatMismatch, match="the file is a pickle"):
        check("model.onnx", data, chunk)


def test_a_pickle_deep_in_a_zip_archive_is_found() -> None:
    """Its name may lie on the border of two chunks."""
    data = zip_files("archive/version", "archive/deep/data.pkl")
    for chunk in range(1, 40):
        with pytest.raises(FormatMismatch, match="zip archive"):
            check("extra.bin", data, chunk)


@pytest.mark.parametrize("path", ["a.pkl", "a/b.PICKLE", "c.joblib"])
def test_a_file_with_the_name_of_a_pickle_is_refused(path: str) -> None:
    """Old pickles begin like text, and joblib compresses its own."""
    with pytest.raises(FormatMismatch, match="a pickle by its name"):
        check(path, b"x\x9cab")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x03\x00\x00\x80\x3f" * 500,
        zip_files("arr_0.npy"),
        b"see data.pkl",
        b"\x08\x07",
    ],
)
def test_other_files_are_accepted(data: bytes) -> None:
    """Numbers can begin like a pickle, and archives may have other content."""
    check("labels.txt", data)


def test_arrays_of_random_bytes_are_hardly_taken_for_pickles() -> None:
    """Of a million files with the first two bytes of a pickle, few have the bytes after them."""
    found = random.Random(7)
    refused = 0
    for _ in range(2000):
        try:
            check("params.bin", b"\x80" + bytes([found.randint(2, 5)]) + found.randbytes(600))
        except FormatMismatch:
            refused += 1
    assert refused < 100


@pytest.mark.parametrize("path", ["model.onnx", "labels.txt"])
def test_a_pointer_of_git_lfs_is_refused_by_name(path: str) -> None:
    """A clone without git-lfs has it in place of each large file."""
    with pytest.raises(FormatMismatch, match="Git LFS pointer") as caught:
        check(path, LFS_POINTER, chunk=7)
    assert caught.value.on == f"{path} of tiny@1"
    assert "`git lfs pull`" in caught.value.next
