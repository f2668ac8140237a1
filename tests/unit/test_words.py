"""The words that the glossary of CONTRIBUTING.md retires stand nowhere in the project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {".cfg", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}
NAMES = {"Dockerfile", "run"}
SKIPPED_FOLDERS = {".git", ".nox", ".twinship", ".venv", "locks"}
# Figures of earlier runs are not written again, and this page is the list itself.
SKIPPED_FILES = {"docs/benchmark/report.md", "tests/unit/test_words.py"}
# What each word is replaced by.
RETIRED = {
    r"front.doors?": "endpoint, or proxy",
    r"doors?": "proxy",
    r"doorkeepers?": "proxy container",
    r"entrances?": "endpoint",
    r"premises": "state, names",
    r"surroundings": "supporting objects",
    r"journals?": "history",
    r"anew": "again",
    r"whoever": "the client, the person, another deployer",
    r"somebody": "another deployer, a person",
    r"nobody": "no client, no process",
    r"shall": "must, will",
    r"mends?|mended|mending": "fix",
    r"standing by|stands? by": "standby",
    r"not as it should be": "unhealthy",
    r"take leave|takes leave|takes? their leave": "stop",
    r"stillborn": "never started",
    r"doorway|gatekeeper": "proxy",
    r"at hand": "available",
    r"leads? astray": "points to the wrong place",
    r"way back|way in": "undo, endpoint",
}
# Stored names stay: users' hosts and clusters have containers, labels and accounts of these names.
STORED = re.compile(
    r"-door\b|frontend door|[\"'`]door[\"'`]|dev\.twinship\.\w+"
    r"|\bNOBODY\b|[\"'`]nobody[\"'`]|journalctl"
)
WORDS = re.compile(rf"(?<![\w-])({'|'.join(RETIRED)})(?![\w-])", re.IGNORECASE)
IDENTIFIERS = re.compile(
    r"\b\w*(?:doorkeeper|entrance|premises|surrounding|anew|whoever|somebody)\w*\b", re.IGNORECASE
)


def _files() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if SKIPPED_FOLDERS & set(relative.parts) or relative.as_posix() in SKIPPED_FILES:
            continue
        if path.is_file() and (path.suffix in SUFFIXES or path.name in NAMES):
            yield path


def find_retired(text: str) -> list[str]:
    """Return each line of a text that has a retired word, with its number."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        cleaned = STORED.sub("", line)
        match = WORDS.search(cleaned) or IDENTIFIERS.search(cleaned)
        if match:
            found.append(f"{number}: {match.group()}: {line.strip()}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "waiting for the front door",
        "Whoever comes next",
        "it is made anew",
        "a replica is standing by",
        "fix the code, mend the model",
        "visit = Entrance(url)",
        "place.premises.find()",
    ],
)
def test_a_retired_word_is_found(line: str) -> None:
    """In prose, at the start of a sentence and in identifiers."""
    assert find_retired(line)


@pytest.mark.parametrize(
    "line",
    [
        "docker logs twinship-classifier-local-door",
        'role("door")',
        "recommended, outdoors, marshall",
        "The replica is on standby.",
    ],
)
def test_other_words_are_not(line: str) -> None:
    """Stored names, and words that contain a retired one."""
    assert find_retired(line) == []


def test_no_file_has_a_retired_word() -> None:
    """One word for one thing: CONTRIBUTING.md has the glossary."""
    paths = list(_files())
    assert len(paths) > 300
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        for line in find_retired(path.read_text(encoding="utf-8"))
    ]
    assert found == []
