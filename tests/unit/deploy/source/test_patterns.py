"""The patterns that choose files, and what their wildcards never match."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import SourceUnreadable
from deploy.settings.reading import Settings
from deploy.source.inputs import read_inputs
from tests.fakes.source import PLATFORM, read, settings, write

pytestmark = pytest.mark.usefixtures("git_identity")


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


@pytest.mark.parametrize("pattern", ["/", "/etc/**", "..", "../**", "app/../../x"])
def test_a_pattern_that_leads_outside_is_an_error(application: Path, pattern: str) -> None:
    """An image must not contain other files of this machine."""
    with pytest.raises(SourceUnreadable, match="outside"):
        read(application, pattern)
    with pytest.raises(SourceUnreadable, match="outside"):
        read(application, dockerfile=pattern)


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
