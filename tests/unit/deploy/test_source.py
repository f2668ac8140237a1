"""The inputs of an app image and their revision, in real git repositories."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy import source
from deploy.errors import SourceUnreadable
from deploy.records import Commit
from deploy.settings.reading import Settings
from deploy.source import Inputs

pytestmark = pytest.mark.usefixtures("git_identity")

BASE = f"debian:trixie-slim@sha256:{'0' * 64}"


def settings(*patterns: str, **build: Any) -> Settings:
    """Return the settings of an application with these files."""
    return Settings.model_validate(
        {
            "app": {"name": "classifier", "files": patterns or ("app/**",)},
            "model": {"name": "imagenet"},
            "image": {"base": BASE, **build},
            "environments": {"local": {}},
        }
    )


def git(folder: Path, *arguments: str) -> str:
    """Run git and return its output."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def write(folder: Path, **files: str) -> None:
    """Write files; two underscores in a name are a slash, one is a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def commit_all(folder: Path, message: str = "change") -> str:
    """Commit all files; return the revision."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """Create an application without git."""
    folder = tmp_path / "application"
    write(
        folder,
        app__main_py="print(1)",
        app__sub__more_py="print(2)",
        Dockerfile="FROM scratch",
        README_md="# Read me",
    )
    return folder


@pytest.fixture
def repository(application: Path) -> Path:
    """Create the application in a repository of one commit."""
    git(application.parent, "init", "--quiet", str(application))
    commit_all(application)
    return application


def read(folder: Path, *patterns: str, **build: Any) -> Inputs:
    """Return the inputs of an application."""
    return source.read_inputs(folder, settings(*patterns, **build))


# --- the revision


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


# --- the files


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


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("app/**", {"app/main.py", "app/sub/more.py"}),
        ("app/*", {"app/main.py"}),
        ("**/*.py", {"app/main.py", "app/sub/more.py"}),
        ("app/**/*.py", {"app/main.py", "app/sub/more.py"}),
        ("app/s?b/[a-m]*", {"app/sub/more.py"}),
        ("app/main.py", {"app/main.py"}),
    ],
)
def test_patterns_match_as_a_shell_has_it(application: Path, pattern: str, found: set[str]) -> None:
    """Two stars match any depth, one star matches one level."""
    assert set(read(application, pattern).files) == {"Dockerfile", *found}


@pytest.mark.parametrize(
    "pattern", ["absent/**", "app/*.txt", "app", "/etc/hostname", "", "app/[", "../*/app/main.py"]
)
def test_a_pattern_without_a_match_is_an_error(application: Path, pattern: str) -> None:
    """The error names the pattern, also one that points outside of the application."""
    with pytest.raises(SourceUnreadable) as caught:
        read(application, "app/**", pattern)
    assert pattern in caught.value.on or "outside" in caught.value.what


def test_a_missing_dockerfile_is_an_error(application: Path) -> None:
    """The error has its name in the settings."""
    with pytest.raises(SourceUnreadable) as caught:
        read(application, dockerfile="app/Containerfile")
    assert caught.value.on.endswith("app/Containerfile")


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


def test_an_unreadable_file_is_an_error(application: Path) -> None:
    """The error has the reason."""
    (application / "app" / "loop").symlink_to("loop")
    (application / "app" / "main.py").unlink()
    (application / "app" / "main.py").symlink_to("/proc/self/mem")
    with pytest.raises(SourceUnreadable):
        read(application)


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


def test_the_key_changes_with_the_base_image_and_the_revision(application: Path) -> None:
    """The image contains the revision."""
    inputs = read(application)
    others = (
        replace(inputs, base=BASE.replace("0", "1")),
        replace(inputs, commit=Commit(revision="5" * 40, dirty=True)),
        replace(inputs, commit=Commit(revision="5" * 40, dirty=False)),
    )
    assert len({inputs.key, *(other.key for other in others)}) == 4


def test_a_key_never_changes_for_inputs_that_do_not(tmp_path: Path) -> None:
    """Otherwise an update of this suite would cause builds on every machine."""
    inputs = Inputs(
        tmp_path,
        {"app/main.py": "- 1", "Dockerfile": "x 2"},
        BASE,
        Commit(revision="5" * 40, dirty=False),
    )
    assert inputs.key == "a7ef395a780f0c2d383b1b337a3ae43a"


# --- why a build is needed


@pytest.fixture
def earlier(tmp_path: Path) -> Inputs:
    """Return inputs of three files."""
    return Inputs(
        tmp_path, {"a": "- 1", "b": "- 1", "c": "- 1"}, BASE, Commit(revision="5" * 40, dirty=False)
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


def pack(inputs: Inputs, *wheels: Path) -> bytes:
    """Return the bytes of the build context."""
    with source.pack_build_context(inputs, wheels) as context:
        return context.read()


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
