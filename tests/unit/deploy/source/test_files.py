"""The selected files of a folder, and the state of each."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from deploy.errors import SourceUnreadable
from tests.fakes.models import LFS_POINTER
from tests.fakes.source import pack, read, write

pytestmark = pytest.mark.usefixtures("git_identity")


@pytest.mark.parametrize(
    "pattern", ["absent/**", "app/*.txt", "app", "/etc/hostname", "", "app/[", "../*/app/main.py"]
)
def test_a_pattern_without_a_match_is_an_error(application: Path, pattern: str) -> None:
    """The error names the pattern, also one that points outside of the application."""
    with pytest.raises(SourceUnreadable) as caught:
        read(application, "app/**", pattern)
    assert pattern in caught.value.on


@pytest.mark.parametrize(
    ("pattern", "advice"), [("app", '"app/**"'), (".", '"**"'), ("", '"**"'), ("./", '"**"')]
)
def test_a_pattern_for_a_folder_is_an_error_that_says_what_to_write(
    application: Path, pattern: str, advice: str
) -> None:
    """A folder has no bytes."""
    with pytest.raises(SourceUnreadable) as caught:
        read(application, pattern)
    assert advice in caught.value.next


def test_a_missing_dockerfile_is_an_error(application: Path) -> None:
    """The error has its name in the settings."""
    with pytest.raises(SourceUnreadable) as caught:
        read(application, dockerfile="app/Containerfile")
    assert caught.value.on.endswith("app/Containerfile")


def test_a_linked_folder_stays_a_link(application: Path) -> None:
    """The files that it leads to are in the image themselves."""
    (application / "app" / "now").symlink_to("sub")
    inputs = read(application)
    assert inputs.files["app/now"] == "l sub"
    assert not [path for path in inputs.files if path.startswith("app/now/")]
    with tarfile.open(fileobj=io.BytesIO(pack(inputs))) as archive:
        member = archive.getmember("app/now")
    assert (member.issym(), member.linkname) == (True, "sub")
    (application / "app" / "now").unlink()
    write(application, app__sub2__more_py="print(2)")
    (application / "app" / "now").symlink_to("sub2")
    assert read(application).files["app/now"] == "l sub2"


def test_a_linked_folder_whose_files_are_not_in_the_image_is_an_error(application: Path) -> None:
    """The error says which pattern is missing; then the link leads somewhere."""
    write(application, shared__common__tools_py="x")
    (application / "app" / "common").symlink_to("../shared/common")
    with pytest.raises(SourceUnreadable) as caught:
        read(application)
    assert caught.value.on.endswith("app/common")
    assert '"shared/common/**"' in caught.value.next
    files = read(application, "app/**", "shared/common/**").files
    assert files["app/common"] == "l ../shared/common"
    assert "shared/common/tools.py" in files


def test_a_pattern_through_a_linked_folder_needs_its_files_too(application: Path) -> None:
    """Only those that the pattern matches."""
    write(application, app__sub__more_txt="x")
    (application / "app" / "now").symlink_to("sub")
    with pytest.raises(SourceUnreadable, match="linked folder"):
        read(application, "app/now/*.py")
    files = read(application, "app/now/*.py", "app/sub/*.py").files
    assert set(files) == {"Dockerfile", "app/now", "app/sub/more.py"}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/usr/share", "outside"),
        ("../..", "outside"),
        ("..", "a folder that it is in"),
        (".", "a folder that it is in"),
        ("link", "nothing"),
        ("absent", "nothing"),
    ],
)
def test_a_link_that_leads_nowhere_in_the_image_is_an_error(
    application: Path, target: str, reason: str
) -> None:
    """It may lead outside, to itself or to nothing."""
    (application / "app" / "link").symlink_to(target)
    with pytest.raises(SourceUnreadable) as caught:
        read(application)
    assert reason in caught.value.what
    assert caught.value.on.endswith("app/link")


@pytest.mark.parametrize("target", ["sub", "main.py"])
def test_a_link_with_an_absolute_path_is_an_error(application: Path, target: str) -> None:
    """It leads somewhere else on another machine, and in the image."""
    (application / "app" / "link").symlink_to(application / "app" / target)
    with pytest.raises(SourceUnreadable, match="absolute"):
        read(application)


def test_a_link_within_its_folder_is_the_file_it_leads_to(application: Path) -> None:
    """The image has a file in its place."""
    (application / "app" / "link.py").symlink_to("sub/more.py")
    found = read(application)
    assert found.files["app/link.py"] == found.files["app/sub/more.py"]


@pytest.mark.parametrize("target", ["../README.md", "/etc/hostname"])
def test_a_link_out_of_its_folder_is_an_error(application: Path, target: str) -> None:
    """An image must not contain other files of this machine."""
    (application / "app" / "link.py").symlink_to(target)
    with pytest.raises(SourceUnreadable) as caught:
        read(application)
    assert caught.value.on.endswith("app/link.py")


def test_a_folder_that_is_a_link_does_not_lead_out(application: Path, tmp_path: Path) -> None:
    """A pattern through it does not either."""
    write(tmp_path, other__secret_py="x")
    (application / "app" / "away").symlink_to(tmp_path / "other")
    with pytest.raises(SourceUnreadable, match="outside"):
        read(application, "app/*/*.py")


def test_a_pointer_of_git_lfs_is_an_error(application: Path) -> None:
    """An image with it would fail when it reads the file, or later."""
    write(application, app__table_csv=LFS_POINTER.decode())
    with pytest.raises(SourceUnreadable) as caught:
        read(application)
    assert caught.value.on.endswith("app/table.csv")
    assert "git lfs pull" in caught.value.next


def test_a_name_that_is_not_utf8_is_an_error(application: Path) -> None:
    """The error shows the bytes of the name."""
    (application / "app" / os.fsdecode(b"caf\xe9.txt")).write_text("x", encoding="utf-8")
    with pytest.raises(SourceUnreadable, match="not UTF-8") as caught:
        read(application)
    assert caught.value.on == "app/caf\\xe9.txt"


def test_an_unreadable_file_is_an_error(application: Path) -> None:
    """The error has the reason."""
    (application / "app" / "loop").symlink_to("loop")
    (application / "app" / "main.py").unlink()
    (application / "app" / "main.py").symlink_to("/proc/self/mem")
    with pytest.raises(SourceUnreadable):
        read(application)
