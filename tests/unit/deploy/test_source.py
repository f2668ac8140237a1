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

from deploy.errors import SourceUnreadable
from deploy.records import Commit
from deploy.settings.reading import Settings
from deploy.source.inputs import Inputs, pack_build_context, read_inputs
from tests.fakes.models import LFS_POINTER

pytestmark = pytest.mark.usefixtures("git_identity")

ROOT = Path(__file__).parents[3]
PLATFORM = "linux/amd64"
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
    return read_inputs(folder, settings(*patterns, **build), PLATFORM)


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


@pytest.mark.parametrize("pattern", ["/", "/etc/**", "..", "../**", "app/../../x"])
def test_a_pattern_that_leads_outside_is_an_error(application: Path, pattern: str) -> None:
    """An image must not contain other files of this machine."""
    with pytest.raises(SourceUnreadable, match="outside"):
        read(application, pattern)
    with pytest.raises(SourceUnreadable, match="outside"):
        read(application, dockerfile=pattern)


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


HIDDEN = [
    "app/.env",
    "app/.env.local",
    "app/.git/config",
    "app/.twinship/records/app.json",
    "app/.venv/lib/x.py",
    "app/main.py~",
    "app/.main.py.swp",
    "app/#main.py#",
    "app/.DS_Store",
]


@pytest.mark.parametrize("path", HIDDEN)
def test_wildcards_do_not_match_secrets_and_what_tools_leave_behind(
    application: Path, path: str
) -> None:
    """Such a file goes into the image if a pattern names it."""
    (application / path).parent.mkdir(parents=True, exist_ok=True)
    (application / path).write_text("x", encoding="utf-8")
    assert path not in read(application, "**").files
    assert path not in read(application, "app/*", "app/*/**").files
    folder, _, name = path.removeprefix("app/").partition("/")
    assert path in read(application, f"app/{folder}/**" if name else path).files


def test_a_link_that_an_editor_leaves_behind_is_not_looked_at(application: Path) -> None:
    """Emacs marks an edited file by a link to nothing."""
    (application / "app" / ".#main.py").symlink_to("ada@example.com.1")
    assert "app/.#main.py" not in read(application).files


@pytest.mark.parametrize("store", ["models", "./models/", "app/../models"])
def test_wildcards_do_not_match_the_model_store(application: Path, store: str) -> None:
    """A store in the application's folder has gigabytes; a pattern can name it."""
    write(application, models__imagenet_bin="x")

    def files(*patterns: str) -> set[str]:
        values = settings(*patterns).model_dump()
        values["model"]["store"] = store
        found = read_inputs(application, Settings.model_validate(values), PLATFORM)
        return set(found.files)

    assert "models/imagenet.bin" not in files("**")
    assert "models/imagenet.bin" not in files("app/**", "*/*")
    assert "models/imagenet.bin" in files("models/*")


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [
        ("*.md", {"README.md"}),
        ("# none\n\n/app/sub/", {"app/sub/more.py"}),
        ("**/*.py\n!app/main.py", {"app/sub/more.py"}),
        ("*\n!app\napp/s?b", {"README.md", "app/sub/more.py"}),
        ("**.md", {"README.md"}),
        ("*\n!app/**", {"README.md"}),
        ("app/**\n!app/main.py", {"app/sub/more.py"}),
        ("app/[^m]*", {"app/sub/more.py"}),
    ],
)
def test_a_dockerignore_is_obeyed(application: Path, rules: str, left_out: set[str]) -> None:
    """As `docker build` has it; the Dockerfile always belongs to the image."""
    every = {"app/main.py", "app/sub/more.py", "README.md", "Dockerfile"}
    (application / ".dockerignore").write_text(rules, encoding="utf-8")
    assert set(read(application, "**").files) - {".dockerignore"} == every - left_out
    (application / "Dockerfile.dockerignore").write_text("none", encoding="utf-8")
    assert every <= set(read(application, "**").files)


def test_the_sample_application_has_its_code() -> None:
    """This repository has a .dockerignore of its own."""
    files = set(read_inputs(ROOT, Settings.read(ROOT, {}), PLATFORM).files)
    assert {"app/__main__.py", "app/requirements.txt", "Dockerfile"} <= files
    assert "app/requirements.in" not in files


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


def pack(inputs: Inputs, *wheels: Path) -> bytes:
    """Return the bytes of the build context."""
    with pack_build_context(inputs, wheels) as context:
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
