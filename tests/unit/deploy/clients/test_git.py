"""What git reports about a repository, in real repositories."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from deploy.clients import git
from deploy.errors import SourceUnreadable

pytestmark = pytest.mark.usefixtures("git_identity")

EVERYTHING = [":(glob)**"]


def run_git(folder: Path, *arguments: str) -> str:
    """Run git and return its output."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Create a repository with one committed file."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "main.py").write_text("print(1)", encoding="utf-8")
    run_git(folder, "init", "--quiet")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message", "first")
    return folder


@pytest.fixture
def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program in place of git; a test writes its text."""
    program = tmp_path / "git"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_the_last_revision_is_that_of_the_files(repository: Path) -> None:
    """A later commit of other files does not count."""
    first = run_git(repository, "rev-parse", "HEAD")
    (repository / "README.md").write_text("x", encoding="utf-8")
    run_git(repository, "add", "--all")
    run_git(repository, "commit", "--quiet", "--message", "second")
    assert git.last_revision(repository, [":(glob)*.py"]) == first
    assert git.last_revision(repository, EVERYTHING) == run_git(repository, "rev-parse", "HEAD")
    assert git.last_revision(repository, [":(glob)*.txt"]) == ""


def test_a_tree_has_the_files_of_a_commit(repository: Path) -> None:
    """With their modes, and below the directory alone; names may have any character."""
    folder = repository / "in here"
    folder.mkdir()
    (folder / "tab\tand\nline.sh").write_text("x", encoding="utf-8")
    (folder / "tab\tand\nline.sh").chmod(0o755)
    (folder / "link").symlink_to("../main.py")
    run_git(repository, "add", "--all")
    run_git(repository, "commit", "--quiet", "--message", "second")
    assert set(git.read_tree(repository, "HEAD")) == {
        "main.py",
        "in here/link",
        "in here/tab\tand\nline.sh",
    }
    found = git.read_tree(folder, "HEAD")
    assert found["tab\tand\nline.sh"].is_executable
    assert found["link"].is_link
    assert git.read_link(folder, found["link"].object) == "../main.py"


def test_a_file_has_the_name_that_git_gives_it(repository: Path) -> None:
    """Its bytes alone decide, without any conversion."""
    path = repository / "main.py"
    entry = git.read_tree(repository, "HEAD")["main.py"]
    assert git.hash_file(path, entry.object) == entry.object
    path.write_bytes(b"other\r\n")
    name = run_git(repository, "hash-object", "--no-filters", str(path))
    assert git.hash_file(path, entry.object) == name


def test_a_checkout_converts_files(repository: Path) -> None:
    """The hash is that of the converted bytes; a failed conversion has none."""
    path = repository / "main.py"
    assert git.hash_checked_out(repository, "HEAD", "main.py") == _sha256(path.read_bytes())
    (repository / ".gitattributes").write_text("*.py filter=shout\n", encoding="utf-8")
    run_git(repository, "config", "filter.shout.smudge", "tr a-z A-Z")
    assert git.hash_checked_out(repository, "HEAD", "main.py") == _sha256(b"PRINT(1)")
    run_git(repository, "config", "filter.shout.smudge", "false")
    run_git(repository, "config", "filter.shout.required", "true")
    assert git.hash_checked_out(repository, "HEAD", "main.py") == ""


def test_a_repository_may_have_no_commit(repository: Path, tmp_path: Path) -> None:
    """It is none the less a repository."""
    assert git.has_commits(repository)
    run_git(tmp_path, "init", "--quiet", "empty")
    assert not git.has_commits(tmp_path / "empty")
    assert git.has_object(repository, run_git(repository, "rev-parse", "HEAD"))
    assert not git.has_object(repository, "5" * 40)


def test_a_folder_without_a_repository_is_none(repository: Path, tmp_path: Path) -> None:
    """A clone with its whole history is one, and is not shallow."""
    assert git.is_repository(repository)
    assert not git.is_shallow(repository)
    assert not git.is_repository(tmp_path)


def test_git_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for on the path."""
    assert git.is_installed()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not git.is_installed()


def test_git_runs_in_one_language(
    fake_git: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failure is known by its message, whatever language the user reads."""
    fake_git.write_text(
        '#!/bin/sh\ntest "$LC_ALL" = C && echo "dubious ownership" >&2\nexit 128\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    with pytest.raises(SourceUnreadable):
        git.is_repository(tmp_path)


def test_a_repository_of_another_user_is_an_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for a missing repository; the detail has git's advice."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(SourceUnreadable) as caught:
        git.is_repository(repository)
    assert "safe.directory" in caught.value.detail


def test_a_damaged_repository_is_an_error(repository: Path) -> None:
    """It is not taken for one without files."""
    name = run_git(repository, "rev-parse", "HEAD^{tree}")
    (repository / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(SourceUnreadable) as caught:
        git.read_tree(repository, "HEAD")
    assert caught.value.on == str(repository)


def test_variables_of_a_hook_do_not_choose_the_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git sets them for its hooks, and users for work of their own."""
    other = tmp_path / "other"
    run_git(tmp_path, "init", "--quiet", str(other))
    head = run_git(repository, "rev-parse", "HEAD")
    for name, value in {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / "index"),
        "GIT_OBJECT_DIRECTORY": str(other / "objects"),
        "GIT_NAMESPACE": "other",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_EXTERNAL_DIFF": "false",
    }.items():
        monkeypatch.setenv(name, value)
    assert git.last_revision(repository, EVERYTHING) == head
    assert set(git.read_tree(repository, "HEAD")) == {"main.py"}
    assert git.hash_checked_out(repository, "HEAD", "main.py") == _sha256(b"print(1)")
    assert not git.is_repository(tmp_path)


def test_a_users_configuration_does_not_change_what_is_read(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signatures and colours would be part of the output."""
    head = run_git(repository, "rev-parse", "HEAD")
    (tmp_path / "gitconfig").write_text(
        "[log]\nshowSignature = true\n[color]\nui = always\n"
        "[core]\nquotePath = true\n[column]\nui = always\n"
        "[gpg]\nprogram = /bin/false\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert git.last_revision(repository, EVERYTHING) == head
    assert set(git.read_tree(repository, "HEAD")) == {"main.py"}


def test_a_repository_that_the_user_trusts_is_read(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trust may be in variables, as in a CI job."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "*")
    assert git.is_repository(repository)
