"""What tests of an app image's inputs start from: an application, with and without git."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.source import commit_all, git, write


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
