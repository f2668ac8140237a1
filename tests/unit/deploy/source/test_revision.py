"""The revision of an app image's files, in real git repositories."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from deploy.errors import SourceUnreadable
from deploy.records import Commit
from tests.fakes.source import commit_all, git, read, write

pytestmark = pytest.mark.usefixtures("git_identity")


def test_committed_files_have_the_revision_that_changed_them_last(repository: Path) -> None:
    """Later changes of other files do not count, and cause no new image."""
    first = git(repository, "rev-parse", "HEAD")
    before = read(repository)
    write(repository, README_md="# Read this")
    commit_all(repository)
    assert read(repository).commit == before.commit == Commit(revision=first, dirty=False)
    assert read(repository).key == before.key
    write(repository, app__main_py="print(3)")
    second = commit_all(repository)
    assert read(repository).commit == Commit(revision=second, dirty=False)


def test_a_removed_file_changed_the_code(repository: Path) -> None:
    """The commit that removed it changed the image."""
    (repository / "app" / "sub" / "more.py").unlink()
    assert read(repository).commit.dirty
    removed = commit_all(repository)
    assert read(repository).commit == Commit(revision=removed, dirty=False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"app__main_py": "print(3)"}, id="a changed file"),
        pytest.param({"app__new_py": ""}, id="an untracked file"),
        pytest.param({"Dockerfile": "FROM debian"}, id="another Dockerfile"),
        pytest.param({"app__sub__deep__new_txt": ""}, id="an untracked folder"),
    ],
)
def test_files_that_differ_from_the_commit_are_marked(
    repository: Path, change: dict[str, str]
) -> None:
    """The image has content that is not committed."""
    write(repository, **change)
    assert read(repository).commit == Commit(
        revision=git(repository, "rev-parse", "HEAD"), dirty=True
    )


def test_a_change_that_is_staged_is_not_committed(repository: Path) -> None:
    """It is marked as well."""
    write(repository, app__main_py="print(3)")
    git(repository, "add", "--all")
    assert read(repository).commit.dirty


def test_a_file_that_git_ignores_but_the_image_holds_is_marked(repository: Path) -> None:
    """The commit alone could not give that image again."""
    write(repository, _gitignore="settings.local\n__pycache__/\n")
    commit_all(repository)
    write(repository, app__settings_local="x")
    assert read(repository).commit.dirty


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_change_that_git_is_told_not_to_see_is_marked(repository: Path, flag: str) -> None:
    """The bytes count, not what git shows."""
    git(repository, "update-index", flag, "app/main.py")
    assert not read(repository).commit.dirty
    write(repository, app__main_py="print(3)")
    assert git(repository, "status", "--short") == ""
    assert read(repository).commit.dirty
    (repository / "app" / "main.py").unlink()
    assert read(repository).commit.dirty


def test_a_mode_that_git_does_not_compare_is_marked(repository: Path) -> None:
    """The image has the mode of the file."""
    git(repository, "config", "core.fileMode", "false")
    (repository / "app" / "main.py").chmod(0o755)
    assert git(repository, "status", "--short") == ""
    assert read(repository).commit.dirty


def test_a_sparse_checkout_without_some_files_is_marked(repository: Path) -> None:
    """The commit has more than the image."""
    write(repository, app__data__table_txt="x", app__data2__table_txt="x")
    commit_all(repository)
    git(repository, "sparse-checkout", "set", "app/data")
    assert not (repository / "app" / "data2").exists()
    assert read(repository, "app/**").commit.dirty
    assert not read(repository, "app/data/**").commit.dirty


def test_files_that_a_checkout_converts_are_those_of_the_commit(repository: Path) -> None:
    """Others that git takes for the same are not."""
    write(repository, _gitattributes="*.txt text eol=crlf\n*.conf filter=secret\n")
    git(repository, "config", "filter.secret.clean", "sed s/password=.*/password=/")
    git(repository, "config", "filter.secret.smudge", "cat")
    (repository / "app" / "lines.txt").write_bytes(b"one\r\ntwo\r\n")
    write(repository, app__my_conf="password=\n")
    commit_all(repository)
    assert git(repository, "cat-file", "-p", "HEAD:app/lines.txt") == "one\ntwo"
    assert not read(repository).commit.dirty
    write(repository, app__my_conf="password=secret\n")
    git(repository, "add", "--all")
    assert git(repository, "status", "--short") == ""
    assert read(repository).commit.dirty


def test_links_are_compared_with_those_of_the_commit(repository: Path) -> None:
    """A link to a file is compared by its bytes, a link to a folder by its target."""
    write(repository, app__other__more_py="print(2)")
    (repository / "app" / "link.py").symlink_to("sub/more.py")
    (repository / "app" / "now").symlink_to("sub")
    commit_all(repository)
    assert not read(repository).commit.dirty
    (repository / "app" / "link.py").unlink()
    (repository / "app" / "link.py").symlink_to("main.py")
    assert read(repository).commit.dirty
    git(repository, "checkout", "--", ".")
    (repository / "app" / "now").unlink()
    (repository / "app" / "now").symlink_to("other")
    assert read(repository).commit.dirty


def test_files_of_a_nested_repository_are_marked(repository: Path) -> None:
    """The outer repository does not have them."""
    write(repository, app__inner__code_py="x")
    git(repository / "app", "init", "--quiet", "inner")
    commit_all(repository / "app" / "inner")
    assert read(repository).commit.dirty


@pytest.fixture
def with_submodule(repository: Path, tmp_path: Path) -> Path:
    """Return an application with code in a submodule, all of it committed."""
    other = tmp_path / "library"
    write(other, code_py="x", deep__more_py="x")
    git(tmp_path, "init", "--quiet", str(other))
    commit_all(other)
    allowed = ("-c", "protocol.file.allow=always")
    git(repository, *allowed, "submodule", "--quiet", "add", str(other), "app/library")
    commit_all(repository)
    return repository


def test_a_submodule_is_committed_if_the_outer_repository_names_its_commit(
    with_submodule: Path,
) -> None:
    """The revision is that of the outer repository."""
    before = read(with_submodule)
    assert "app/library/deep/more.py" in before.files
    assert before.commit == Commit(revision=git(with_submodule, "rev-parse", "HEAD"), dirty=False)
    library = with_submodule / "app" / "library"
    write(library, code_py="y")
    assert read(with_submodule).commit.dirty
    commit_all(library)
    assert read(with_submodule).commit.dirty
    second = commit_all(with_submodule)
    assert read(with_submodule, "app/library/**").commit == Commit(revision=second, dirty=False)


def test_a_submodule_that_is_not_checked_out_is_marked(with_submodule: Path) -> None:
    """The image lacks its files."""
    git(with_submodule, "submodule", "--quiet", "deinit", "--force", "app/library")
    assert read(with_submodule).commit.dirty
    assert not read(with_submodule, "app/*.py").commit.dirty


def test_a_damaged_repository_is_an_error(repository: Path) -> None:
    """It is not taken for one without a commit."""
    name = git(repository, "rev-parse", "HEAD^{tree}")
    (repository / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(SourceUnreadable, match="git cannot read"):
        read(repository)


def test_files_that_do_not_enter_the_image_are_not_looked_at(repository: Path) -> None:
    """Other files and the caches of Python do not count, ignored or not."""
    write(repository, notes_txt="x", app____pycache____main_pyc="x", app__stray_pyc="x")
    (repository / "app" / "__pycache__").mkdir()
    (repository / "app" / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x")
    assert not read(repository).commit.dirty
    (repository / ".gitignore").write_text("__pycache__/\n*.pyc\n", encoding="utf-8")
    assert not read(repository).commit.dirty


def test_a_repository_without_a_commit_has_no_revision_yet(application: Path) -> None:
    """A release is possible, and is marked."""
    git(application, "init", "--quiet")
    assert read(application).commit == Commit(revision="unversioned", dirty=True)


def test_an_application_that_was_never_committed_has_no_revision(repository: Path) -> None:
    """Its repository has one, but the application has none."""
    write(repository, other__main_py="x", other__Dockerfile="FROM scratch")
    assert read(repository / "other", "*.py").commit == Commit(revision="unversioned", dirty=True)


def test_an_application_in_a_folder_of_a_repository_is_read_alone(repository: Path) -> None:
    """Changes of other folders do not change its revision."""
    write(repository, other__main_py="x", other__Dockerfile="FROM scratch")
    revision = commit_all(repository)
    write(repository, app__main_py="print(3)", README_md="x")
    commit_all(repository)
    write(repository, app__main_py="print(4)")
    assert read(repository / "other", "*.py").commit == Commit(revision=revision, dirty=False)


def test_without_a_repository_a_release_is_marked_unversioned(
    application: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says so."""
    assert read(application).commit == Commit(revision="unversioned", dirty=True)
    assert "no git repository here: the release is marked unversioned" in caplog.text


def test_without_git_a_release_is_marked_unversioned(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning says that git is missing, not the repository."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read(repository).commit == Commit(revision="unversioned", dirty=True)
    assert "git is not installed: the release is marked unversioned" in caplog.text


def test_a_shallow_clone_causes_a_warning(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may lack the revision of the code; the files are complete."""
    whole = read(repository)
    write(repository, README_md="x")
    later = commit_all(repository)
    assert "shallow" not in caplog.text
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", repository.as_uri(), str(clone))
    caplog.set_level(logging.WARNING, "deploy")
    shallow = read(clone)
    assert shallow.commit == Commit(revision=later, dirty=False)
    assert shallow.files == whole.files
    assert "shallow" in caplog.text
