"""The inputs of an app image: their key, their changes, and the build context of them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.errors import SourceUnreadable
from deploy.records import Commit
from deploy.settings.reading import Settings
from deploy.source.inputs import Inputs, read_inputs
from tests.fakes.source import BASE, PLATFORM, pack, read, write

pytestmark = pytest.mark.usefixtures("git_identity")

ROOT = Path(__file__).parents[4]


def test_inputs_are_the_files_of_the_patterns_and_the_dockerfile(application: Path) -> None:
    """The lock file of the packages is among them; folders and caches are not."""
    write(application, app__requirements_txt="x", app__page_html="x")
    (application / "app" / "empty").mkdir()
    assert set(read(application).files) == {
        "Dockerfile",
        "app/main.py",
        "app/page.html",
        "app/requirements.txt",
        "app/sub/more.py",
    }
    wheels = {"requirements": "app/requirements.txt", "python": "3.13"}
    assert set(read(application, "app/*.py", wheels=wheels).files) == {
        "Dockerfile",
        "app/main.py",
        "app/requirements.txt",
    }


def test_the_sample_application_has_its_code() -> None:
    """This repository has a .dockerignore of its own."""
    files = set(read_inputs(ROOT, Settings.read(ROOT, {}), PLATFORM).files)
    assert {"app/__main__.py", "app/requirements.txt", "Dockerfile"} <= files
    assert "app/requirements.in" not in files


# --- the key


def test_the_key_is_the_same_for_the_same_inputs(application: Path, tmp_path: Path) -> None:
    """Machine, folder and times of the files do not count."""
    before = read(application)
    moved = tmp_path / "moved"
    application.rename(moved)
    os.utime(moved / "app" / "main.py", (1, 1))
    assert read(moved).key == before.key
    assert read(moved, "app/sub/**", "app/*.py").key == before.key


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: write(folder, app__main_py="print(3)"), id="other bytes"),
        pytest.param(lambda folder: (folder / "app" / "main.py").chmod(0o755), id="another mode"),
        pytest.param(
            lambda folder: (folder / "app" / "main.py").rename(folder / "app" / "run.py"),
            id="another name",
        ),
        pytest.param(lambda folder: write(folder, app__more_py=""), id="one more"),
        pytest.param(
            lambda folder: write(folder, Dockerfile="FROM debian"), id="another Dockerfile"
        ),
        pytest.param(lambda folder: (folder / "app" / "main.py").unlink(), id="one less"),
    ],
)
def test_the_key_changes_with_all_that_decides_over_the_image(
    application: Path, change: Callable[[Path], object]
) -> None:
    """An old image is never used for new inputs."""
    before = read(application).key
    change(application)
    assert read(application).key != before


def test_the_key_changes_with_all_that_is_no_file(application: Path) -> None:
    """The image contains the revision, and programs of its platform."""
    inputs = read(application)
    others = (
        replace(inputs, platform="linux/arm64"),
        replace(inputs, python="3.13"),
        replace(inputs, base=BASE.replace("0", "1")),
        replace(inputs, commit=Commit(revision="5" * 40, dirty=True)),
        replace(inputs, commit=Commit(revision="5" * 40, dirty=False)),
    )
    assert len({inputs.key, *(other.key for other in others)}) == 1 + len(others)


def test_a_key_never_changes_for_inputs_that_do_not(tmp_path: Path) -> None:
    """Otherwise an update of this suite would cause builds on every machine."""
    inputs = Inputs(
        tmp_path,
        {"app/main.py": "- 1", "Dockerfile": "x 2"},
        BASE,
        Commit(revision="5" * 40, dirty=False),
        PLATFORM,
    )
    assert inputs.key == "a5004449026461df5fcaed237c5916ed"


# --- why a build is needed


@pytest.fixture
def earlier(tmp_path: Path) -> Inputs:
    """Return inputs of three files."""
    return Inputs(
        tmp_path,
        {"a": "- 1", "b": "- 1", "c": "- 1"},
        BASE,
        Commit(revision="5" * 40, dirty=False),
        PLATFORM,
    )


NEW = Commit(revision="6" * 40, dirty=False)


@pytest.mark.parametrize(
    ("files", "base", "commit", "description"),
    [
        ({"a": "- 1", "b": "- 1", "c": "- 1"}, BASE, None, ""),
        ({"a": "- 2", "b": "- 1", "c": "- 1"}, BASE, None, "a changed"),
        ({"a": "- 2", "b": "- 1", "c": "- 1"}, BASE, NEW, "a changed"),
        ({"a": "- 1", "b": "- 1", "c": "- 1"}, BASE, NEW, "the revision changed"),
        ({"a": "- 1", "b": "- 1", "c": "- 1"}, "other", None, "the base image changed"),
        ({"a": "- 1", "b": "- 1", "d": "- 1"}, BASE, None, "c is gone, d is new"),
        (
            {"a": "- 2", "b": "x 1", "d": "- 1"},
            BASE,
            None,
            "a changed, b changed, c is gone and 1 more",
        ),
        ({"d": "- 1", "e": "- 1"}, "other", NEW, "a is gone, b is gone, c is gone and 3 more"),
    ],
)
def test_changes_are_described_in_a_few_words(
    earlier: Inputs, files: dict[str, str], base: str, commit: Commit | None, description: str
) -> None:
    """At most three changes are listed, in a fixed order; a new revision only alone."""
    now = replace(earlier, files=files, base=base, commit=commit or earlier.commit)
    assert now.describe_changes(earlier.by_name) == description


# --- the build context


def test_a_build_context_holds_the_inputs_and_the_wheels(application: Path, tmp_path: Path) -> None:
    """It has nothing else, and plain owners, times and modes."""
    write(tmp_path, thing_whl="wheel")
    (application / "app" / "main.py").chmod(0o700)
    (application / "app" / "sub" / "more.py").chmod(0o600)
    with tarfile.open(
        fileobj=io.BytesIO(pack(read(application), tmp_path / "thing.whl"))
    ) as archive:
        members = archive.getmembers()
        files = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]  # all are files
    assert files == {
        "Dockerfile": b"FROM scratch",
        "app/main.py": b"print(1)",
        "app/sub/more.py": b"print(2)",
        "wheels/thing.whl": b"wheel",
    }
    assert [member.mode for member in members] == [0o644, 0o755, 0o644, 0o644]
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {
        (0, 0, "", 0)
    }


def test_a_build_context_is_the_same_for_the_same_inputs(application: Path, tmp_path: Path) -> None:
    """Otherwise a builder could not use its cache."""
    before = pack(read(application))
    moved = tmp_path / "moved"
    application.rename(moved)
    os.utime(moved / "app" / "main.py", (1, 1))
    assert hashlib.sha256(pack(read(moved))).digest() == hashlib.sha256(before).digest()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.write_text("print(9)", encoding="utf-8"), id="other bytes"),
        pytest.param(lambda path: path.chmod(0o755), id="another mode"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_a_file_that_changes_before_the_build_is_an_error(
    application: Path, change: Callable[[Path], object]
) -> None:
    """Otherwise the image would not match its key."""
    inputs = read(application)
    change(application / "app" / "main.py")
    with pytest.raises(SourceUnreadable) as caught:
        pack(inputs)
    assert caught.value.on.endswith("app/main.py")
