"""What changed in an application between two commits, in real repositories."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.records import Commit
from deploy.source.changes import CodeChanges, explain_unknown, read_changes
from tests.fakes.source import commit_all, git, settings, write

pytestmark = pytest.mark.usefixtures("git_identity")


def head(repository: Path) -> Commit:
    """Return the last commit."""
    return Commit(revision=git(repository, "rev-parse", "HEAD"), dirty=False)


def changes(repository: Path, first: Commit, second: Commit) -> CodeChanges:
    """Return what changed in the files of the image."""
    return read_changes(repository, settings("app/**", "locks/**"), first, second)


def test_commits_and_files_of_the_image_are_found(repository: Path) -> None:
    """A commit that changed other files alone is none of them."""
    first = head(repository)
    write(repository, app__main_py="print(9)", app__new_py="1")
    (repository / "app/sub/more.py").unlink()
    commit_all(repository, "Print nine")
    write(repository, README_md="more")
    commit_all(repository, "Explain")
    found = changes(repository, first, head(repository))
    assert [line.partition(" ")[2] for line in found.added] == ["Print nine"]
    assert found.removed == ()
    assert found.files == {"app/main.py": "M", "app/new.py": "A", "app/sub/more.py": "D"}


def test_commits_that_are_gone_are_found(repository: Path) -> None:
    """A rollback of the code takes them back."""
    first = head(repository)
    write(repository, app__main_py="print(9)")
    commit_all(repository, "Print nine")
    found = changes(repository, head(repository), first)
    assert found.added == ()
    assert [line.partition(" ")[2] for line in found.removed] == ["Print nine"]


def test_packages_that_differ_are_found_in_lock_files(repository: Path) -> None:
    """By their versions; their hashes and comments do not matter."""
    write(
        repository,
        locks__app_txt="numpy==2.1.0 \\\n    --hash=sha256:1\nsix==1.0 ; extra == 'x'\na==1\n",
    )
    commit_all(repository)
    first = head(repository)
    write(
        repository,
        locks__app_txt="NumPy==2.2.0 \\\n    --hash=sha256:2\nuvicorn[standard]==1.1\na==1  # x\n",
    )
    commit_all(repository)
    assert changes(repository, first, head(repository)).packages == {
        "numpy": ("2.1.0", "2.2.0"),
        "six": ("1.0", ""),
        "uvicorn": ("", "1.1"),
    }


@pytest.mark.parametrize(
    ("revision", "why"),
    [
        ("unversioned", "it is unversioned"),
        ("--output=/tmp/x", "it is --output=/tmp/x"),
        ("a" * 40, f"no commit {'a' * 12}"),
    ],
)
def test_a_commit_that_is_not_here_is_explained(repository: Path, revision: str, why: str) -> None:
    """A name that is no commit's never reaches git, where it could be an option."""
    assert why in explain_unknown(repository, Commit(revision=revision, dirty=False))
    assert explain_unknown(repository, head(repository)) == ""


def test_without_git_no_commit_is_known(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rest of a comparison does not need it."""
    commit = head(repository)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert explain_unknown(repository, commit) == "git is not installed"


def test_a_folder_without_a_repository_has_no_commits(repository: Path) -> None:
    """It can be a copy of an application."""
    commit = head(repository)
    shutil.rmtree(repository / ".git")
    assert "no commit" in explain_unknown(repository, commit)
